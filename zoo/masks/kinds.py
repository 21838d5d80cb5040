"""The kinds of mask by name: `center`, `object:segmentation`, `irregular:10-20`, ..."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.errors import DataError, unknown_name
from zoo.masks import chains, comodgan, freeform, objects, options, picnet, rectangles, sides
from zoo.masks import lama as lamas
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.irregular import irregular
from zoo.masks.mixtures import MIXTURES
from zoo.masks.nvidia import nvidia

Draw = Callable[[Canvas, str, int, str], Mask]


@dataclass(frozen=True)
class Kind:
    """A kind of mask.

    Attributes:
        name: The first word of its name.
        description: One line.
        draw: From a canvas, the full name, the seed and the text after the first colon.
        check: Raises UsageError where that text is wrong.
        examples: Full names to show; `class:` stands for a class of the data's.
    """

    name: str
    description: str
    draw: Draw
    check: Callable[[str], object]
    examples: tuple[str, ...]


def _kind(
    name: str,
    description: str,
    draw: Draw,
    check: Callable[[str], object] = options.no_option,
    examples: tuple[str, ...] | None = None,
) -> Kind:
    return Kind(name, description, draw, check, (name,) if examples is None else examples)


def _family(name: str, description: str, drawers: dict[str, Callable[[Canvas, str, int], Mask]]) -> Kind:
    """A kind that is nothing by itself, but several by the word after the colon."""

    def check(option: str) -> str:
        return options.one_of(name, option, tuple(drawers))

    def draw(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
        return drawers[check(option)](canvas, kind, seed)

    return Kind(name, description, draw, check, tuple(f"{name}:{word}" for word in drawers))


def _plain(draw: Callable[[Canvas, str, int], Mask]) -> Draw:
    return lambda canvas, kind, seed, option: draw(canvas, kind, seed)


def _draw_object(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
    dilation = options.segmentation(option)
    if dilation is None:
        return objects.object_box(canvas, seed)
    return objects.object_segment(canvas, seed, dilation)


def _draw_file(canvas: Canvas, kind: str, seed: int, option: str) -> Mask:
    if canvas.mask is None:
        raise DataError("this image has no mask file", canvas.id, "put one with the image's stem into the mask folder")
    return (canvas.mask > 0).astype(np.uint8)


def _draw_lama(name: str) -> Callable[[Canvas, str, int], Mask]:
    return lambda canvas, kind, seed: lamas.lama(canvas, kind, seed, name)


_TABLE = (
    _kind(
        "center",
        "the centre, half of each side; center:F takes the share F of the area",
        lambda canvas, kind, seed, option: rectangles.center(canvas, options.fraction(option)),
        options.fraction,
    ),
    _kind(
        "box",
        "DeepFill's random box: sides of 96 to 128 pixels at 256, anywhere",
        lambda canvas, kind, seed, option: rectangles.random_box(canvas, canvas.rng(kind, seed)),
    ),
    _kind(
        "rectangle",
        "rectangle[:LO-HI], one rectangle anywhere, LO < percent <= HI of the image (10-40)",
        lambda canvas, kind, seed, option: rectangles.rectangle(canvas, kind, seed, *options.rectangle(option)),
        options.rectangle,
        ("rectangle", "rectangle:40-60"),
    ),
    _kind(
        "object",
        "one object's box; object:segmentation[:R] its segment dilated by R pixels at 256 (5); the centre without",
        _draw_object,
        options.segmentation,
        ("object", "object:segmentation"),
    ),
    _kind(
        "instance",
        "instance[:R], any object's segment, all as likely, dilated by R pixels at 256 (5); the centre without",
        lambda canvas, kind, seed, option: objects.instance(canvas, kind, seed, options.dilation(option)),
        options.dilation,
    ),
    _kind(
        "class",
        "class:NAME[:R], all of one class of the segmentation, dilated by R pixels at 256 (5); the centre without",
        lambda canvas, kind, seed, option: objects.class_pixels(canvas, *options.class_name(option)),
        options.class_name,
        ("class:",),
    ),
    _kind("freeform", "DeepFill-v2's brush: one to three strokes", _plain(freeform.brush)),
    _kind(
        "deepfill",
        "DeepFill-v2's training mask: a random box and brush strokes together",
        _plain(freeform.deepfill),
    ),
    _kind(
        "irregular",
        "irregular:LO-HI, brush strokes that cover LO < percent <= HI of the image",
        lambda canvas, kind, seed, option: irregular(canvas, kind, seed, *options.bucket(option)),
        options.bucket,
        ("irregular:10-20", "irregular:30-40", "irregular:50-60"),
    ),
    _family(
        "lama",
        "LaMa's lama:thin, medium, thick for tests; lama:train, strokes or boxes; lama:outpaint, 4 to 25 % of sides",
        {name: _draw_lama(name) for name in lamas.NAMES},
    ),
    _kind(
        "mat",
        "MAT's large holes: rectangles and brush strokes",
        lambda canvas, kind, seed, option: comodgan.large(canvas, kind, seed, comodgan.MAT),
    ),
    _kind(
        "comodgan",
        "CoModGAN's larger ones, three quarters of the image on average",
        lambda canvas, kind, seed, option: comodgan.large(canvas, kind, seed, comodgan.COMODGAN),
    ),
    _kind("mmagic", "MMagic's irregular masks, 15 to 65 % of the image", _plain(chains.mmagic)),
    _family(
        "mmt",
        "MMT's training masks: mmt:strokes in any direction, mmt:square with sides of a third to a half",
        {"strokes": chains.mmt_strokes, "square": chains.mmt_square},
    ),
    _family(
        "picnet",
        "PICNet's picnet:irregular, lines, discs and arcs; picnet:regular, one to five rectangles",
        {"irregular": picnet.irregular, "regular": picnet.regular},
    ),
    _kind(
        "half",
        "half:left, right, top, bottom; half[:random] is a keyed one of them",
        lambda canvas, kind, seed, option: sides.side(canvas, kind, seed, options.half(option), 0.5),
        options.half,
        tuple(f"half:{name}" for name in (*sides.SIDES, sides.RANDOM)),
    ),
    _kind(
        "outpaint",
        "outpaint:left, right, top, bottom, all, random[:F]: the share F of the area is outside (right:0.25)",
        lambda canvas, kind, seed, option: sides.side(canvas, kind, seed, *options.outpaint(option)),
        options.outpaint,
        ("outpaint:right", "outpaint:right:0.75", "outpaint:all:0.5", "outpaint:random:0.5"),
    ),
    _kind(
        "nvidia",
        "nvidia:LO-HI[:border|:noborder], NVIDIA's irregular mask files, LO < percent <= HI of the image",
        lambda canvas, kind, seed, option: nvidia(canvas, kind, seed, *options.nvidia(option)),
        options.nvidia,
        ("nvidia:1-10", "nvidia:50-60:border"),
    ),
    _kind("file", "the user's own mask files, by stem", _draw_file),
)
KINDS = {kind.name: kind for kind in _TABLE}


def kinds() -> list[tuple[str, str]]:
    """Name and one-line description of each kind, and of each mixture that has a name."""
    named = [(f"mixture:{name}", f"{text}: {what}") for name, (text, what) in MIXTURES.items()]
    return [(kind.name, kind.description) for kind in _TABLE] + named


def examples(classes: tuple[str, ...] = ()) -> list[str]:
    """Full names that show every kind.

    Args:
        classes: Those of the data, whose second stands for `class` (the first is background, mostly); without one that
            kind is left out.
    """
    names = [name for kind in _TABLE for name in kind.examples]
    return [name + classes[1] if name == "class:" else name for name in names if name != "class:" or len(classes) > 1]


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

    Of `nvidia` and `file` masks it is a function of the files, too.

    Args:
        kind: `center`, `object`, `irregular:10-20`, ...
        canvas: The image.
        seed: Another seed gives another mask where the kind is random.

    Returns:
        H x W uint8, 1 = hole.

    Raises:
        UsageError: The kind is unknown, or cannot be had of this image.
        DataError: Files or annotations that the kind needs are missing.
    """
    found, option = check_kind(kind)
    return found.draw(canvas, kind, seed, option)
