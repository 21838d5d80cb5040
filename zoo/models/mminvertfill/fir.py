"""StyleGAN2's resampling filter [1, 3, 3, 1] as depthwise convolutions, on any device and differentiable twice.

Maps are B C H W, the border is zero: up-sampling a constant leaves 0.75 of it on the edges and 0.5625 in the corners.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)


@lru_cache
def kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The outer product of the taps, of sum 1: 1 1 4 4, exact in every dtype, for its numbers are k/64."""
    with torch.inference_mode(False):  # it outlives this call, and an inference tensor could not be trained through
        taps = torch.tensor(TAPS, dtype=dtype, device=device) / sum(TAPS)
        return torch.outer(taps, taps)[None, None]


def _depthwise(x: Tensor, gain: float = 1.0) -> Tensor:
    return (gain * kernel(x.dtype, x.device)).expand(x.shape[1], 1, 4, 4)


def up2(x: Tensor) -> Tensor:
    """Twice the size; as zeros between the pixels, two more before and one after them, then the filter times 4."""
    return F.conv_transpose2d(x, _depthwise(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def down2(x: Tensor) -> Tensor:
    """Half the size, which must be even."""
    return F.conv2d(x, _depthwise(x), stride=2, padding=1, groups=x.shape[1])


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """The filter at the same scale, B C H+2p-3 W+2p-3.

    Args:
        x: B C H W.
        padding: p, zeros on each side: 1 after an enlarging convolution (2H+1 to 2H), 2 before a halving one.
        gain: What the filter sums to: 4 after an enlarging convolution, which spreads a pixel over four.
    """
    return F.conv2d(x, _depthwise(x, gain), padding=padding, groups=x.shape[1])
