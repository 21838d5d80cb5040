"""Strokes whose every segment has a direction and a width of its own: MMagic's irregular masks, and MMT's.

Pixel constants are for 256 and scale with the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.words import FULL, first_within, real, thicknesses, whole

MMAGIC_STROKES = (4, 9)  # both ends included, here and below
MMAGIC_SEGMENTS = (1, 5)
MMAGIC_ANGLES = 6  # 0.01, 1.01, ... radians
MMAGIC_LENGTH = (20, 127)
MMAGIC_WIDTH = (10, 44)
MMAGIC_RATIO = (0.15, 0.65)  # of the area, both ends excluded

MMT_STROKES = (3, 15)
MMT_SEGMENTS = (0, 25)
MMT_LENGTH = (0, 100)
MMT_WIDTH = (10, 24)  # even ones
MMT_SIDE = (1 / 3, 1 / 2)  # of the shorter side


def mmagic(canvas: Canvas, kind: str, seed: int) -> Mask:
    """MMagic's irregular mask, in the setting of its partial convolutions: a hole of 15 to 65 %.

    4 to 9 strokes of 1 to 5 segments, drawn again where the hole is outside that range, a bounded number of times.
    """
    low, high = MMAGIC_RATIO
    return first_within(lambda number: _mmagic(canvas, f"{kind} try {number}" if number else kind, seed), low, high)


def _mmagic(canvas: Canvas, kind: str, seed: int) -> Mask:
    import cv2

    step = 3 + 3 * MMAGIC_SEGMENTS[1]
    words = canvas.integers(1 + MMAGIC_STROKES[1] * step, kind, seed)
    mask, scale = canvas.empty(), canvas.scale
    widths = thicknesses(*MMAGIC_WIDTH, 1, scale)
    for number in range(whole(words[0], *MMAGIC_STROKES)):
        first = 1 + number * step
        x, y = words[first] * canvas.width // FULL, words[first + 1] * canvas.height // FULL
        mirror = 1 if number % 2 else -1
        for i in range(first + 3, first + 3 + 3 * whole(words[first + 2], *MMAGIC_SEGMENTS), 3):
            angle = mirror * (0.01 + words[i] * MMAGIC_ANGLES // FULL)
            length = whole(words[i + 1], *MMAGIC_LENGTH) * scale
            to_x, to_y = int(x + length * math.cos(angle)), int(y + length * math.sin(angle))
            cv2.line(mask, (x, y), (to_x, to_y), 1, widths[words[i + 2] * len(widths) // FULL])
            x, y = to_x, to_y  # outside the image, too: such a stroke is lost
    return mask


def mmt_strokes(canvas: Canvas, kind: str, seed: int) -> Mask:
    """MMT's free-form mask (Yu et al. 2022): 3 to 15 strokes of up to 25 segments in any direction; never empty.

    Lengths are 0 to 100 pixels, widths even ones from 10 to 24.
    """
    step = 3 + 3 * MMT_SEGMENTS[1]
    words = canvas.integers(1 + MMT_STROKES[1] * step, kind, seed)
    mask = canvas.empty()
    for first in range(1, 1 + step * whole(words[0], *MMT_STROKES), step):
        _mmt_stroke(mask, words[first : first + step], canvas)
    if not mask.any():  # every stroke had no segment
        mask[words[1] * canvas.height // FULL, words[2] * canvas.width // FULL] = 1
    return mask


def _mmt_stroke(mask: Mask, words: Sequence[int], canvas: Canvas) -> None:
    import cv2

    right, bottom, scale = canvas.width - 1, canvas.height - 1, canvas.scale
    widths, lengths = thicknesses(*MMT_WIDTH, 2, scale), MMT_LENGTH[1] + 1
    turn = 2 * math.pi / FULL
    x, y = words[0] * canvas.width // FULL, words[1] * canvas.height // FULL
    for i in range(3, 3 + 3 * whole(words[2], *MMT_SEGMENTS), 3):
        length = words[i + 1] * lengths // FULL * scale
        to_x, to_y = int(x + length * math.sin(turn * words[i])), int(y + length * math.cos(turn * words[i]))
        to_x = 0 if to_x < 0 else right if to_x > right else to_x  # min and max would cost a third of the time
        to_y = 0 if to_y < 0 else bottom if to_y > bottom else to_y
        cv2.line(mask, (x, y), (to_x, to_y), 1, widths[words[i + 2] * len(widths) // FULL])
        x, y = to_x, to_y


def mmt_square(canvas: Canvas, kind: str, seed: int) -> Mask:
    """MMT's square: a side of a third to a half of the image's shorter one, anywhere inside."""
    words = canvas.integers(3, kind, seed)
    short = min(canvas.height, canvas.width)
    side = max(1, min(short, round(real(words[0], MMT_SIDE[0] * short, MMT_SIDE[1] * short))))
    top, left = whole(words[1], 0, canvas.height - side), whole(words[2], 0, canvas.width - side)
    mask = canvas.empty()
    mask[top : top + side, left : left + side] = 1
    return mask
