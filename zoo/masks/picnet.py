"""The random masks of PICNet (Zheng et al. 2019), which TDANet's and CMA's lineage trains with.

Pixel constants are for 256 and scale with the image.
"""

from __future__ import annotations

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.words import FULL, thicknesses, whole

SHAPES = (16, 64)  # both ends included, here and below
LINES, DISCS = 0.6, 0.8  # of the shapes: 60 % lines, 20 % discs, the rest arcs of ellipses
WIDTH = (4, 20)  # of a line or an arc, and the radius of a disc
DEGREES = (3, 180)
RECTANGLES = (1, 5)
WORDS = 9  # random words of one shape


def irregular(canvas: Canvas, kind: str, seed: int) -> Mask:
    """16 to 64 shapes: lines from anywhere to anywhere, discs, and arcs of ellipses as large as the image."""
    import cv2

    words = canvas.integers(1 + SHAPES[1] * WORDS, kind, seed)
    mask, width, height = canvas.empty(), canvas.width, canvas.height
    widths = thicknesses(*WIDTH, 1, canvas.scale)
    for first in range(1, 1 + WORDS * whole(words[0], *SHAPES), WORDS):
        shape, size, *rest = words[first : first + WORDS]
        wide = widths[size * len(widths) // FULL]
        start = whole(rest[0], 1, width), whole(rest[1], 1, height)
        other = whole(rest[2], 1, width), whole(rest[3], 1, height)
        if shape < LINES * FULL:
            cv2.line(mask, start, other, 1, wide)
        elif shape < DISCS * FULL:
            cv2.circle(mask, start, round((whole(size, *WIDTH) + 0.5) * canvas.scale - 0.5), 1, -1)
        else:
            turn, begin, end = (whole(word, *DEGREES) for word in rest[4:7])
            cv2.ellipse(mask, start, other, turn, begin, end, 1, wide)
    if not mask.any():  # all of them beyond the right or the lower border
        mask[0, 0] = 1
    return mask


def regular(canvas: Canvas, kind: str, seed: int) -> Mask:
    """1 to 5 rectangles; with n of them a side is from 1/(n + 7) of the image's to all that is left."""
    words = canvas.integers(1 + 4 * RECTANGLES[1], kind, seed)
    mask, count = canvas.empty(), whole(words[0], *RECTANGLES)
    for first in range(1, 1 + 4 * count, 4):
        spans = []
        for axis, length in enumerate(mask.shape):
            start = whole(words[first + axis], 0, length * count // (count + 1))
            least = max(1, length // (count + 7))
            side = whole(words[first + 2 + axis], least, max(least, length - start))
            spans.append(slice(start, start + side))
        mask[spans[0], spans[1]] = 1
    return mask
