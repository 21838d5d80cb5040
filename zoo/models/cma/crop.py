"""What the local discriminator sees: the square around the hole, resized to one size, as two matrix products."""

from __future__ import annotations

import torch
from torch import Tensor


def hole_squares(mask: Tensor, least: int) -> Tensor:
    """The smallest square around each hole, moved inside the image: B 3, (top, left, side) in pixels.

    Args:
        mask: B 1 H W, 1 = hole. A sample without a hole gets a square in its corner.
        least: The smallest side.
    """
    height, width = mask.shape[-2:]
    limits = []
    for axis, length in ((3, height), (2, width)):
        line = mask.amax(axis)[:, 0] > 0.5
        places = torch.arange(length, device=mask.device)
        start = torch.where(line, places, length).amin(1)
        stop = torch.where(line, places + 1, 0).amax(1)
        limits.append((start.clamp_max(length - 1), stop))
    extents = torch.stack([(stop - start).clamp_min(0) for start, stop in limits])
    side = extents.amax(0).clamp(min(least, height, width), min(height, width))
    corners = []
    for (start, stop), length in zip(limits, (height, width), strict=True):
        corner = torch.div(start + torch.maximum(stop, start + 1) - side, 2, rounding_mode="floor")
        corners.append(torch.minimum(corner.clamp_min(0), length - side))
    return torch.stack([*corners, side], 1)


def crop(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Cuts the squares out and resizes them with an antialiased triangle filter; differentiable, B C size size.

    Where a square has that size already it is copied exactly.

    Args:
        image: B C H W.
        squares: B 3, see `hole_squares`.
        size: Side of the result.
    """
    top, left, side = squares.to(torch.float32).unbind(1)
    rows = _weights(top, side, image.shape[-2], size)
    columns = _weights(left, side, image.shape[-1], size)
    with torch.autocast(image.device.type, enabled=False):  # in bf16 no copy would be exact
        return rows[:, None] @ image.float() @ columns[:, None].transpose(-1, -2)


def _weights(start: Tensor, side: Tensor, length: int, size: int) -> Tensor:
    """Rows of resampling weights, B size length: triangles as wide as the wider of a source and a target pixel."""
    scale = (side / size)[:, None, None]
    target = torch.arange(size, device=start.device, dtype=torch.float32)[None, :, None]
    source = torch.arange(length, device=start.device, dtype=torch.float32)[None, None, :]
    centre = start[:, None, None] + (target + 0.5) * scale - 0.5
    weights = (1.0 - (source - centre).abs() / scale.clamp_min(1.0)).clamp_min(0.0)
    inside = (source >= start[:, None, None]) & (source < (start + side)[:, None, None])
    weights = weights * inside
    return weights / weights.sum(-1, keepdim=True)
