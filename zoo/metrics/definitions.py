"""What each metric of a table is, in words, and how it is printed."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from typing import Literal

from zoo.metrics.definitions_learned import PER_IMAGE, PER_SET, PROTOCOLS, REVISIONS
from zoo.version import __version__

REVISION = "1"
"""Counts up whenever a definition below changes its value for some image."""


@dataclass(frozen=True)
class Definition:
    """The definition of a metric.

    Attributes:
        text: What is computed, precisely enough to compute it again.
        better: Which way is better; `none` where neither is (the truth's own value is the goal).
        unit: The unit, empty for a plain number.
        digits: How many digits after the point a table shows.
        libraries: The distributions that compute it, besides those that every metric depends on.
        revision: Counts up whenever the definition changes the value for some image.
        of: Whether it is a value per `image` or one of a `set` of images.
    """

    text: str
    better: Literal["lower", "higher", "none"]
    unit: str
    digits: int
    libraries: tuple[str, ...] = ()
    revision: str = "1"
    of: Literal["image", "set"] = "image"


_REGIONS = {
    "": "over the whole image",
    "_hole": "over the pixels of the hole alone",
    "_band": "over the band at the hole's edge: every pixel, known or hole, with a pixel of the other kind at a "
    "Chebyshev distance of at most max(2, side/32 rounded) pixels, side = the shorter one",
}
_FAMILIES: dict[str, tuple[str, Literal["lower", "higher", "none"], str, int]] = {
    "l1": ("mean absolute difference, RGB in [0, 1]", "lower", "", 4),
    "psnr": ("20 log10(255 / sqrt(MSE)) per image over RGB, at most 100 (identical images: 100)", "higher", "dB", 2),
    "ssim": (
        "SSIM of Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, windows wholly inside the image, population "
        "variances, K = (0.01, 0.03), L = 255, mean of the RGB channels; a window belongs to the region of its centre",
        "higher",
        "",
        4,
    ),
    "tv": (
        "total variation of the composite, RGB in [0, 1]: mean absolute difference of horizontal neighbours plus that "
        "of vertical neighbours, no wrap-around; a pair belongs to a region if one of its two pixels does",
        "none",
        "",
        4,
    ),
}

_EVERY_RUN: dict[str, Definition] = {
    family + suffix: Definition(f"{text}, {where}", better, unit, digits)
    for family, (text, better, unit, digits) in _FAMILIES.items()
    for suffix, where in _REGIONS.items()
} | {
    "raw_known_l1": Definition(
        "mean absolute difference of the raw output and the truth over the known pixels, RGB in [0, 1], before "
        "compositing and before rounding to 8 bits",
        "lower",
        "",
        4,
    ),
    "colour_fidelity": Definition(
        "1 where the colour painted in place of the removed object is the one it had, which the scene's own caption "
        "names, else 0, whatever captions were given (shapes only; images from which no whole object was removed do "
        "not count, nor do those whose caption was to be edited and could not be)",
        "higher",
        "",
        3,
    ),
    "shape_fidelity": Definition(
        "1 where the shape painted in place of the removed object is the one it had, which the scene's own caption "
        "names, else 0, whatever captions were given (shapes only; images from which no whole object was removed do "
        "not count, nor do those whose caption was to be edited and could not be)",
        "higher",
        "",
        3,
    ),
    "colour_given": Definition(
        "where captions are edited: 1 where the colour painted in place of the removed object is one that the given "
        "caption names and that no object to be seen has, else 0 (shapes only; images whose caption names no such "
        "colour, or could not be edited, do not count)",
        "higher",
        "",
        3,
    ),
    "shape_given": Definition(
        "where captions are edited: 1 where the shape painted in place of the removed object is one that the given "
        "caption names and that no object to be seen has, else 0 (shapes only; images whose caption names no such "
        "shape, or could not be edited, do not count)",
        "higher",
        "",
        3,
    ),
    "moved": Definition(
        "where captions are edited: 1 where any pixel of the composite differs from the one that the method makes of "
        "the image's own caption with the same noise, else 0 (images whose caption could not be edited do not count)",
        "none",
        "",
        3,
    ),
    "moved_hole": Definition(
        "where captions are edited: mean absolute difference, RGB in [0, 1], of the composite and the one that the "
        "method makes of the image's own caption with the same noise, over the pixels of the hole alone",
        "none",
        "",
        4,
    ),
    "moved_known": Definition(
        "as moved_hole, over the known pixels: 0, for both composites hold the image's own",
        "none",
        "",
        4,
    ),
}

DEFINITIONS: dict[str, Definition] = {
    **_EVERY_RUN,
    # Taken only when they are asked for (`zoo.metrics.ask`).
    **{name: Definition(*entry) for name, entry in (PROTOCOLS | PER_IMAGE).items()},
    **{name: Definition(*entry, of="set", revision=REVISIONS.get(name, "1")) for name, entry in PER_SET.items()},
}

STAND_IN = "_stand-in"
"""The end of the name of a metric whose feature network is replaced by a small random one, for tests of the harness."""


def definition(name: str) -> Definition | None:
    """The definition of a metric, or of its stand-in; None where there is none (a judge's own metric)."""
    found = DEFINITIONS.get(name.removesuffix(STAND_IN))
    if found is None or not name.endswith(STAND_IN):
        return found
    base = name.removesuffix(STAND_IN)
    return replace(
        found,
        text=f"stand-in, not {base}: a small network of random weights takes the place of the feature network, to test "
        f"the harness; its values say nothing about images. Otherwise: {found.text}",
        libraries=(),
    )


def versions() -> dict[str, str]:
    """The versions that every value depends on: the package, the revision of the definitions, and the libraries.

    What metrics that were asked for depend on besides is in `zoo.metrics.Asked.facts`.
    """
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")}
    return {"zoo": __version__, "metrics": REVISION, **libraries}
