"""The residual blocks of PICNet (Zheng et al. 2019), on which CMA and NIGDT build, with spectral normalization.

Main branch and shortcut are summed; the shortcut is always a learned convolution, also where the widths agree. Maps are
B C H W throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.1  # of the leaky ReLU


def activation(slope: float = SLOPE) -> nn.Module:
    """The leaky ReLU of all blocks."""
    return nn.LeakyReLU(slope)


class Conv(nn.Conv2d):
    """A convolution of stride 1 that keeps the size, under spectral normalization.

    Args:
        channels_in: C of the input.
        channels_out: C of the output.
        kernel: 1 or 3.
        padding: Pixels added on each side; None keeps the size.
        spectral: Whether the weight is divided by its largest singular value.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, padding: int | None = None, spectral: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2 if padding is None else padding)
        _initialize(self, spectral)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _float_weight(self), self.bias, padding=self.padding)


class EnlargingConv(nn.ConvTranspose2d):
    """A 3x3 transposed convolution that doubles the size, under spectral normalization.

    Args:
        channels_in: C of the input.
        channels_out: C of the output.
        spectral: Whether the weight is divided by its largest singular value.
        dim: Which dimension of the weight makes the rows of that matrix: 1, its outputs, or 0, its inputs, as in the
            weights that PICNet and TDANet published.
    """

    def __init__(self, channels_in: int, channels_out: int, spectral: bool = True, dim: int = 1) -> None:
        super().__init__(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
        _initialize(self, spectral, dim)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.conv_transpose2d(x, _float_weight(self), self.bias, stride=2, padding=1, output_padding=1)


class Score(nn.Linear):
    """A linear layer to one number, under spectral normalization."""

    def __init__(self, channels_in: int) -> None:
        super().__init__(channels_in, 1)
        _initialize(self, spectral=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _float_weight(self), self.bias)


def _initialize(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, spectral: bool, dim: int = 0) -> None:
    """Orthogonal weights before normalization, whose scale is then irrelevant; zero biases."""
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if spectral:
        spectral_norm(layer, dim=dim)


def _float_weight(layer: nn.Module) -> Tensor:
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        weight: Tensor = layer.weight  # type: ignore[assignment]  # the power iteration would run in bf16
    return weight


class Residual(nn.Module):
    """The sum of a main branch and a shortcut."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.main(x) + self.shortcut(x)
        return total


def first(channels_in: int, channels_out: int, spectral: bool = True) -> Residual:
    """The block that sees an image: no activation before it, half the size after it."""
    c, d = channels_in, channels_out
    main = nn.Sequential(Conv(c, d, spectral=spectral), activation(), Conv(d, d, spectral=spectral), nn.AvgPool2d(2))
    return Residual(main, nn.Sequential(nn.AvgPool2d(2), Conv(c, d, 1, spectral=spectral)))


def down(channels_in: int, channels_out: int, spectral: bool = True) -> Residual:
    """Half the size; the hidden width is that of the input."""
    c, d = channels_in, channels_out
    main = nn.Sequential(
        activation(), Conv(c, c, spectral=spectral), activation(), Conv(c, d, spectral=spectral), nn.AvgPool2d(2)
    )
    return Residual(main, nn.Sequential(Conv(c, d, 1, spectral=spectral), nn.AvgPool2d(2)))


def same(
    channels_in: int, channels_out: int, hidden: int | None = None, spectral: bool = True, slope: float = SLOPE
) -> Residual:
    """The same size; the hidden width is that of the output unless given."""
    c, h, d = channels_in, hidden or channels_out, channels_out
    main = nn.Sequential(
        activation(slope), Conv(c, h, spectral=spectral), activation(slope), Conv(h, d, spectral=spectral)
    )
    return Residual(main, nn.Sequential(Conv(c, d, 1, spectral=spectral)))


def up(channels_in: int, channels_out: int, spectral: bool = True, dim: int = 1) -> Residual:
    """Twice the size, with instance normalization; `dim` as of `EnlargingConv`."""
    c, d = channels_in, channels_out
    main = nn.Sequential(
        nn.InstanceNorm2d(c, affine=True), activation(), Conv(c, d, spectral=spectral),
        nn.InstanceNorm2d(d, affine=True), activation(), EnlargingConv(d, d, spectral, dim),
    )  # fmt: skip
    return Residual(main, nn.Sequential(EnlargingConv(c, d, spectral, dim)))


class Output(nn.Module):
    """The head: features to an image in [-1, 1] (B C H W to B 3 H W)."""

    def __init__(self, channels_in: int, spectral: bool = True) -> None:
        super().__init__()
        self.conv = Conv(channels_in, 3, padding=0, spectral=spectral)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(F.leaky_relu(x, SLOPE), (1, 1, 1, 1), mode="reflect")
        return torch.tanh(self.conv(x))
