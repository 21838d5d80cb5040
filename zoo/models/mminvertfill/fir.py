"""StyleGAN2's resampling filter [1, 3, 3, 1] as depthwise convolutions, on any device and differentiable twice.

Maps are B C H W, the border is zero: up-sampling a constant leaves 0.75 of it on the edges and 0.5625 in the corners.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)
Map = Callable[[Tensor], Tensor]


@lru_cache
def kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The outer product of the taps, of sum 1: 1 1 4 4, exact in every dtype, for its numbers are k/64."""
    with torch.inference_mode(False):  # it outlives this call, and an inference tensor could not be trained through
        taps = torch.tensor(TAPS, dtype=dtype, device=device) / sum(TAPS)
        return torch.outer(taps, taps)[None, None]


def _depthwise(x: Tensor, gain: float = 1.0) -> Tensor:
    return (gain * kernel(x.dtype, x.device)).expand(x.shape[1], 1, 4, 4)


class _Filter(torch.autograd.Function):
    """A linear map whose adjoint is a filter too, in place of PyTorch's gradient of a depthwise convolution.

    On a CPU that one takes up to eight times as long as the filter. Being linear, the map needs to remember nothing,
    and its gradient is as differentiable as itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, straight: Map, adjoint: Map) -> Tensor:
        ctx.turned = adjoint, straight
        return straight(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradients[0], *ctx.turned), None, None


def _up2(x: Tensor, gain: float) -> Tensor:
    return F.conv_transpose2d(x, _depthwise(x, gain), stride=2, padding=1, groups=x.shape[1])


def _down2(x: Tensor, gain: float) -> Tensor:
    return F.conv2d(x, _depthwise(x, gain), stride=2, padding=1, groups=x.shape[1])


def _blur(x: Tensor, padding: int, gain: float) -> Tensor:
    return F.conv2d(x, _depthwise(x, gain), padding=padding, groups=x.shape[1])


def up2(x: Tensor) -> Tensor:
    """Twice the size; as zeros between the pixels, two more before and one after them, then the filter times 4."""
    y: Tensor = _Filter.apply(x, partial(_up2, gain=4.0), partial(_down2, gain=4.0))
    return y


def down2(x: Tensor) -> Tensor:
    """Half the size, which must be even."""
    y: Tensor = _Filter.apply(x, partial(_down2, gain=1.0), partial(_up2, gain=1.0))
    return y


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """The filter at the same scale, B C H+2p-3 W+2p-3.

    Args:
        x: B C H W.
        padding: p, zeros on each side: 1 after an enlarging convolution (2H+1 to 2H), 2 before a halving one.
        gain: What the filter sums to: 4 after an enlarging convolution, which spreads a pixel over four.
    """
    straight, adjoint = (partial(_blur, padding=p, gain=gain) for p in (padding, len(TAPS) - 1 - padding))
    y: Tensor = _Filter.apply(x, straight, adjoint)
    return y
