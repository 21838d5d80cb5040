"""The backgrounds: stripes, checks, bricks, smooth noise and gradients between two muted tones, a fine grain on all.

Coordinates run over [0, 1], so a texture is the same at every size; edges are antialiased over one pixel.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from zoo.data.shapes.colour import rgb
from zoo.data.shapes.scene import Background
from zoo.keyed import numpy_generator

Floats = NDArray[np.float64]
_OCTAVES = (3, 6, 12, 28)  # cells per side of the lattices of the noise
_NOISE_WEIGHTS = (1.0, 0.7, 0.45, 0.2)


def draw_background(background: Background, size: int) -> Floats:
    """The texture, size x size x 3 float64 sRGB in 0..255."""
    octaves = _noise(background.seed, size)
    first, second = (rgb(*tone) for tone in background.tones)
    blend = _DRAW[background.kind](background, size, octaves)
    # A smooth change of light and a grain: about 3 and 2 units of L, within what the judge calls background.
    light = 1 + 0.05 * octaves[0] + 0.035 * octaves[3]
    return np.asarray((first + blend[..., None] * (second - first)) * light[..., None], np.float64)


def tone_colours(background: Background) -> Floats:
    """The two tones, 2 x 3 float64 sRGB in 0..255."""
    return np.stack([rgb(*tone) for tone in background.tones])


@functools.cache
def _grid(size: int) -> tuple[Floats, Floats]:
    """Pixel centres: y as size x 1 and x as 1 x size."""
    centre = (np.arange(size) + 0.5) / size
    return centre[:, None], centre[None, :]


@functools.cache
def _spline(size: int, cells: int) -> Floats:
    """Uniform cubic B-spline weights, size x (cells + 3): rows are pixels, columns are lattice points."""
    position = (np.arange(size) + 0.5) / size * cells
    index = position.astype(np.intp)
    t = position - index
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    matrix = np.zeros((size, cells + 3))
    for offset in range(4):
        matrix[np.arange(size), index + offset] = weights[offset]
    return matrix


def _noise(seed: int, size: int) -> list[Floats]:
    """Smooth noise at each scale, size x size, about -1..1 with mean 0."""
    rng = numpy_generator("shapes", "noise", seed)
    octaves = []
    for cells in _OCTAVES:
        lattice = 4 * rng.random((cells + 3, cells + 3)) - 2
        weights = _spline(size, cells)
        octaves.append(weights @ lattice @ weights.T)
    return octaves


def _wave(position: Floats, period_pixels: float, duty: float = 0.5) -> Floats:
    """A square wave of period 1: 1 for `duty` of it, its edges as wide as a pixel."""
    inside = duty / 2 - np.abs(np.mod(position, 1) - 0.5)
    return np.clip(inside * period_pixels + 0.5, 0, 1)


def _along(background: Background, size: int, turn: float = 0.0) -> Floats:
    y, x = _grid(size)
    angle = background.angle + turn
    return np.asarray(np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5), np.float64)


def _stripes(background: Background, size: int, octaves: list[Floats]) -> Floats:
    return _wave(_along(background, size) / background.period + background.phase[0], background.period * size)


def _checks(background: Background, size: int, octaves: list[Floats]) -> Floats:
    double = 2 * background.period
    first = _wave(_along(background, size) / double + background.phase[0], double * size)
    second = _wave(_along(background, size, np.pi / 2) / double + background.phase[1], double * size)
    return first + second - 2 * first * second


def _bricks(background: Background, size: int, octaves: list[Floats]) -> Floats:
    """Courses half a brick apart; the second tone is the mortar, and each brick has a shade of its own."""
    y, x = _grid(size)
    height, width = background.period, 2.2 * background.period
    rows = y / height + background.phase[1]
    course = np.floor(rows).astype(np.intp)
    columns = x / width + background.phase[0] + 0.5 * np.mod(course, 2)
    mortar = 0.16
    brick = _wave(rows, height * size, 1 - mortar) * _wave(columns, width * size, 1 - mortar * height / width)
    shades = numpy_generator("shapes", "bricks", background.seed).random((16, 16))
    shade = shades[np.broadcast_to(course % 16, columns.shape), columns.astype(np.intp) % 16]
    return 1 - brick * (1 - 0.35 * shade)


def _clouds(background: Background, size: int, octaves: list[Floats]) -> Floats:
    total = sum(weight * octave for weight, octave in zip(_NOISE_WEIGHTS, octaves, strict=True))
    return np.clip(0.5 + 0.55 * total, 0, 1)


def _gradient(background: Background, size: int, octaves: list[Floats]) -> Floats:
    """Along a line, or, for half of the phases, outwards from a point."""
    if background.phase[0] < 0.5:
        return np.clip(0.5 + _along(background, size) / 1.2, 0, 1)
    y, x = _grid(size)
    centre_x, centre_y = 2 * background.phase[0] - 1, background.phase[1]
    return np.clip(np.hypot(x - centre_x, y - centre_y), 0, 1)


_DRAW = {"stripes": _stripes, "checks": _checks, "bricks": _bricks, "noise": _clouds, "gradient": _gradient}
