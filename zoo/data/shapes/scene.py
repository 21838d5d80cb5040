"""The law of a scene: which objects, where, on what background. A function of (split, index); it knows no image size.

Counts are 50 % one, 30 % two, 20 % three in every split. Shape, colour, size and fill of an object are independent of
each other, of its place (its size apart) and of the other objects, so whoever does not read the caption guesses the
colour of a removed object with probability 1/8. An object's box is its cell, the same square for all shapes of a size;
boxes keep such distances that a box grown by a quarter of its side stays inside the image and clear of every other box.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.geometry import FILLS, SHAPES
from zoo.keyed import numpy_generator

VERSION = 1  # of the law; another version is another dataset
COUNTS = (0.5, 0.3, 0.2)  # probability of one, two, three objects
SIDES: dict[str, float] = {"small": 0.21, "large": 0.31}  # of the image's side
SIZES: tuple[str, ...] = tuple(SIDES)
TEXTURES: tuple[str, ...] = ("stripes", "checks", "bricks", "noise", "gradient")
GROWTH = 0.25  # of an object's side: how far its box may be grown on each side
SLACK = 0.015  # of the image's side, on top of GROWTH: rounding outwards to pixels of a 64-pixel image


@dataclass(frozen=True)
class SceneObject:
    """One object. `x`, `y` (the upper left corner of its cell) and `side` are fractions of the image's side."""

    shape: str
    colour: str
    size: str
    fill: str
    x: float
    y: float
    side: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1 of the cell, in [0, 1]."""
        return self.x, self.y, self.x + self.side, self.y + self.side

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle of the cell, in [0, 1]."""
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Background:
    """A texture between two muted tones.

    Attributes:
        kind: One of `TEXTURES`.
        tones: Two colours as (L, chroma, hue in radians) of Lab.
        angle: Direction of stripes, checks and gradients, radians.
        period: Of stripes, checks and bricks, as a fraction of the image's side.
        phase: Where the texture starts, two fractions of a period.
        seed: Key of the smooth noise in it.
    """

    kind: str
    tones: tuple[tuple[float, float, float], tuple[float, float, float]]
    angle: float
    period: float
    phase: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Scene:
    """A scene; drawn at any size by `zoo.data.shapes.draw`."""

    split: str
    index: int
    background: Background
    objects: tuple[SceneObject, ...]

    @property
    def id(self) -> str:
        """The id of its sample, `shapes/test/000017`."""
        return f"shapes/{self.split}/{self.index:06d}"


@functools.lru_cache(maxsize=64)
def draw_scene(split: str, index: int) -> Scene:
    """The scene at a place of a split, the same in every process and at every image size."""
    rng = numpy_generator("shapes", VERSION, split, index, "scene")
    count = 1 + int(np.searchsorted(np.cumsum(COUNTS)[:-1], rng.random(), side="right"))
    sizes = [SIZES[rng.integers(len(SIZES))] for _ in range(count)]
    places = _places([SIDES[size] for size in sizes], rng)
    objects = tuple(
        SceneObject(
            shape=SHAPES[rng.integers(len(SHAPES))],
            colour=COLOURS[rng.integers(len(COLOURS))],
            size=size,
            fill=FILLS[rng.integers(len(FILLS))],
            x=x,
            y=y,
            side=SIDES[size],
        )
        for size, (x, y) in zip(sizes, places, strict=True)
    )
    return Scene(split, index, _background(rng), objects)


def _background(rng: np.random.Generator) -> Background:
    kind = TEXTURES[rng.integers(len(TEXTURES))]
    lightness = rng.uniform(38, 80)
    step = rng.uniform(22, 30) if kind == "gradient" else rng.uniform(11, 18)
    # The other tone goes to the side where there is room, so that both stay clear of black and of white.
    other = lightness - step if lightness > 59 else lightness + step
    hue = rng.uniform(0, 2 * np.pi)
    first = (lightness, rng.uniform(3, 9), hue)
    second = (other, rng.uniform(3, 9), hue + rng.uniform(-0.9, 0.9))
    period = {"stripes": (0.10, 0.22), "checks": (0.10, 0.18), "bricks": (0.10, 0.15)}.get(kind, (0.1, 0.2))
    return Background(
        kind=kind,
        tones=(first, second),
        angle=float(rng.uniform(0, np.pi)),
        period=float(rng.uniform(*period)),
        phase=(float(rng.random()), float(rng.random())),
        seed=int(rng.integers(2**62)),
    )


def _places(sides: list[float], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Corners of one to three cells that keep their distances, by cutting the image in two and never by trial.

    Any three boxes that keep apart can be parted by straight cuts from side to side, so no arrangement is left out.
    """
    order = rng.permutation(len(sides)).tolist()
    groups = [order[:1], order[1:]] if rng.random() < 0.5 else [order[1:], order[:1]]
    groups = [group for group in groups if group]
    along = int(rng.integers(2))
    across = 1 - along
    gap = _border(max(sides))  # between any two; the distance from the image's border is each object's own
    lows, highs = _cut([max(sides[i] for i in group) for group in groups], gap, rng)
    corners = np.zeros((len(sides), 2))
    for group, low, high in zip(groups, lows, highs, strict=True):
        for i in group:
            corners[i, along] = _within(sides[i], low, high, rng)
        for i, start in zip(group, _line([sides[i] for i in group], gap, rng), strict=True):
            corners[i, across] = start
    return [(float(x), float(y)) for x, y in corners]


def _border(side: float) -> float:
    return GROWTH * side + SLACK


def _line(sides: list[float], gap: float, rng: np.random.Generator) -> list[float]:
    """Starts of intervals in a row on [0, 1], what is left over spread evenly over the gaps."""
    need = sum(sides) + gap * (len(sides) - 1) + _border(sides[0]) + _border(sides[-1])
    shares = np.sort(rng.random(len(sides))) * (1 - need)
    before = np.concatenate([[0.0], np.cumsum(sides[:-1]) + gap * np.arange(1, len(sides))])
    return [float(v) for v in _border(sides[0]) + before + shares]


def _cut(widest: list[float], gap: float, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Bands of [0, 1] for groups of objects, from the widest object of each: lows and highs, `gap` apart."""
    if len(widest) == 1:
        return [0.0], [1.0]
    free = 1 - sum(widest) - gap - _border(widest[0]) - _border(widest[1])
    middle = _border(widest[0]) + widest[0] + free * float(rng.random())
    return [0.0, middle + gap], [middle, 1.0]


def _within(side: float, low: float, high: float, rng: np.random.Generator) -> float:
    """A start for an interval inside a band, the border's distance kept where the band ends at the image's border."""
    first = max(low, _border(side))
    last = min(high, 1 - _border(side)) - side
    return first + (last - first) * float(rng.random())
