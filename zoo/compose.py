"""Hiding the hole, compositing, padding and mask pyramids: pure tensor functions, 1 = hole throughout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5


def hide(image: Tensor, mask: Tensor, fill: float = GREY) -> Tensor:
    """Replaces the hole by a constant.

    By selection, never by multiplication: NaN times 0 is NaN, and a product would let the truth through.

    Args:
        image: B C H W.
        mask: B 1 H W in {0, 1}, 1 = hole.
        fill: The value of hidden pixels, in the image's range.
    """
    return torch.where(mask > 0.5, image.new_full((), fill), image)


def composite(raw: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The prediction in the hole, the image elsewhere: known pixels are bit-exact (B C H W, any range)."""
    return torch.where(mask > 0.5, raw.to(image.dtype), image)


def to_uint8(image: Tensor) -> Tensor:
    """Rounds an image in [0, 1] to 8 bits: round(clip(255 x)), the form every metric and every file uses."""
    return image.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def shrink_mask(mask: Tensor, factor: int) -> Tensor:
    """A mask at 1/`factor` of the size: a cell is a hole if any of its pixels is.

    Max-pooling, never bilinear or nearest: those lose strokes thinner than the stride, and hole content would count as
    known.

    Args:
        mask: B 1 H W, H and W multiples of `factor`.
        factor: How many pixels a cell has along each side.
    """
    return F.max_pool2d(mask, factor, factor)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Grows the hole by `radius` pixels in all eight directions (B 1 H W)."""
    return F.max_pool2d(mask, 2 * radius + 1, 1, radius) if radius > 0 else mask


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads right and bottom by reflection up to a multiple (by replication where the image is too small to reflect).

    Args:
        image: B C H W, float.
        multiple: What H and W are padded to a multiple of.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == 0 and right == 0:
        return image
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, bottom), mode=mode)


def unpad(image: Tensor, height: int, width: int) -> Tensor:
    """Crops away what `pad_to_multiple` added."""
    return image[..., :height, :width]
