"""The layers of both stages: gated convolution (Yu et al. 2019, Sec. 3.1) and what its ablations put in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Gate = Literal["on", "plain", "partial"]
PadMode = Literal["symmetric", "tf_same", "reflect"]
Activation = Literal["elu", "relu", "none"]


class Layer(NamedTuple):
    """One row of the architecture table: a convolution to `channels` (after gating), upsampling first where it says so.

    Without `gated` it is a plain convolution in every model, as the last layer of each stage is.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    activation: Activation = "elu"
    upsample: bool = False
    gated: bool = True


class GatedConv(nn.Module):
    """Gated convolution: φ(features) ⊙ σ(gate), both halves of one convolution (Yu et al. 2019, Sec. 3.1).

    Args:
        channels_in: Channels of the input.
        layer: The row of the table.
        gated: `on`, or `plain` or `partial` convolution with the same activation.
        pad_mode: How borders are padded.
    """

    def __init__(self, channels_in: int, layer: Layer, gated: Gate, pad_mode: PadMode) -> None:
        super().__init__()
        self.layer, self.gated, self.pad_mode = layer, gated, pad_mode
        out = layer.channels * (2 if gated == "on" else 1)
        self.conv = nn.Conv2d(channels_in, out, layer.kernel, layer.stride, dilation=layer.dilation)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The layer's output, and for `partial` which of its cells saw a known one.

        Args:
            x: B C H W.
            known: B 1 H W, 1 where `x` is known; None unless partial.
        """
        if self.layer.upsample:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            known = None if known is None else F.interpolate(known, scale_factor=2, mode="nearest")
        if self.gated == "partial" and known is not None:
            x, known = self._partial(x, known)
            return self._activate(x), known
        y = self._convolve(x)
        if self.gated == "on":
            features, gate = y.chunk(2, 1)
            if y.is_contiguous(memory_format=torch.channels_last):  # strided halves are five times slower on a CPU
                features = features.contiguous(memory_format=torch.channels_last)
                gate = gate.contiguous(memory_format=torch.channels_last)
            return self._activate(features) * gate.sigmoid(), None
        return self._activate(y), None

    def _activate(self, x: Tensor) -> Tensor:
        if self.layer.activation == "none":
            return x
        return F.relu(x) if self.layer.activation == "relu" else F.elu(x)

    def _convolve(self, x: Tensor) -> Tensor:
        layer, (height, width) = self.layer, x.shape[-2:]
        reach = layer.dilation * (layer.kernel - 1)
        if self.pad_mode == "symmetric":
            # Deviation: convolutions of stride 2 are padded evenly.
            pad = reach // 2
            return F.conv2d(x, self.conv.weight, self.conv.bias, layer.stride, pad, layer.dilation)
        if self.pad_mode == "tf_same":
            (top, bottom), (left, right) = (_same_padding(size, layer.stride, reach) for size in (height, width))
            x = F.pad(x, (left, right, top, bottom))
        else:
            mode = "reflect" if reach // 2 < min(height, width) else "replicate"
            x = F.pad(x, [reach // 2] * 4, mode=mode)
        return F.conv2d(x, self.conv.weight, self.conv.bias, layer.stride, 0, layer.dilation)

    def _partial(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Liu et al. 2018, Eq. 1 and 2: known pixels only, renormalised by their number in the window."""
        layer = self.layer
        pad = layer.dilation * (layer.kernel - 1) // 2
        window = known.new_ones(1, 1, layer.kernel, layer.kernel)
        count = F.conv2d(known, window, None, layer.stride, pad, layer.dilation)
        y = F.conv2d(x * known, self.conv.weight, None, layer.stride, pad, layer.dilation)
        seen = (count > 0.5).to(y.dtype)
        bias = self.conv.bias.view(-1, 1, 1)  # type: ignore[union-attr]
        return (y * (layer.kernel**2 / count.clamp_min(1.0)) + bias) * seen, seen


FEATURE_GAIN = 2.4  # undoes the gate's factor of about a half and what ELU takes from a normal variable


def balance(network: nn.Module) -> None:
    """Draws weights that keep the size of features through gated layers.

    Glorot's rule, the paper's, counts both halves of a gated convolution as outputs and does not know of the gate: each
    layer then shrinks its features about 2.4 times, and seventeen layers leave nothing but biases to learn from at
    first. Training of a million steps gets over that; one of some thousands does not.
    """
    for module in network.modules():
        if isinstance(module, GatedConv):
            weight = module.conv.weight
            with torch.no_grad():
                weight.normal_(0.0, weight[0].numel() ** -0.5)
                if module.gated == "on":
                    weight[: module.layer.channels].mul_(FEATURE_GAIN)


def _same_padding(size: int, stride: int, reach: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
    return total // 2, total - total // 2


class Layers(nn.ModuleList):
    """Convolutions one after another, by the rows of a table.

    Args:
        channels_in: Channels of the input.
        table: The layers.
        gated: The kind of convolution of the layers that are gated.
        pad_mode: How borders are padded.
    """

    def __init__(self, channels_in: int, table: Sequence[Layer], gated: Gate, pad_mode: PadMode) -> None:
        channels = [channels_in, *(layer.channels for layer in table)]
        super().__init__(
            GatedConv(c, layer, gated if layer.gated else "plain", pad_mode)
            for c, layer in zip(channels, table, strict=False)
        )

    def forward(self, x: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The last layer's output, and which of its cells are known (None unless partial)."""
        for layer in self:
            x, known = layer(x, known)
        return x, known
