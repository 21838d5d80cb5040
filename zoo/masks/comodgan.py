"""The large masks of CoModGAN (Zhao et al. 2021) and of MAT (Li et al. 2022): rectangles and brush strokes together.

The law is the same, with other numbers. Widths are in pixels at 256 and scale with the image; all else is a share of
it. MAT's widths are meant for 512 pixels, CoModGAN's for 256: so holes cover what was measured of their own generators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.freeform import ANGLE, JITTER, lengths, paint
from zoo.masks.words import FULL, first_within, real, whole

VERTICES = (4, 17)  # a stroke's, besides its first; both ends included
WORDS = 6 + 2 * VERTICES[1]  # random words of one stroke


@dataclass(frozen=True)
class Law:
    """At most so many of each, every number from 0 on as likely.

    Attributes:
        small: Rectangles of up to half a side.
        large: Rectangles of up to a whole side.
        strokes: Brush strokes.
        width: Of a stroke in pixels at 256, both ends included.
    """

    small: int
    large: int
    strokes: int
    width: tuple[int, int]


COMODGAN = Law(small=9, large=4, strokes=19, width=(12, 47))
MAT = Law(small=4, large=2, strokes=8, width=(6, 23))


def large(canvas: Canvas, kind: str, seed: int, law: Law) -> Mask:
    """A mask with a hole, and with known pixels: where either is missing, it is drawn again, a bounded number of times.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed and the number of the try it keys the mask.
        seed: The seed.
        law: How many rectangles and strokes there may be.
    """
    return first_within(lambda number: _draw(canvas, f"{kind} try {number}" if number else kind, seed, law), 0.0, 1.0)


def _draw(canvas: Canvas, kind: str, seed: int, law: Law) -> Mask:
    words = canvas.integers(5 + 4 * (law.small + law.large) + WORDS * law.strokes, kind, seed)
    mask = canvas.empty()
    first = 5
    for number, (most, part) in enumerate(((law.small, 2), (law.large, 1))):
        for start in range(first, first + 4 * whole(words[number], 0, most), 4):
            _rectangle(mask, words[start : start + 4], part)
        first += 4 * most
    across, down = (1 if word < FULL // 2 else -1 for word in words[3:5])
    for start in range(first, first + WORDS * whole(words[2], 0, law.strokes), WORDS):
        _stroke(mask, words[start : start + WORDS], canvas, law.width, (across, down))
    return mask


def _rectangle(mask: Mask, words: Sequence[int], part: int) -> None:
    """One rectangle with sides below 1/`part` of the image's; up to half of it may lie outside, on either side."""
    spans = []
    for axis, length in enumerate(mask.shape):
        side = whole(words[axis], 0, max(1, length // part - 1))
        start = whole(words[2 + axis], -(side // 2), length - side + side // 2 - 1)
        spans.append(slice(max(start, 0), min(start + side, length)))
    mask[spans[0], spans[1]] = 1


def _stroke(
    mask: Mask, words: Sequence[int], canvas: Canvas, widths: tuple[int, int], directions: tuple[int, int]
) -> None:
    """One stroke like DeepFill's brush; how far its directions scatter is drawn once for the whole stroke."""
    across, down = directions
    right, bottom = canvas.width - 1, canvas.height - 1
    x, y = words[1] * canvas.width // FULL, words[2] * canvas.height // FULL
    low = ANGLE - real(words[4], 0, JITTER)
    span = (ANGLE + real(words[5], 0, JITTER) - low) / FULL
    mean, quantiles = math.hypot(canvas.height, canvas.width) / 8, lengths()
    vertices = [x, y]
    for i in range(6, 6 + 2 * whole(words[0], *VERTICES), 2):
        angle, length = low + span * words[i], mean * quantiles[words[i + 1] >> 4]
        down = -down
        x, y = int(x + across * length * math.cos(angle)), int(y + down * length * math.sin(angle))
        x = 0 if x < 0 else right if x > right else x  # min and max would cost a third of the time
        y = 0 if y < 0 else bottom if y > bottom else y
        vertices += (x, y)
    paint(mask, np.array(vertices, np.int32).reshape(-1, 1, 2), whole(words[3], *widths) * canvas.scale)
