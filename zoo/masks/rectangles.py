"""Rectangular holes: the centre, the random box of DeepFill, and a rectangle of any share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.errors import UsageError
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.words import real, whole

BOX_SIDE = 128  # pixels at 256
BOX_SHRINK = 16  # up to so many pixels less on each side of an axis, at 256


def center(canvas: Canvas, area_fraction: float = 0.25) -> Mask:
    """The centre: half of each side by default, as TDANet, PICNet and CMA's tables have it.

    Args:
        canvas: The image.
        area_fraction: The hole's share of the area; 0.25 is half of each side.
    """
    mask = canvas.empty()
    height = max(1, round(canvas.height * area_fraction**0.5))
    width = max(1, round(canvas.width * area_fraction**0.5))
    top, left = (canvas.height - height) // 2, (canvas.width - width) // 2
    mask[top : top + height, left : left + width] = 1
    return mask


def random_box(canvas: Canvas, rng: np.random.Generator) -> Mask:
    """DeepFill's random box (Yu et al. 2018): side 128 at 256, up to 16 pixels less on each side of each axis."""
    mask = canvas.empty()
    height = _side(canvas.height, canvas.scale, rng)
    width = _side(canvas.width, canvas.scale, rng)
    top = int(rng.integers(canvas.height - height + 1))
    left = int(rng.integers(canvas.width - width + 1))
    mask[top : top + height, left : left + width] = 1
    return mask


def rectangle(canvas: Canvas, kind: str, seed: int, low: float, high: float) -> Mask:
    """One rectangle that takes a share in (low, high] of the area, exactly; anywhere inside.

    The area is uniform in that bucket, height over width in 1/2 to 2 times that of the image (uniform logarithm), as
    near to it as the bucket and whole pixels allow.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed it keys the mask.
        seed: The seed.
        low: Percent of the area, excluded.
        high: Percent of the area, included.

    Raises:
        UsageError: No rectangle of this image lies in the bucket.
    """
    least, most = canvas.bucket(low, high)
    words = canvas.integers(4, kind, seed)
    area = whole(words[0], least, most)
    wanted = round((area * canvas.height / canvas.width * 2 ** real(words[1], -1.0, 1.0)) ** 0.5)
    for height in _nearest(min(max(wanted, 1), canvas.height), canvas.height):
        narrow, wide = -(-least // height), min(canvas.width, most // height)
        if narrow <= wide:
            width = min(max(round(area / height), narrow), wide)
            break
    else:
        raise UsageError(
            f"no rectangle of a {canvas.height} x {canvas.width} image lies in ({low:g} %, {high:g} %]",
            remedy="take a wider bucket or a larger image",
        )
    top, left = whole(words[2], 0, canvas.height - height), whole(words[3], 0, canvas.width - width)
    mask = canvas.empty()
    mask[top : top + height, left : left + width] = 1
    return mask


def _nearest(wanted: int, most: int) -> Iterator[int]:
    """The numbers from 1 to `most`, the nearest to `wanted` first."""
    yield wanted
    for step in range(1, most):
        yield from (number for number in (wanted - step, wanted + step) if 1 <= number <= most)


def _side(length: int, scale: float, rng: np.random.Generator) -> int:
    shrink = rng.uniform(0.0, 2 * BOX_SHRINK)
    return int(np.clip(round((BOX_SIDE - shrink) * scale), 1, length))
