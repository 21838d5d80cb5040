"""Images of any size for a generator that makes squares of one size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from zoo.batch import Batch
from zoo.compose import hide
from zoo.module import pad_batch


def to_native(batch: Batch, size: int) -> Batch:
    """A batch at the generator's size.

    Images are padded on the right and at the bottom to a square, by reflection; a square larger than `size` is then
    made smaller. There a pixel is hole that meets any hole pixel, so that no hole colour mixes with known ones.

    Args:
        batch: With the hole hidden, any height and width.
        size: s.

    Returns:
        Every map with s x s pixels; a batch of that size as it is.
    """
    height, width = batch["image"].shape[-2:]
    side = max(size, height, width)
    square = pad_batch(batch, side) if (height, width) != (side, side) else Batch(**batch)
    if side == size:
        return square
    for name in ("mask", "edge", "edge_mask", "segmentation_mask"):
        if name in square:
            square[name] = F.adaptive_max_pool2d(square[name], size)
    image = F.interpolate(square["image"], (size, size), mode="area")
    square["image"] = hide(image, square["mask"])
    if "segmentation" in square:
        classes = square["segmentation"][:, None].float()
        square["segmentation"] = F.interpolate(classes, (size, size), mode="nearest")[:, 0].long()
    return square


def from_native(image: Tensor, height: int, width: int) -> Tensor:
    """The part of a square result that an image of another size had: B 3 H W, of B 3 s s."""
    side = max(image.shape[-1], height, width)
    if side != image.shape[-1]:
        image = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
    return image[..., :height, :width]
