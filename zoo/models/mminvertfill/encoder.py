"""The multi-modality guided encoder (Sec. 3.2, Fig. 3a): backbone, bottleneck and mutual decoder."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.mminvertfill.backbone import Backbone
from zoo.models.mminvertfill.bottleneck import Bottleneck
from zoo.models.mminvertfill.decoder import Decoded, Decoder, Truth
from zoo.models.mminvertfill.encoder_options import EncoderOptions

__all__ = ["Encoder", "EncoderOptions"]


class Encoder(nn.Module):
    """Masked inputs to features, images, edges and segmentations at s/8, s/4 and s/2.

    Args:
        options: What it is made of.

    Raises:
        UsageError: An option that is none.
    """

    def __init__(self, options: EncoderOptions | None = None) -> None:
        super().__init__()
        o = options or EncoderOptions()
        self.options = o
        self.backbone = Backbone(o.channels_in, o.widths, o.norm, o.gated_stem, tail=o.acb_variant)
        self.bottleneck = Bottleneck(
            o.widths[2], o.bottleneck, o.n_blocks, o.rates, o.acb_variant, o.acb_tau, o.matched, o.norm
        )
        self.decoder = Decoder(o)

    @property
    def multiple(self) -> int:
        """What must divide height and width: patches must divide the smallest map."""
        return 8 * max(self.options.patches)

    def forward(self, inputs: Tensor, M: Tensor, truth: Truth | None = None) -> Decoded:
        """All maps, coarse to fine.

        Args:
            inputs: B 7+K H W, [X; M; E; M_E; S; M_S] with absent modalities left out, images in [-1, 1].
            M: B 1 H W, 1 = hole.
            truth: Complete maps, for `aux_source: truth` only.

        Raises:
            UsageError: Other channels or a size that `multiple` does not divide; or no truth where it is needed.
        """
        (channels, height, width), wanted = inputs.shape[1:], self.options.channels_in
        if channels != wanted:
            raise UsageError(f"the encoder was given {channels} channels, but is made for {wanted}")
        if height % self.multiple or width % self.multiple:
            raise UsageError(f"{height}x{width} pixels are no multiple of {self.multiple}", remedy="pad the image")
        skips, g = self.backbone(inputs)
        decoded: Decoded = self.decoder(self.bottleneck(skips[-1], g), skips, M.to(inputs.dtype), truth)
        return decoded
