"""The page's plots, by matplotlib, as inline SVG.

What is drawn in `INK` takes the colour of the text around it, so that a plot reads on light and on dark paper; nothing
in it refers to anything outside the page, and the same numbers give the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, NamedTuple

from zoo.metrics.comparison import Band
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

INK = "#010203"
COLOURS = ("#3d85c6", "#e08a1e", "#2f9e62", "#cc4f4b", "#9068be", "#a3773f", "#d469a6", "#708090")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 4.4  # inches: at 72 points each, a phone shows them nearly at their own size
LONGEST = 22
ARROWS = {"lower": "↓", "higher": "↑", "none": ""}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zoo",
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
}


class Costed(NamedTuple):
    """A method in the plot of quality against cost."""

    label: str
    seconds: float
    quality: Interval


def metric_title(name: str) -> str:
    """The metric's name, its unit and which way is better."""
    found = definition(name)
    if found is None:
        return name
    unit = f" {found.unit}" if found.unit else ""
    return f"{name}{unit} {ARROWS[found.better]}".rstrip()


def short(label: str) -> str:
    """A label that fits beside an axis: dotted paths keep their end."""
    return label if len(label) <= LONGEST else f"…{label[1 - LONGEST :]}"


def forest(values: Mapping[str, Interval], labels: Sequence[str], key: str) -> str:
    """Means with their intervals, one line per method.

    Args:
        values: By method, in the order from above; those without a value are left out.
        labels: All methods of the page: a method has one colour in all plots.
        key: A word that no other plot of the page has.

    Returns:
        An `<svg>` element; empty where no method has a value.
    """
    found = {label: value for label, value in values.items() if value.n and math.isfinite(value.mean)}
    if not found:
        return ""
    with _figure(key, 0.55 + 0.27 * len(found)) as (axes, out):
        for place, (label, value) in enumerate(found.items()):
            colour = _colour(labels.index(label))
            if math.isfinite(value.lo):
                axes.plot([value.lo, value.hi], [place, place], color=colour, linewidth=3.2, alpha=0.45)
            axes.plot([value.mean], [place], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(found)), [short(label) for label in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    return out[0]


def curves(name: str, bands: Sequence[Band], labels: Sequence[str], key: str) -> str:
    """A metric against the hole's share of the image, with 95 % intervals as bands.

    Args:
        name: The metric.
        bands: Of `zoo.metrics.comparison.bands`, with one value per label.
        labels: The methods.
        key: A word that no other plot of the page has.

    Returns:
        An `<svg>` element; empty where fewer than two bands have images.
    """
    there = [band for band in bands if any(value.n for value in band.values)]
    if len(there) < 2:
        return ""
    with _figure(key, 3.1) as (axes, out):
        for place in range(len(labels)):
            points = [(x, band.values[place]) for x, band in enumerate(there) if band.values[place].n]
            x, means = [p[0] for p in points], [p[1].mean for p in points]
            marker, colour = MARKERS[place % len(MARKERS)], _colour(place)
            axes.plot(x, means, marker=marker, markersize=4.5, linewidth=1.4, color=colour)
            axes.fill_between(x, [p[1].lo for p in points], [p[1].hi for p in points], color=colour, alpha=0.18)
        counts = [max(value.n for value in band.values) for band in there]
        ticks = [f"{100 * b.low:g}–{100 * b.high:g} %\nn = {n}" for b, n in zip(there, counts, strict=True)]
        axes.set_xticks(range(len(there)), ticks, fontsize=7.5 if len(there) < 6 else 6)
        axes.set_ylabel(metric_title(name))
        axes.grid(axis="y")
        _legend(axes, labels)
    return out[0]


def against_cost(name: str, points: Sequence[Costed], key: str, what: str) -> str:
    """Quality against the seconds that an image takes, on a logarithmic axis.

    Args:
        name: The metric of quality.
        points: The methods; those without a value are left out.
        key: A word that no other plot of the page has.
        what: What the axis says.

    Returns:
        An `<svg>` element; empty where no method has both.
    """
    found = [(k, p) for k, p in enumerate(points) if p.quality.n and math.isfinite(p.quality.mean) and p.seconds > 0]
    if not found:
        return ""
    with _figure(key, 3.1) as (axes, out):
        axes.set_xscale("log")
        for place, point in found:
            colour, value = _colour(place), point.quality
            if math.isfinite(value.lo):
                axes.plot([point.seconds] * 2, [value.lo, value.hi], color=colour, linewidth=1.2)
            marker = MARKERS[place % len(MARKERS)]
            axes.plot([point.seconds], [value.mean], marker, color=colour, markersize=6)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(lambda x, _: "")
        axes.set_xlabel(what)
        axes.set_ylabel(metric_title(name))
        axes.margins(x=0.15, y=0.12)
        axes.grid(axis="both")
        _legend(axes, [point.label for _, point in found])
    return out[0]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _legend(axes: Any, labels: Sequence[str]) -> None:
    """Names what was drawn, in its order; given, and not asked of matplotlib, which leaves out `_mine.Method`."""
    figure = axes.figure
    drawn = [line for line in axes.lines if line.get_marker() != "None"]
    style: dict[str, Any] = {"ncols": 3, "frameon": False, "fontsize": 7.5, "handlelength": 1.6, "columnspacing": 1.2}
    figure.legend(drawn, [short(label) for label in labels], loc="outside lower center", **style)


@contextmanager
def _figure(key: str, height: float) -> Iterator[tuple[Any, list[str]]]:
    """The axes to draw on, and a list that holds the SVG afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    out: list[str] = []
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure.add_subplot(), out
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    out.append(inline(text.getvalue(), key))


def inline(svg: str, key: str) -> str:
    """An SVG file as an element of a page: no prolog, no addresses, ids of its own, the page's ink and width."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    head, end, body = svg.partition(">")
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head) + ' role="img"'
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", body.replace(INK, "currentColor"))
    return head + end + body
