"""The options of the encoder: sizes, and what the rows of the paper's Tables 6 to 8 change."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.models.mminvertfill.attention import PATCHES
from zoo.models.mminvertfill.bottleneck import RATES


@dataclass(frozen=True)
class EncoderOptions:
    """What the encoder is made of; the defaults are the paper's at 256 pixels.

    Attributes:
        edge: Whether there is an edge branch (and its two input channels).
        segmentation: K, classes; 0 for no such branch (and none of its K + 1 input channels).
        widths: Channels at s/2, s/4 and s/8.
        auxiliary: Channels of each auxiliary branch, coarse to fine.
        norm: `gn`, `bn` or `syncbn`.
        gated_stem: Whether the first two convolutions are gated, as in MMT.
        bottleneck: `acb`, `res` or `aot` (Table 8).
        n_blocks: How many of them.
        rates: R, their dilations.
        acb_variant: `paper`, or `code` for the form of MMT's code, which also concerns the backbone's tail.
        acb_tau: Temperature of ACB's softmax.
        matched: Whether `res` and `aot` have the channels of ACB's four paths.
        fusion: How the inpainting branch takes in the others (Table 7), of `decoder.FUSIONS`.
        aux_source: What it takes in (Table 6), of `decoder.SOURCES`.
        gma_gate: How attention trusts hole cells less, of `attention.GATES`.
        patches: Cells on a side of the heads' patches.
        adn_order: `conv` or `adn`, whichever comes first in q, k and v is the name.
        ff_variant: `gated`, or `mmt` for the form of MMT's code.
        dec_up: `nearest_conv` or `convT`.
        mask_down: `max` or `nearest`.
    """

    edge: bool = True
    segmentation: int = 15
    widths: tuple[int, int, int] = (64, 128, 256)
    auxiliary: tuple[int, int, int] = (128, 128, 64)
    norm: str = "gn"
    gated_stem: bool = False
    bottleneck: str = "acb"
    n_blocks: int = 8
    rates: tuple[int, ...] = RATES
    acb_variant: str = "paper"
    acb_tau: float = 1.0
    matched: bool = False
    fusion: str = "gma+adn"
    aux_source: str = "feature"
    gma_gate: str = "attention"
    patches: tuple[int, ...] = PATCHES
    adn_order: str = "conv"
    ff_variant: str = "gated"
    dec_up: str = "nearest_conv"
    mask_down: str = "max"

    @property
    def channels_in(self) -> int:
        """7 + K with all modalities: X and M, E and M_E, S and M_S."""
        return 4 + 2 * self.edge + (self.segmentation + 1) * bool(self.segmentation)
