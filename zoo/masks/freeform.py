"""The free-form brush of DeepFill-v2 (Yu et al. 2019), every pixel constant scaled by size/256."""

from __future__ import annotations

import math

import numpy as np

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.rectangles import random_box

STROKES = (1, 3)  # both ends included
SEGMENTS = (4, 11)
ANGLE, JITTER = 2 * math.pi / 5, 2 * math.pi / 15
WIDTH = (12.0, 40.0)  # pixels at 256


def brush(canvas: Canvas, rng: np.random.Generator) -> Mask:
    """One to three strokes of 4 to 11 segments; never empty.

    Directions alternate around ±2π/5 with a jitter of 2π/15. Lengths are normal with mean diag/8 and half of it as
    deviation, clipped to twice the mean; widths uniform in 12..40 pixels at 256. Joints are round.
    """
    mask = canvas.empty()
    for _ in range(int(rng.integers(STROKES[0], STROKES[1] + 1))):
        points, width = stroke(canvas, rng)
        paint(mask, points, width)
    return mask


def deepfill(canvas: Canvas, rng: np.random.Generator) -> Mask:
    """DeepFill-v2's training mask: the union of a random box and a brush mask."""
    return np.maximum(random_box(canvas, rng), brush(canvas, rng))


def stroke(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The vertices of one stroke, N x 2 (x, y) in pixels and inside the image, and its width in pixels."""
    count = int(rng.integers(SEGMENTS[0], SEGMENTS[1] + 1))
    angles = rng.uniform(ANGLE - JITTER, ANGLE + JITTER, count)
    angles[::2] = 2 * math.pi - angles[::2]  # every other segment turns back
    mean = math.hypot(canvas.height, canvas.width) / 8
    lengths = np.clip(rng.normal(mean, mean / 2, count), 0.0, 2 * mean)
    bound = np.array([canvas.width - 1.0, canvas.height - 1.0])
    points = [rng.random(2) * bound]
    # Mirrored at random in both axes: the cosine of such a direction is positive, and all strokes would run right.
    mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    for step in np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None] * mirror:
        points.append(np.clip(points[-1] + step, 0.0, bound))
    return np.stack(points), float(rng.uniform(*WIDTH)) * canvas.scale


def paint(mask: Mask, points: np.ndarray, width: float) -> None:
    """Draws a stroke into a mask, in place.

    OpenCV's thick lines end round, which makes the discs at the joints, and come out about a pixel wider than asked for.
    """
    import cv2

    vertices = np.round(points).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(mask, [vertices], isClosed=False, color=1, thickness=max(1, round(width - 1)))
