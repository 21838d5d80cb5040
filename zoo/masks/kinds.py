"""The kinds of mask by name: `center`, `object:segmentation`, `irregular:10-20`, ..."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.errors import DataError, UsageError, unknown_name
from zoo.masks import freeform, objects, rectangles
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.irregular import irregular

Draw = Callable[[Canvas, str, int, str], Mask]


@dataclass(frozen=True)
class Kind:
    """A kind of mask.

    Attributes:
        name: The first word of its name.
        description: One line.
        draw: From a canvas, the full name, the seed and the text after the first colon.
        check: Raises UsageError where that text is wrong.
    """

    name: str
    description: str
    draw: Draw
    check: Callable[[str], object]


def _no_option(option: str) -> None:
    if option:
        raise UsageError(f"'{option}' is no option of this mask", remedy="zoo list masks")


def _fraction(option: str) -> float:
    value = _number(option or "0.25", "center takes the hole's share of the area: center:0.5")
    if not 0 < value <= 1:
        raise UsageError(f"a share of the area lies in (0, 1], got {value:g}", remedy="center:0.25: half of each side")
    return value


def _bucket(option: str) -> tuple[float, float]:
    remedy = "irregular takes a bucket in percent, LO excluded and HI included: irregular:10-20"
    low, dash, high = option.partition("-")
    if not dash:
        raise UsageError(f"irregular needs a bucket, got '{option}'", remedy=remedy)
    bucket = _number(low, remedy), _number(high, remedy)
    if not 0 <= bucket[0] < bucket[1] <= 100:
        raise UsageError(f"a bucket is 0 <= LO < HI <= 100, got {option}", remedy=remedy)
    return bucket


def _segmentation(option: str) -> float | None:
    """The dilation in pixels at 256 of `object:segmentation[:R]`; None for plain `object`."""
    name, _, radius = option.partition(":")
    if name not in ("", "segmentation"):
        raise UsageError(f"unknown object mask 'object:{option}'", remedy="object, object:segmentation or ...:R")
    if not name:
        return None
    value = _number(radius or str(objects.DILATION), "object:segmentation:R takes a radius in pixels at 256")
    if value < 0:
        raise UsageError(f"a dilation cannot be negative, got {value:g}")
    return value


def _number(text: str, remedy: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"'{text}' is no number", remedy=remedy) from None
    if not math.isfinite(value):
        raise UsageError(f"'{text}' is no finite number", remedy=remedy)
    return value


def _draw_object(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
    dilation = _segmentation(option)
    if dilation is None:
        return objects.object_box(canvas, seed)
    return objects.object_segment(canvas, seed, dilation)


def _draw_irregular(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
    return irregular(canvas, kind, seed, *_bucket(option))


def _draw_file(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
    if canvas.mask is None:
        raise DataError("this image has no mask file", canvas.id, "put one with the image's stem into the mask folder")
    return (canvas.mask > 0).astype(np.uint8)


_TABLE = (
    Kind(
        "center",
        "the centre, half of each side; center:F takes the share F of the area",
        lambda canvas, kind, seed, option: rectangles.center(canvas, _fraction(option)),
        _fraction,
    ),
    Kind(
        "box",
        "DeepFill's random box: sides of 96 to 128 pixels at 256, anywhere",
        lambda canvas, kind, seed, option: rectangles.random_box(canvas, canvas.rng(kind, seed)),
        _no_option,
    ),
    Kind(
        "object",
        "one object's box; object:segmentation[:R] its segment dilated by R pixels at 256 (5)",
        _draw_object,
        _segmentation,
    ),
    Kind(
        "freeform",
        "DeepFill-v2's brush: one to three strokes",
        lambda canvas, kind, seed, option: freeform.brush(canvas, kind, seed),
        _no_option,
    ),
    Kind(
        "deepfill",
        "DeepFill-v2's training mask: a random box and brush strokes together",
        lambda canvas, kind, seed, option: freeform.deepfill(canvas, kind, seed),
        _no_option,
    ),
    Kind(
        "irregular",
        "irregular:LO-HI, brush strokes that cover LO < percent <= HI of the image",
        _draw_irregular,
        _bucket,
    ),
    Kind("file", "the user's own mask files, by stem", _draw_file, _no_option),
)
KINDS = {kind.name: kind for kind in _TABLE}


def kinds() -> list[tuple[str, str]]:
    """Name and one-line description of each kind."""
    return [(kind.name, kind.description) for kind in _TABLE]


@functools.lru_cache(maxsize=256)
def check_kind(kind: str) -> tuple[Kind, str]:
    """The kind a name stands for, and its option.

    Raises:
        UsageError: An unknown kind or a wrong option; the message says what is known.
    """
    name, _, option = kind.partition(":")
    if name not in KINDS:
        raise unknown_name("mask", name, list(KINDS))
    KINDS[name].check(option)
    return KINDS[name], option


def draw_mask(kind: str, canvas: Canvas, seed: int = 0) -> Mask:
    """The mask of an image: a function of (dataset, id, kind, seed) and the image's geometry, and of nothing else.

    Args:
        kind: `center`, `object`, `irregular:10-20`, ...
        canvas: The image.
        seed: Another seed gives another mask where the kind is random.

    Returns:
        H x W uint8, 1 = hole.

    Raises:
        UsageError: The kind is unknown.
        DataError: `file` on an image without a mask.
    """
    found, option = check_kind(kind)
    return found.draw(canvas, kind, seed, option)
