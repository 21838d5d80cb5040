"""Numbers from 16-bit words (`Canvas.integers`), and draws that end: what the quick generators share."""

from __future__ import annotations

import functools
from collections.abc import Callable

from zoo.masks.canvas import Mask

FULL = 65536  # a word lies in [0, FULL)
TRIES = 32  # draws after which a generator that accepts only some takes the nearest it has seen


def whole(word: int, low: int, high: int) -> int:
    """An integer from `low` to `high`, both ends included."""
    return low + word * (high - low + 1) // FULL


def real(word: int, low: float, high: float) -> float:
    """A number in [low, high)."""
    return low + (high - low) * word / FULL


def pixels(length: float, scale: float) -> int:
    """A length in pixels at 256 as whole pixels of an image, at least one."""
    return max(1, round(length * scale))


@functools.cache
def thicknesses(low: int, high: int, step: int, scale: float) -> tuple[int, ...]:
    """What to ask of OpenCV at another size for the lines that it draws `low`, `low + step`, ... `high` wide at 256.

    Its lines come out about a pixel wider than asked. A table, because one is wanted for each of a mask's many lines.
    """
    return tuple(max(1, round((width + 1) * scale - 1)) for width in range(low, high + 1, step))


def first_within(draw: Callable[[int], Mask], low: float, high: float) -> Mask:
    """The first draw whose hole takes a share in (low, high); after `TRIES` draws the one that came nearest.

    Args:
        draw: From the number of the try, 0, 1, ..., to a mask.
        low: Share of the area, excluded.
        high: Share of the area, excluded.
    """
    import cv2

    nearest, least = draw(0), float("inf")
    for number in range(TRIES):
        mask = draw(number) if number else nearest
        ratio = cv2.countNonZero(mask) / mask.size
        if low < ratio < high:
            return mask
        miss = max(low - ratio, ratio - high)
        if miss < least:
            nearest, least = mask, miss
    return nearest
