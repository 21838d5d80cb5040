"""What stands after the colon in a mask's name: `0.5` in `center:0.5`, `10-20:border` in `nvidia:10-20:border`."""

from __future__ import annotations

import math

from zoo.errors import UsageError, unknown_name
from zoo.masks import sides
from zoo.masks.objects import DILATION

RECTANGLE = (10.0, 40.0)  # percent of the area, where `rectangle` stands alone


def no_option(option: str) -> None:
    """For a kind without options."""
    if option:
        raise UsageError(f"'{option}' is no option of this mask", remedy="zoo list masks")


def one_of(kind: str, option: str, known: tuple[str, ...]) -> str:
    """The option of a kind that has a few by name.

    Raises:
        UsageError: None is given, or an unknown one.
    """
    if not option:
        raise UsageError(f"{kind} comes in several kinds", remedy=" ".join(f"{kind}:{name}" for name in known))
    if option not in known:
        raise unknown_name(f"{kind} mask", option, list(known))
    return option


def fraction(option: str) -> float:
    """The share of the area of `center[:F]`, in (0, 1]."""
    value = number(option or "0.25", "center takes the hole's share of the area: center:0.5")
    if not 0 < value <= 1:
        raise UsageError(f"a share of the area lies in (0, 1], got {value:g}", remedy="center:0.25: half of each side")
    return value


def bucket(option: str, kind: str = "irregular") -> tuple[float, float]:
    """LO and HI of `irregular:LO-HI`, in percent.

    Raises:
        UsageError: Not 0 <= LO < HI <= 100.
    """
    remedy = f"{kind} takes a bucket in percent, LO excluded and HI included: {kind}:10-20"
    low, dash, high = option.partition("-")
    if not dash:
        raise UsageError(f"{kind} needs a bucket, got '{option}'", remedy=remedy)
    found = number(low, remedy), number(high, remedy)
    if not 0 <= found[0] < found[1] <= 100:
        raise UsageError(f"a bucket is 0 <= LO < HI <= 100, got {option}", remedy=remedy)
    return found


def rectangle(option: str) -> tuple[float, float]:
    """LO and HI of `rectangle[:LO-HI]`, in percent."""
    return bucket(option, "rectangle") if option else RECTANGLE


def nvidia(option: str) -> tuple[float, float, bool | None]:
    """LO, HI, and whether holes come near the border, of `nvidia:LO-HI[:border|:noborder]`; None: they may."""
    percent, _, border = option.partition(":")
    if border not in ("", "border", "noborder"):
        raise unknown_name("option of nvidia masks", border, ["border", "noborder"])
    return *bucket(percent, "nvidia"), {"": None, "border": True, "noborder": False}[border]


def segmentation(option: str) -> float | None:
    """The dilation in pixels at 256 of `object:segmentation[:R]`; None for plain `object`."""
    name, _, radius = option.partition(":")
    if name not in ("", "segmentation"):
        raise UsageError(f"unknown object mask 'object:{option}'", remedy="object, object:segmentation or ...:R")
    return dilation(radius, "object:segmentation") if name else None


def dilation(option: str, kind: str = "instance") -> float:
    """The dilation in pixels at 256 of `instance[:R]`."""
    value = number(option or str(DILATION), f"{kind}:R takes a radius in pixels at 256")
    if value < 0:
        raise UsageError(f"a dilation cannot be negative, got {value:g}")
    return value


def class_name(option: str) -> tuple[str, float]:
    """The name of the class and the dilation of `class:NAME[:R]`; which names there are, only the data says."""
    name, _, radius = option.partition(":")
    if not name.strip():
        raise UsageError("class needs the name of a class", remedy="class:person, class:traffic_light, class:hair:8")
    return name.strip(), dilation(radius, f"class:{name}")


def half(option: str) -> str:
    """The side of `half[:SIDE]`, a random one where none is given."""
    return one_of("half", option or sides.RANDOM, (*sides.SIDES, sides.RANDOM))


def outpaint(option: str) -> tuple[str, float]:
    """The side and the share of the area of `outpaint[:SIDE[:F]]`."""
    side, _, share = option.partition(":")
    side = one_of("outpaint", side or "right", (*sides.SIDES, sides.ALL, sides.RANDOM))
    value = number(share or str(sides.SHARE), f"outpaint takes the hole's share of the area: outpaint:{side}:0.5")
    if not 0 < value < 1:
        raise UsageError(f"a share of the area to outpaint lies in (0, 1), got {value:g}", remedy="outpaint:right:0.25")
    return side, value


def number(text: str, remedy: str) -> float:
    """A finite number.

    Raises:
        UsageError: It is none.
    """
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"'{text}' is no number", remedy=remedy) from None
    if not math.isfinite(value):
        raise UsageError(f"'{text}' is no finite number", remedy=remedy)
    return value
