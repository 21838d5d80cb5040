"""The backbone of the multi-modality guided encoder (Sec. 3.2): five convolutions and self-attention, gated tail."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import unknown_name
from zoo.models.mminvertfill.attention import attend
from zoo.models.mminvertfill.denormalization import in_float

NORMS = ("gn", "bn", "syncbn")
GROUPS = 8
SLOPE = 0.2


class _InFloat:
    """Statistics in float32, also under autocast: sums over a whole map lose too much in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = in_float(super().forward, x)  # type: ignore[misc]
        return y


class GroupNorm(_InFloat, nn.GroupNorm):
    """Group normalization in float32."""


class BatchNorm(_InFloat, nn.BatchNorm2d):
    """Batch normalization in float32."""


class SyncBatchNorm(_InFloat, nn.SyncBatchNorm):
    """Batch normalization over all processes in float32; in one process it is `BatchNorm`."""


def make_norm(kind: str, channels: int) -> nn.Module:
    """The normalization after a convolution.

    Args:
        kind: `gn`, eight groups or, where these do not divide the channels, the most that do; `bn`; or `syncbn`. Batch
            norm suits eight or more images per device.
        channels: Of the map.

    Raises:
        UsageError: Another kind.
    """
    # Deviation: normalization is by groups of channels.
    if kind == "gn":
        return GroupNorm(math.gcd(GROUPS, channels), channels)
    if kind == "bn":
        return BatchNorm(channels)
    if kind == "syncbn":
        return SyncBatchNorm(channels)
    raise unknown_name("norm", kind, list(NORMS))


class Block(nn.Module):
    """ReLU(norm(conv(x))), times σ(gate(x)) where it is gated.

    Args:
        channels_in: C of the input.
        channels_out: C of the output.
        kernel: Odd.
        stride: 1 keeps the size, 2 halves it.
        norm: As of `make_norm`; the convolution has no bias, which the norm would take away.
        gated: Whether there is a gate.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, norm: str, gated: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = make_norm(norm, channels_out)
        self.gate = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        return y if self.gate is None else y * self.gate(x).sigmoid()


class SelfAttention(nn.Module):
    """x + gain · out(softmax(q kᵀ) v) over all cells (Zhang et al. 2019, SAGAN); at first it is the identity.

    Args:
        channels: C; q and k have C/8, v has C/2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = nn.Conv2d(channels, narrow, 1), nn.Conv2d(channels, narrow, 1)
        self.value, self.out = nn.Conv2d(channels, half, 1), nn.Conv2d(half, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2).mT for layer in (self.query, self.key, self.value))
        y: Tensor = self.out(attend(q, k, v, None, scale=1.0).mT.reshape(len(x), -1, *x.shape[-2:]))
        return x + self.gain.to(x.dtype) * y


class Tail(nn.Module):
    """The gated convolution e5, which starts the features and the gate of the bottleneck.

    Args:
        channels: C of input and outputs.
        variant: `paper`, f = lrelu(conv(x)) ⊙ g; or `code`, the published MMT's f = lrelu(norm(conv(x) ⊙ g)).
        norm: As of `make_norm`.
    """

    def __init__(self, channels: int, variant: str, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = make_norm(norm, channels) if variant == "code" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f⁰ and g⁰, both B C H W, g⁰ in (0, 1)."""
        f, g = self.conv(x), self.gate(x).sigmoid()
        if self.norm is None:
            return F.leaky_relu(f, SLOPE) * g, g
        return F.leaky_relu(self.norm(f * g), SLOPE), g


class Backbone(nn.Module):
    """Five convolutions, e1 to e5, three of which halve the size; self-attention before the last.

    Args:
        channels_in: Channels of the assembled inputs, 7 + K.
        widths: Channels at s/2, s/4 and s/8.
        norm: As of `make_norm`.
        gated_stem: Whether e1 and e2 are gated, as in MMT.
        tail: The variant of `Tail`.
    """

    def __init__(
        self, channels_in: int, widths: tuple[int, int, int], norm: str = "gn", gated_stem: bool = False,
        tail: str = "paper",
    ) -> None:  # fmt: skip
        super().__init__()
        a, b, c = widths
        self.e1 = Block(channels_in, a, 7, 2, norm, gated_stem)
        self.e2 = Block(a, a, 3, 1, norm, gated_stem)
        self.e3 = Block(a, b, 3, 2, norm, gated=False)
        self.e4 = Block(b, c, 3, 2, norm, gated=False)
        self.attention = SelfAttention(c)
        self.e5 = Tail(c, tail, norm)

    def forward(self, inputs: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The skips (h₁ at s/4, h₂ and h₃ at s/8; h₃ = f⁰) and g⁰, of inputs B 7+K s s; 8 divides s."""
        h1 = self.e3(self.e2(self.e1(inputs)))
        h2 = self.e4(h1)
        h3, g = self.e5(self.attention(h2))
        return (h1, h2, h3), g
