"""The free-form brush of DeepFill-v2 (Yu et al. 2019), every pixel constant scaled by size/256.

Written for speed: a plain brush spends its time on the calls for one segment, one disc and one random number at a time.
Here the numbers of a stroke come at once, as 16-bit words that index tables of quantiles, and a stroke is one polyline.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.rectangles import random_box
from zoo.masks.words import FULL

STROKES = (1, 3)  # both ends included
SEGMENTS = (4, 11)
ANGLE, JITTER = 2 * math.pi / 5, 2 * math.pi / 15
WIDTH = (12.0, 40.0)  # pixels at 256
WORDS = 6 + 2 * SEGMENTS[1]  # random words of one stroke
QUANTILES = 4096  # entries of a table; a word over 16 is an index


def brush(canvas: Canvas, kind: str, seed: int) -> Mask:
    """One to three strokes of 4 to 11 segments; never empty.

    Directions alternate around ±2π/5 with a jitter of 2π/15, mirrored at random in both axes: the cosine of such a
    direction is positive, and all strokes would run right. Lengths are normal with mean diag/8 and half of it as
    deviation, clipped to twice the mean; widths uniform in 12..40 pixels at 256. Joints are round.
    """
    mask = canvas.empty()
    words = canvas.integers(1 + STROKES[1] * WORDS, kind, seed)
    count = STROKES[0] + words[-1] * (STROKES[1] - STROKES[0] + 1) // FULL
    for first in range(0, count * WORDS, WORDS):
        stroke = words[first : first + WORDS]
        paint(mask, path(stroke, canvas), width(stroke, canvas))
    return mask


def deepfill(canvas: Canvas, kind: str, seed: int) -> Mask:
    """DeepFill-v2's training mask: the union of a random box and a brush mask."""
    return np.maximum(random_box(canvas, canvas.rng(kind, seed)), brush(canvas, kind, seed))


def width(words: Sequence[int], canvas: Canvas) -> float:
    """The width of a stroke in pixels, from its sixth word."""
    return (WIDTH[0] + (WIDTH[1] - WIDTH[0]) * words[5] / FULL) * canvas.scale


def path(words: Sequence[int], canvas: Canvas) -> NDArray[np.int32]:
    """The vertices of a stroke, N x 1 x 2 (x, y), all inside the image.

    Args:
        words: `WORDS` integers in [0, 65536).
        canvas: The image.
    """
    cosines, sines, quantiles = _tables()
    right, bottom = canvas.width - 0.5, canvas.height - 0.5  # half a pixel on, so that truncation rounds
    mean = math.hypot(canvas.height, canvas.width) / 8
    x, y = 0.5 + words[1] * (canvas.width - 1) / FULL, 0.5 + words[2] * (canvas.height - 1) / FULL
    across = mean if words[3] < FULL // 2 else -mean
    down = mean if words[4] < FULL // 2 else -mean
    vertices = [x, y]
    segments = SEGMENTS[0] + words[0] * (SEGMENTS[1] - SEGMENTS[0] + 1) // FULL
    for i in range(6, 6 + 2 * segments, 2):
        direction, length = words[i] >> 4, quantiles[words[i + 1] >> 4]
        x += across * length * cosines[direction]
        y += down * length * sines[direction]
        down = -down
        if x < 0.5:  # min and max would cost a third of the whole mask's time
            x = 0.5
        elif x > right:
            x = right
        if y < 0.5:
            y = 0.5
        elif y > bottom:
            y = bottom
        vertices.append(x)
        vertices.append(y)
    return np.array(vertices, np.int32).reshape(-1, 1, 2)


@functools.cache
def lengths() -> list[float]:
    """Lengths of segments over their mean at equal quantiles: normal, deviation 1/2, clipped to [0, 2]."""
    return [min(2.0, max(0.0, 1 + NormalDist().inv_cdf((i + 0.5) / QUANTILES) / 2)) for i in range(QUANTILES)]


@functools.cache
def _tables() -> tuple[list[float], list[float], list[float]]:
    """Cosine and sine of directions uniform around ANGLE, and lengths over their mean, at equal quantiles."""
    angles = [ANGLE + JITTER * (2 * (i + 0.5) / QUANTILES - 1) for i in range(QUANTILES)]
    return [math.cos(a) for a in angles], [math.sin(a) for a in angles], lengths()


def paint(mask: Mask, vertices: NDArray[np.int32], thickness: float) -> None:
    """Draws a stroke into a mask, in place.

    OpenCV's thick lines end round, which makes the discs at the joints, and come out about a pixel too wide.
    """
    import cv2

    cv2.polylines(mask, [vertices], False, 1, max(1, round(thickness - 1)))
