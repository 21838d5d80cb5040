"""Edited captions: how far composites move from those with the images' own captions, and what a report says of it.

Where captions are edited, every image is completed twice with the same noise: with the edited caption, which the table
counts, and with its own. The hole should follow the caption, the rest must not move; and a method that reads no caption
is the control, which must not move by one bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data.base import OWN
from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.benchmark.plan import MethodPlan
    from zoo.benchmark.summary import MethodSummary, Summary

NAMES = ("moved", "moved_hole", "moved_known")
FOLLOWED = ("colour_given", "shape_given")


def movement(edited: Tensor, own: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Compares composites with edited captions to those with the images' own; the metrics' definitions say how.

    Args:
        edited: B 3 H W uint8.
        own: B 3 H W uint8, of the same images under the same masks.
        mask: B 1 H W in {0, 1}, 1 = hole.

    Returns:
        The names of `NAMES`, each with B values, float64, on the CPU; NaN over a region without a pixel.
    """
    difference = (edited.long() - own.long()).abs().sum(1, keepdim=True)
    hole = mask > 0.5

    def over(region: Tensor) -> Tensor:
        """L1 over a region, from integers: exact, on every device."""
        total, pixels = ((x * region).sum((1, 2, 3)).cpu().double() for x in (difference, torch.ones_like(difference)))
        return total / pixels / (3 * 255)

    moved = (difference > 0).flatten(1).any(1).cpu().double()
    return dict(zip(NAMES, (moved, over(hole), over(~hole)), strict=True))


def reads_captions(method: MethodPlan) -> bool | None:
    """Whether a method is given captions; None where its class cannot be imported here."""
    from zoo.models import resolve

    try:
        return "caption" in resolve(method.class_path).needs
    except UsageError:
        return None


def edits_grid(summary: Summary, separator: str = " ") -> list[list[str]]:
    """How far each method moved and how often it followed, header first; empty where no caption was edited."""
    from zoo.benchmark import report  # late: it asks this module, and so does every worker

    found = _edited(summary)
    if not found:
        return []
    names = [*NAMES, *(name for name in FOLLOWED if any(name in method.metrics for method in found.values()))]
    said = {True: "yes", False: "no", None: "unknown here"}
    rows = [["method", "reads captions", "n", *map(report.title, names)]]
    for label, method in found.items():
        n = method.metrics["moved"].n
        values = [report.counted(name, method.metrics.get(name), n, separator) for name in names]
        rows.append([label, said[reads_captions(method.method)], str(n), *values])
    return rows


def control(summary: Summary) -> str:
    """What the methods that read no caption say of the run, in a sentence; empty where no caption was edited."""
    found = _edited(summary)
    if not found:
        return ""
    still = [label for label, method in found.items() if reads_captions(method.method) is False]
    if moved := [label for label in still if found[label].metrics["moved"].mean > 0]:
        return f"The control failed: {', '.join(moved)} read no captions, and moved when captions were edited."
    if not still:
        return "There is no control: no method here reads no captions."
    return f"The control holds: {', '.join(still)} read no captions, and did not move by one bit."


def warnings(summary: Summary) -> list[str]:
    """What must not be, one line each: a method without captions that moved, and one that moved outside the hole."""
    lines = []
    for label, method in _edited(summary).items():
        moved, known = (method.metrics[name] for name in ("moved", "moved_known"))
        if moved.mean > 0 and reads_captions(method.method) is False:
            images = f"{round(moved.mean * moved.n)} of {moved.n} images"
            lines.append(f"CONTROL FAILED: {label} reads no captions, and moved on {images} when they were edited")
        if known.mean > 0:
            lines.append(f"NOT COMPOSITED: {label} moved outside the hole when captions were edited")
    return lines


def _edited(summary: Summary) -> dict[str, MethodSummary]:
    """The methods that have an image whose caption was edited; none of a run made before movement was measured."""
    if summary.plan.captions == OWN:
        return {}
    return {label: m for label, m in summary.methods.items() if "moved" in m.metrics and m.metrics["moved"].n}
