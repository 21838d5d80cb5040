"""The masks of LaMa (Suvorov et al. 2022): thin, medium, thick, the training mixture, and its outpainting.

Polylines whose every segment has a direction, a length and a width of its own, or rectangles. Every pixel constant is
for 256 and scales with the image; LaMa's own are absolute (at 512 its training holes cover .13 in place of .36). The
constants are recalled and not checked one by one; the mean hole ratios of all five kinds are (`RECIPES`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.words import FULL, pixels, real, thicknesses, whole

Range = tuple[int, int]  # both ends included
ANGLES = tuple(0.01 + i for i in range(4))  # radians; every other stroke runs mirrored
SEGMENTS: Range = (1, 5)
WORDS = 3 + 3 * SEGMENTS[1]  # random words of one stroke: start, number of segments, then three a segment
PADDING = (0.04, 0.25)  # of the image's side: what outpainting hides there
PADDING_CHANCE = 0.5  # of each side


@dataclass(frozen=True)
class Strokes:
    """Polylines, in pixels at 256."""

    count: Range
    length: Range
    width: Range


@dataclass(frozen=True)
class Boxes:
    """Rectangles that keep a margin to the image's border, in pixels at 256."""

    count: Range
    side: Range
    margin: int


@dataclass(frozen=True)
class Recipe:
    """Strokes, or boxes with the probability `share`."""

    strokes: Strokes
    boxes: Boxes
    share: float


_THICK = Strokes(count=(1, 6), length=(10, 209), width=(5, 104))
_MEDIUM = Strokes(count=(4, 6), length=(10, 109), width=(5, 54))
_THIN = Strokes(count=(4, 51), length=(10, 49), width=(5, 14))
_LARGE = Boxes(count=(1, 4), side=(30, 150), margin=10)
_SMALL = Boxes(count=(1, 5), side=(10, 50), margin=0)
# All of these numbers are recalled, not read from LaMa's code or configuration, which this project does not open. What
# checks them is the mean ratio that was measured of LaMa's own generator at 256: thin .295, medium .234, thick .394,
# train .355, outpaint .278. The shares of boxes under medium and thick are fitted to it: those that are recalled of
# LaMa's test configuration, .23 each, cover .245 and .41.
RECIPES = {
    "thin": Recipe(_THIN, _SMALL, 0.0),
    "medium": Recipe(_MEDIUM, _SMALL, 0.26),
    "thick": Recipe(_THICK, _LARGE, 0.30),
    "train": Recipe(_THICK, _LARGE, 0.5),
}
OUTPAINT = "outpaint"
NAMES = (*RECIPES, OUTPAINT)


def lama(canvas: Canvas, kind: str, seed: int, name: str) -> Mask:
    """A mask of LaMa's; never empty.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed it keys the mask.
        seed: The seed.
        name: One of `NAMES`.
    """
    if name == OUTPAINT:
        return _outpaint(canvas, kind, seed)
    recipe = RECIPES[name]
    most = max(recipe.strokes.count[1] * WORDS, recipe.boxes.count[1] * 4)
    words = canvas.integers(2 + most, kind, seed)
    mask = canvas.empty()
    if words[0] < recipe.share * FULL:
        boxes(mask, words[1:], recipe.boxes, canvas.scale)
    else:
        strokes(mask, words[1:], recipe.strokes, canvas.scale)
    return mask


def strokes(mask: Mask, words: Sequence[int], law: Strokes, scale: float) -> None:
    """Draws polylines into a mask, in place; a segment ends at the border at the latest."""
    import cv2

    height, width = mask.shape
    widths = thicknesses(*law.width, 1, scale)
    shortest, choices = law.length[0], law.length[1] - law.length[0] + 1
    turns = [(math.sin(angle) * scale, math.cos(angle) * scale) for angle in ANGLES]
    for number in range(whole(words[0], *law.count)):
        first = 1 + number * WORDS
        x, y = words[first] * width // FULL, words[first + 1] * height // FULL
        mirror = 1 if number % 2 else -1
        last = first + 3 + 3 * whole(words[first + 2], *SEGMENTS)
        for i in range(first + 3, last, 3):
            across, down = turns[words[i] * len(turns) // FULL]
            length = shortest + words[i + 1] * choices // FULL
            to_x, to_y = int(x + mirror * length * across), int(y + length * down)
            to_x = 0 if to_x < 0 else width if to_x > width else to_x  # min and max would cost a third of the time
            to_y = 0 if to_y < 0 else height if to_y > height else to_y
            cv2.line(mask, (x, y), (to_x, to_y), 1, widths[words[i + 2] * len(widths) // FULL])
            x, y = to_x, to_y


def boxes(mask: Mask, words: Sequence[int], law: Boxes, scale: float) -> None:
    """Draws rectangles into a mask, in place."""
    margin = round(law.margin * scale)
    for first in range(1, 1 + 4 * whole(words[0], *law.count), 4):
        spans = []
        for axis, length in enumerate(mask.shape):
            room = max(1, length - 2 * margin)
            side = min(pixels(whole(words[first + axis], *law.side), scale), room)
            start = (length - room) // 2 + whole(words[first + 2 + axis], 0, room - side)
            spans.append(slice(start, start + side))
        mask[spans[0], spans[1]] = 1


def _outpaint(canvas: Canvas, kind: str, seed: int) -> Mask:
    """Each side with probability 1/2 hidden over 4 to 25 % of the image's side; one of them where none would be."""
    words = canvas.integers(9, kind, seed)
    hidden = [word < PADDING_CHANCE * FULL for word in words[:4]]
    if not any(hidden):
        hidden[words[8] * 4 // FULL] = True
    mask = canvas.empty()
    for side in (side for side in range(4) if hidden[side]):
        length = mask.shape[1 - side % 2]
        depth = pixels(real(words[4 + side], *PADDING), length)
        near = slice(depth) if side < 2 else slice(length - depth, length)
        if side % 2:
            mask[near] = 1
        else:
            mask[:, near] = 1
    return mask
