"""The outlines of the eight shapes and how much of each pixel they cover, exactly, at any place and any size.

Each shape is a polygon (or two: even-odd) in a unit cell, y downwards, and reaches the border of the cell. It is
rasterised once, finely, into a summed-area table; the coverage of a pixel is then a second difference of four look-ups.
Drawing a shape is so a few microseconds at any size, and the antialiasing is that of a box filter.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Polygon = Floats  # V x 2, x and y in the unit cell

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring")
FILLS: tuple[str, ...] = ("solid", "striped", "dotted")

RESOLUTION = 256  # cells of a table per side; 512-pixel images draw their large objects at 159 pixels
_ROWS_PER_CELL = 4
_MAX_CROSSINGS = 8  # of one scanline with one shape


def _circle(radius: float) -> Polygon:
    angle = np.arange(96) * (2 * np.pi / 96)
    return np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1)


def _star() -> Polygon:
    angle = np.arange(10) * (np.pi / 5) - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.44)
    return _inscribe(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))


def _heart() -> Polygon:
    t = np.arange(96) * (2 * np.pi / 96)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _inscribe(np.stack([16 * np.sin(t) ** 3, -y], 1))


def _cross(arm: float) -> Polygon:
    a, b = 0.5 - arm / 2, 0.5 + arm / 2
    return np.array(
        [[a, 0], [b, 0], [b, a], [1, a], [1, b], [b, b], [b, 1], [a, 1], [a, b], [0, b], [0, a], [a, a]], float
    )


def _inscribe(points: Polygon) -> Polygon:
    """Moves and scales (the same in x and y) so that the wider extent is the cell's and the other is centred."""
    low, high = points.min(0), points.max(0)
    return np.asarray((points - (low + high) / 2) / np.max(high - low) + 0.5, np.float64)


@functools.cache
def outlines() -> dict[str, list[Polygon]]:
    """The polygons of each shape, in the order of `SHAPES`."""
    return {
        "circle": [_circle(0.5)],
        "square": [np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)],
        "triangle": [np.array([[0.5, 0], [1, 1], [0, 1]], float)],
        "diamond": [np.array([[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]], float)],
        "star": [_star()],
        "cross": [_cross(0.375)],
        "heart": [_heart()],
        "ring": [_circle(0.5), _circle(0.25)],
    }


def _rasterise(polygons: Sequence[Polygon]) -> Floats:
    """Coverage of R x R cells in [0, 1]: scanlines, exact along x."""
    rows = (np.arange(RESOLUTION * _ROWS_PER_CELL) + 0.5) / (RESOLUTION * _ROWS_PER_CELL)
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(p, -1, 0) for p in polygons])
    crosses = (start[:, 1] <= rows[:, None]) != (end[:, 1] <= rows[:, None])
    rise = np.where(start[:, 1] == end[:, 1], 1.0, end[:, 1] - start[:, 1])
    x = start[:, 0] + (rows[:, None] - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    x = np.sort(np.where(crosses, x, 2.0), 1)  # what does not cross goes right of the cell, in empty pairs
    x = np.pad(x, ((0, 0), (0, _MAX_CROSSINGS)), constant_values=2.0)[:, :_MAX_CROSSINGS]
    lines = np.arange(RESOLUTION + 1) / RESOLUTION
    length = np.zeros((len(rows), RESOLUTION + 1))
    for left, right in zip(x.T[0::2], x.T[1::2], strict=True):
        length += np.clip(lines, left[:, None], right[:, None]) - left[:, None]
    cells = np.diff(length, axis=1) * RESOLUTION
    return np.asarray(cells.reshape(RESOLUTION, _ROWS_PER_CELL, RESOLUTION).mean(1), np.float64)


def _second_tone(fill: str) -> Floats:
    """R x R in {0, 1}: where a fill has its second tone, always less than half of any shape."""
    centre = (np.arange(RESOLUTION) + 0.5) / RESOLUTION
    y, x = np.meshgrid(centre, centre, indexing="ij")
    if fill == "striped":
        return np.asarray(np.mod((x + y) / np.sqrt(2) + 0.06, 0.29) < 0.11, np.float64)
    if fill == "dotted":
        period, radius = 0.29, 0.096
        row = np.floor((y - 0.5) / period + 0.5)
        u = np.mod((x - 0.5) / period + 0.5 + 0.5 * np.mod(row, 2), 1) - 0.5
        v = np.mod((y - 0.5) / period + 0.5, 1) - 0.5
        return np.asarray(u * u + v * v < (radius / period) ** 2, np.float64)
    raise ValueError(f"no pattern for the fill {fill}")


@functools.cache
def _tables() -> Floats:
    """Summed-area tables: shape x (whole, striped, dotted) x (R+1) x (R+1), in cells."""
    covers = np.stack([_rasterise(polygons) for polygons in outlines().values()])
    tones = np.stack([np.ones_like(covers[0]), *(_second_tone(fill) for fill in FILLS[1:])])
    layers = covers[:, None] * tones
    return np.pad(layers.cumsum(2).cumsum(3), ((0, 0), (0, 0), (1, 0), (1, 0)))


def _lookup(table: Floats, start: float, side: float, first: int, count: int, axis: int) -> Floats:
    """A table at the borders of `count` pixels from `first` (linear), for a cell of `side` pixels from `start`."""
    position = np.clip((np.arange(first, first + count + 1) - start) / side, 0, 1) * RESOLUTION
    index = np.minimum(position.astype(np.intp), RESOLUTION - 1)
    part = (position - index).reshape((-1,) + (1,) * (table.ndim - 1 - axis))
    low = np.take(table, index, axis)
    return np.asarray(low + part * (np.take(table, index + 1, axis) - low), np.float64)


def _coverage(table: Floats, x: float, y: float, side: float, left: int, top: int, width: int, height: int) -> Floats:
    rows = np.diff(_lookup(table, y, side, top, height, table.ndim - 2), axis=-2)
    return np.diff(_lookup(rows, x, side, left, width, table.ndim - 1), axis=-1) * (side / RESOLUTION) ** 2


def object_coverage(
    shape: str, fill: str, x: float, y: float, side: float, left: int, top: int, width: int, height: int
) -> tuple[Floats, Floats]:
    """How much of each pixel of a window an object covers: in all, and with its second tone.

    Args:
        shape: One of `SHAPES`.
        fill: One of `FILLS`.
        x: Left border of the object's cell, pixels.
        y: Upper border of the cell, pixels.
        side: Side of the cell, pixels.
        left: First column of the window.
        top: First row of the window.
        width: Columns of the window.
        height: Rows of the window.

    Returns:
        Two arrays height x width in [0, 1]; the second is nowhere larger than the first.
    """
    tables = _tables()[SHAPES.index(shape)]
    if fill == "solid":
        whole = _coverage(tables[0], x, y, side, left, top, width, height)
        return whole, np.zeros_like(whole)
    whole, second = _coverage(tables[[0, FILLS.index(fill)]], x, y, side, left, top, width, height)
    return whole, second


def all_coverages(x: float, y: float, side: float, left: int, top: int, width: int, height: int) -> Floats:
    """What each shape would cover in that cell: 8 x height x width in [0, 1], in the order of `SHAPES`."""
    return _coverage(_tables()[:, 0], x, y, side, left, top, width, height)
