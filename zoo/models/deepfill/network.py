"""The generator of DeepFill-v2 (Yu et al. 2019, Fig. 3): a coarse and a refinement network of gated convolutions.

Images inside are in [-1, 1], masks are 1 in the hole. Layers keep the order of the figure, so that weights published
in other layouts map to them by position. `width` is the number of channels after gating (24 in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.compose import composite, hide
from zoo.errors import UsageError
from zoo.models.deepfill.attention import AttentionOptions, ContextualAttention
from zoo.models.deepfill.layers import Activation, Gate, Layer, Layers, PadMode


@dataclass(frozen=True)
class GeneratorOptions:
    """The quantities of the architecture; the defaults are the paper's.

    Attributes:
        width: Channels after gating at full resolution.
        dilations: Of the atrous layers.
        gated: `on`; `plain` convolutions; or `partial` convolutions (Liu et al. 2018), renormalised by known pixels.
        pad_mode: `symmetric` zeros; `tf_same`, uneven at stride 2; or `reflect`.
        pre_attention: The activation right before contextual attention.
        attention_branch: Whether the refinement network has its second encoder.
        coarse: Whether there is a coarse network; without it the refinement network sees the masked image.
        detach_coarse: Whether the refinement network's gradient stops at its input.
        refine_input: What the refinement network sees: the image, or with it ones and the mask.
        output: What bounds the image: `tanh`, or `clamp` (v1).
        gated_output: Gate the two last layers too.
        decoder_width: Width of the refinement decoder; 0 for `width`.
        guided: Whether there is a sketch channel.
    """

    width: int = 24
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    gated: Gate = "on"
    pad_mode: PadMode = "symmetric"
    pre_attention: Literal["relu", "elu"] = "relu"
    attention_branch: bool = True
    coarse: bool = True
    detach_coarse: bool = False
    refine_input: Literal["rgb", "rgb_ones_mask"] = "rgb"
    output: Literal["tanh", "clamp"] = "tanh"
    gated_output: bool = False
    decoder_width: int = 0
    guided: bool = False


class Generated(NamedTuple):
    """What the generator makes: `coarse` (None without a coarse network) and `refined`, B 3 H W in [-1, 1]."""

    coarse: Tensor | None
    refined: Tensor


def _atrous(channels: int, dilations: Sequence[int]) -> list[Layer]:
    return [Layer(channels, dilation=d) for d in dilations]


def _decoder(w: int, gated_output: bool) -> list[Layer]:
    up = [Layer(2 * w, upsample=True), Layer(2 * w), Layer(w, upsample=True), Layer(w // 2)]
    return [*up, Layer(3, activation="none", gated=gated_output)]


def _coarse_table(w: int, dilations: Sequence[int], gated_output: bool) -> list[Layer]:
    encoder = [Layer(w, kernel=5), Layer(2 * w, stride=2), Layer(2 * w), Layer(4 * w, stride=2)]
    middle = [Layer(4 * w), Layer(4 * w), *_atrous(4 * w, dilations), Layer(4 * w), Layer(4 * w)]
    return [*encoder, *middle, *_decoder(w, gated_output)]


def _conv_branch_table(w: int, dilations: Sequence[int]) -> list[Layer]:
    encoder = [Layer(w, kernel=5), Layer(w, stride=2), Layer(2 * w), Layer(2 * w, stride=2)]
    return [*encoder, Layer(4 * w), Layer(4 * w), *_atrous(4 * w, dilations)]


def _attention_table(w: int, last: Activation) -> list[Layer]:
    encoder = [Layer(w, kernel=5), Layer(w, stride=2), Layer(2 * w), Layer(4 * w, stride=2)]
    return [*encoder, Layer(4 * w), Layer(4 * w, activation=last)]


class CoarseNetwork(Layers):
    """Stage 1: an encoder-decoder that roughs out the hole; B 5 H W (or 6) to B 3 H W, not yet bounded."""

    def __init__(self, options: GeneratorOptions) -> None:
        table = _coarse_table(options.width, options.dilations, options.gated_output)
        super().__init__(6 if options.guided else 5, table, options.gated, options.pad_mode)


class RefinementNetwork(nn.Module):
    """Stage 2: a dilated and an attending encoder, one decoder; B 3 H W (or 5) to B 3 H W, not yet bounded.

    Args:
        channels_in: Channels of the input.
        options: The architecture.
        attention: The settings of contextual attention.
    """

    def __init__(self, channels_in: int, options: GeneratorOptions, attention: AttentionOptions) -> None:
        super().__init__()
        w, kind = options.width, (options.gated, options.pad_mode)
        self.conv_branch = Layers(channels_in, _conv_branch_table(w, options.dilations), *kind)
        self.has_attention = options.attention_branch
        if self.has_attention:
            self.attn_pre = Layers(channels_in, _attention_table(w, options.pre_attention), *kind)
            self.attention = ContextualAttention(attention)
            self.attn_post = Layers(4 * w, [Layer(4 * w), Layer(4 * w)], *kind)
        d = options.decoder_width or w
        joined = 8 * w if self.has_attention else 4 * w
        self.decoder = Layers(joined, [Layer(4 * d), Layer(4 * d), *_decoder(d, options.gated_output)], *kind)

    def forward(self, x: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
        """The refined image before it is bounded.

        Args:
            x: B C H W, H and W multiples of 8.
            mask: B 1 H W, 1 = hole: known patches only are copied.
            known: B 1 H W, for partial convolutions.
        """
        y, seen = self.conv_branch(x, known)
        if self.has_attention:
            features, felt = self.attn_pre(x, known)
            attended, felt = self.attn_post(self.attention(features, features, mask), felt)
            y = torch.cat([y, attended], 1)
            seen = None if seen is None or felt is None else torch.maximum(seen, felt)
        refined: Tensor = self.decoder(y, seen)[0]
        return refined


class Generator(nn.Module):
    """Both stages.

    Args:
        options: The architecture.
        attention: The settings of contextual attention.
    """

    def __init__(self, options: GeneratorOptions | None = None, attention: AttentionOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or GeneratorOptions()
        self.coarse = CoarseNetwork(options) if options.coarse else None
        # Without a coarse result the image alone does not say where the hole is.
        self.with_mask = options.refine_input == "rgb_ones_mask" or not options.coarse
        sketch = int(options.guided and self.with_mask)
        self.refine = RefinementNetwork(5 + sketch if self.with_mask else 3, options, attention or AttentionOptions())

    def forward(self, image: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Generated:
        """Fills the hole.

        Args:
            image: B 3 H W in [-1, 1]; what lies in the hole is not looked at. H and W multiples of 8.
            mask: B 1 H W, 1 = hole.
            sketch: B 1 H W in {0, 1}, drawn edges, used inside the hole; with `guided` only, none drawn where None.
        """
        masked = hide(image, mask, 0.0)
        known = 1.0 - mask if self.options.gated == "partial" else None
        if self.coarse is None:
            return Generated(None, self._bound(self.refine(self._with_mask(masked, mask, sketch), mask, known)))
        coarse = self.rough(image, mask, sketch)
        pasted = composite(coarse.detach() if self.options.detach_coarse else coarse, masked, mask)
        x = self._with_mask(pasted, mask, sketch) if self.with_mask else pasted
        # Deviation: partial convolutions in the second stage treat every pixel as known.
        # The coarse result has filled the hole; masking it again would leave the coarse network without a use.
        known = None if known is None else torch.ones_like(known)
        return Generated(coarse, self._bound(self.refine(x, mask, known)))

    def rough(self, image: Tensor, mask: Tensor, sketch: Tensor | None = None) -> Tensor:
        """The coarse result alone, B 3 H W in [-1, 1]; arguments as of `forward`.

        Raises:
            UsageError: There is no coarse network.
        """
        if self.coarse is None:
            raise UsageError("this generator has no coarse network", remedy="build it with coarse=True")
        known = 1.0 - mask if self.options.gated == "partial" else None
        return self._bound(self.coarse(self._with_mask(hide(image, mask, 0.0), mask, sketch), known)[0])

    def _with_mask(self, image: Tensor, mask: Tensor, sketch: Tensor | None) -> Tensor:
        """cat[image, sketch in the hole, ones, mask]; the ones mark the border under zero padding."""
        parts = [image, torch.ones_like(mask), mask]
        if self.options.guided:
            drawn = torch.zeros_like(mask) if sketch is None else hide(sketch, 1.0 - mask, 0.0)
            parts.insert(1, drawn)
        return torch.cat(parts, 1)

    def _bound(self, x: Tensor) -> Tensor:
        x = x.float()  # bf16 near 1 has 8-bit steps, and losses are taken on this
        return x.tanh() if self.options.output == "tanh" else x.clamp(-1.0, 1.0)
