"""Irregular holes whose ratio lies in an exact bucket, by construction and in bounded time."""

from __future__ import annotations

import numpy as np

from zoo.masks.canvas import Canvas, Mask
from zoo.masks.freeform import WORDS, paint, path, width

MAX_STROKES = 32  # large holes at a small width need about twenty; what is missing then is grown pixel by pixel


def irregular(canvas: Canvas, kind: str, seed: int, low: float, high: float) -> Mask:
    """Brush strokes until the hole's share of the image lies in (low, high].

    A stroke that overshoots is undone, and from there on strokes are half as wide; after `MAX_STROKES` draws, or where
    the thinnest stroke still overshoots, the hole grows by single pixels at its rim to a size drawn from the bucket.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed it keys the mask.
        seed: The seed.
        low: Percent of the area, excluded.
        high: Percent of the area, included.

    Raises:
        UsageError: No number of pixels of this image lies in the bucket.
    """
    import cv2

    least, most = canvas.bucket(low, high)
    mask, factor = canvas.empty(), 1.0
    for number in range(MAX_STROKES):
        words = canvas.integers(WORDS, f"{kind} stroke {number}", seed)
        thickness = width(words, canvas) * factor
        trial = mask.copy()
        paint(trial, path(words, canvas), thickness)
        drawn = cv2.countNonZero(trial)
        if drawn <= most:
            if drawn >= least:
                return trial
            mask = trial
        elif thickness <= 2:
            break
        else:
            factor /= 2
    rng = canvas.rng(kind, seed)
    return _grow(mask, int(rng.integers(least, most + 1)), rng)


def _grow(mask: Mask, target: int, rng: np.random.Generator) -> Mask:
    """Adds the known pixels nearest to the hole, ties in a keyed order, until exactly `target` are missing."""
    import cv2

    if not mask.any():
        mask = mask.copy()
        mask[int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1]))] = 1
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5).astype(np.float64)
    order = np.argsort(distance + 0.5 * rng.random(mask.shape), axis=None, kind="stable")
    grown = mask.copy()
    outside = order[grown.ravel()[order] == 0]
    grown.ravel()[outside[: target - int(np.count_nonzero(mask))]] = 1
    return grown
