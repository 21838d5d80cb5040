"""Masks that remove what annotations outline: an object's box or segment, or all of a class."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, unknown_name
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.rectangles import center

AREA_RANGE = (0.05, 0.50)  # of the image; a larger hole leaves no context, a smaller one asks for nothing
MARGIN = (0.10, 0.25)  # of the box's side, on each of its four sides
DILATION = 5.0  # pixels at 256, around a segment: annotations miss an object's soft border


class Box(NamedTuple):
    """A box in whole pixels, the last row and column excluded."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        return max(0, self.x1 - self.x0) * max(0, self.y1 - self.y0)

    def overlaps(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def outward(canvas: Canvas, x0: float, y0: float, x1: float, y1: float) -> Box:
    """Every pixel that a box touches, clipped to the image; its area is 0 where the box lies outside."""
    x0, x1 = max(x0, 0.0), min(x1, float(canvas.width))
    y0, y1 = max(y0, 0.0), min(y1, float(canvas.height))
    if x1 <= x0 or y1 <= y0:
        return Box(0, 0, 0, 0)
    return Box(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))


def _boxes(canvas: Canvas) -> list[Box]:
    if not np.isfinite(canvas.boxes).all():
        raise DataError("a box of this image is not finite", canvas.id, "mend its annotation")
    return [outward(canvas, *box) for box in canvas.boxes.astype(np.float64).tolist()]


def largest(canvas: Canvas, boxes: list[Box]) -> int:
    """The largest box with 5 to 50 % of the image's area; else the one nearest to that range.

    TDANet takes the largest box whatever it covers, on COCO nearly the whole image at times.

    Args:
        canvas: The image.
        boxes: Clipped to it; one of them at least has an area.
    """
    low, high = (share * canvas.height * canvas.width for share in AREA_RANGE)

    def merit(index: int) -> tuple[bool, float, int, int]:
        area = boxes[index].area
        return area > 0, -max(low - area, area - high, 0.0), area, -index

    return max(range(len(boxes)), key=merit)


def grown(canvas: Canvas, index: int, boxes: list[Box], margins: list[float]) -> Box:
    """A box with margins of 10 to 25 % of its side on each of the four sides, clipped to the image.

    Where that would take pixels of another object's box, the side that loses least is drawn in up to that box. Boxes
    which overlap the chosen one itself cannot be kept clear and are not considered.

    Args:
        canvas: The image.
        index: Which of its boxes.
        boxes: All of them, in whole pixels.
        margins: Of its side, on the left, top, right and bottom.
    """
    x0, y0, x1, y1 = canvas.boxes[index].astype(np.float64).tolist()
    left, top, right, bottom = margins
    across, down = x1 - x0, y1 - y0
    hole = outward(canvas, x0 - left * across, y0 - top * down, x1 + right * across, y1 + bottom * down)
    own = boxes[index]
    for i, other in enumerate(boxes):
        if i == index or own.overlaps(other) or not hole.overlaps(other):
            continue
        drawn_in = [
            hole._replace(x0=other.x1) if other.x1 <= own.x0 else None,
            hole._replace(y0=other.y1) if other.y1 <= own.y0 else None,
            hole._replace(x1=other.x0) if own.x1 <= other.x0 else None,
            hole._replace(y1=other.y0) if own.y1 <= other.y0 else None,
        ]
        hole = max((box for box in drawn_in if box is not None), key=lambda box: box.area)
    return hole


def choose(canvas: Canvas, seed: int) -> tuple[int, Box] | None:
    """Which object is removed under the dataset's rule, and the hole of kind `object`; None where no box is in sight.

    The choice does not depend on the kind: `object` and `object:segmentation` remove the same object.

    Raises:
        DataError: A box is not finite.
    """
    boxes = _boxes(canvas)
    seen = [index for index, box in enumerate(boxes) if box.area > 0]
    if not seen:
        return None
    if canvas.object_rule == "largest":
        index = largest(canvas, boxes)
        return index, boxes[index]
    rng = canvas.rng("object", seed)
    index = seen[int(rng.integers(len(seen)))]
    return index, grown(canvas, index, boxes, rng.uniform(*MARGIN, 4).tolist())


def object_box(canvas: Canvas, seed: int) -> Mask:
    """Kind `object`: one object's box.

    Rule `largest`: boxes are clipped to the image and rounded outward; the largest of 5 to 50 % of the image's area,
    else the one nearest to that range. Rule `grown`: any of the boxes, keyed, with keyed margins of 10 to 25 % of its
    side on each of the four sides (the same law for every shape), touching no other object's box. An image without a
    box gets the centre mask.
    """
    chosen = choose(canvas, seed)
    if chosen is None:
        return center(canvas)
    mask = canvas.empty()
    hole = chosen[1]
    mask[hole.y0 : hole.y1, hole.x0 : hole.x1] = 1
    return mask


def object_segment(canvas: Canvas, seed: int, dilation: float = DILATION) -> Mask:
    """Kind `object:segmentation[:R]`: the segment of the object that `object` removes, dilated by R pixels at 256.

    The dilation is Euclidean, its radius scales with the shorter side over 256. An image without a box gets the centre
    mask; an object whose segment has no pixel in the image is removed by its box.

    Raises:
        DataError: The dataset has no segments, or not one per box.
    """
    chosen = choose(canvas, seed)
    if chosen is None:
        return center(canvas)
    segment = _segments(canvas)[chosen[0]]
    return dilated(segment, dilation * canvas.scale) if segment.any() else object_box(canvas, seed)


def instance(canvas: Canvas, kind: str, seed: int, dilation: float = DILATION) -> Mask:
    """Kind `instance[:R]`: the segment of one object, any of them as likely, dilated by R pixels at 256.

    An image in which no object has a pixel gets the centre mask.

    Raises:
        DataError: The dataset has no segments, or not one per box.
    """
    segments = _segments(canvas)
    seen = np.flatnonzero(segments.any((1, 2)))
    if len(seen) == 0:
        return center(canvas)
    chosen = seen[canvas.integers(1, kind, seed)[0] * len(seen) // 65536]
    return dilated(segments[chosen], dilation * canvas.scale)


def class_pixels(canvas: Canvas, name: str, dilation: float = DILATION) -> Mask:
    """Kind `class:NAME[:R]`: all pixels of a class of the segmentation, dilated by R pixels at 256.

    An image without a pixel of this class gets the centre mask.

    Args:
        canvas: The image.
        name: A class of the dataset's; `_` stands for a space, too.
        dilation: In pixels at 256.

    Raises:
        DataError: The dataset has no segmentation, or it is not of the image's size.
        UsageError: The dataset has no such class.
    """
    if canvas.segmentation is None or not canvas.classes:
        raise DataError(
            "the image has no segmentation with named classes", canvas.id, "use data with one: coco, cityscapes, ..."
        )
    wanted = (canvas.height, canvas.width)
    if canvas.segmentation.shape != wanted:
        raise DataError(f"the segmentation must be {wanted}, got {canvas.segmentation.shape}", canvas.id)
    names = list(canvas.classes)
    found = name if name in names else name.replace("_", " ")
    if found not in names:
        raise unknown_name(f"class of {canvas.dataset}", name, names)
    pixels = canvas.segmentation == names.index(found)
    return dilated(pixels, dilation * canvas.scale) if pixels.any() else center(canvas)


def dilated(pixels: NDArray[np.bool_], radius: float) -> Mask:
    """Every pixel no further than `radius` from one of `pixels`, H x W with one at least; the distance is Euclidean."""
    import cv2

    distance = cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius + 1e-4, np.uint8)  # distances are float32


def _segments(canvas: Canvas) -> NDArray[np.bool_]:
    segments, wanted = canvas.segments, (len(canvas.boxes), canvas.height, canvas.width)
    if segments is None:
        raise DataError("the image has no segments", canvas.id, "use the mask 'object', or data with segmentations")
    if segments.shape != wanted:
        raise DataError(f"segments must be {wanted}, one per box, got {segments.shape}", canvas.id)
    return segments
