"""Rectangular holes: the centre, and the random box of DeepFill."""

from __future__ import annotations

import numpy as np

from zoo.masks.canvas import Canvas, Mask

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


def _side(length: int, scale: float, rng: np.random.Generator) -> int:
    shrink = rng.uniform(0.0, 2 * BOX_SHRINK)
    return int(np.clip(round((BOX_SIDE - shrink) * scale), 1, length))
