"""Masks that take one object out: its box, or its segment."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.rectangles import center

AREA_RANGE = (0.05, 0.50)  # of the image: a smaller hole asks nothing, a larger one leaves no context
MARGIN = (0.10, 0.25)  # of the box's side, on each of the four sides
DILATION = 5  # pixels at 256, around a segment


def object_box(canvas: Canvas, rng: np.random.Generator) -> Mask:
    """One object's box under the canvas' rule; the centre where there is no box."""
    if len(canvas.boxes) == 0:
        return center(canvas)
    if canvas.object_rule == "grown":
        index = int(rng.integers(len(canvas.boxes)))
        return _fill(canvas, _grow(canvas, index, rng))
    return _fill(canvas, canvas.boxes[largest(canvas)].astype(np.float64))


def object_segment(canvas: Canvas, rng: np.random.Generator, dilation: float = DILATION) -> Mask:
    """The chosen object's segment, dilated by a disc; its box where the data has no segments.

    Args:
        canvas: The image.
        rng: Chooses the object under the rule `grown`.
        dilation: Radius in pixels at 256, at least one pixel; annotations miss an object's soft border.
    """
    import cv2

    if canvas.segments is None or len(canvas.boxes) == 0:
        return object_box(canvas, rng)
    index = int(rng.integers(len(canvas.boxes))) if canvas.object_rule == "grown" else largest(canvas)
    radius = max(1, round(dilation * canvas.scale)) if dilation > 0 else 0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown: Mask = cv2.dilate(canvas.segments[index].astype(np.uint8), disc)
    return grown if grown.any() else object_box(canvas, rng)


def largest(canvas: Canvas) -> int:
    """The index of the largest box of 5 % to 50 % of the image (clipped to it); else of the nearest to that range.

    TDANet takes the largest box of all; on COCO that can cover nearly the whole image.
    """
    low, high = (share * canvas.height * canvas.width for share in AREA_RANGE)
    areas = [_area(_pixels(canvas, box)) for box in canvas.boxes]
    distance = [max(low - area, area - high, 0.0) for area in areas]
    return min(range(len(areas)), key=lambda i: (distance[i], -areas[i], i))


def _grow(canvas: Canvas, index: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A box grown by keyed margins, the same law whatever is in it, as far as no other box is touched."""
    x0, y0, x1, y1 = canvas.boxes[index].astype(np.float64)
    left, top, right, bottom = rng.uniform(*MARGIN, 4) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    others = [box for i, box in enumerate(canvas.boxes.astype(np.float64)) if i != index]
    for _ in range(8):  # halving: after eight the margin is under a pixel at any size in use
        grown = np.array([x0 - left, y0 - top, x1 + right, y1 + bottom])
        if not any(_touch(_pixels(canvas, grown), _pixels(canvas, other)) for other in others):
            return grown
        left, top, right, bottom = left / 2, top / 2, right / 2, bottom / 2
    return np.array([x0, y0, x1, y1])


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _pixels(canvas: Canvas, box: NDArray[np.floating]) -> tuple[int, int, int, int]:
    """A box in whole pixels: floor and ceil outward, clipped to the image."""
    x0, y0 = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    x1, y1 = min(canvas.width, math.ceil(box[2])), min(canvas.height, math.ceil(box[3]))
    return x0, y0, max(x1, x0), max(y1, y0)


def _area(pixels: tuple[int, int, int, int]) -> int:
    return (pixels[2] - pixels[0]) * (pixels[3] - pixels[1])


def _fill(canvas: Canvas, box: NDArray[np.floating]) -> Mask:
    mask = canvas.empty()
    x0, y0, x1, y1 = _pixels(canvas, box)
    mask[y0:y1, x0:x1] = 1
    return mask if mask.any() else center(canvas)
