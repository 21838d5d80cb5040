"""The papers' numbers beside measured ones: published value, its protocol, ours under that protocol and under ours."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from zoo.benchmark.plan import PROTOCOL, MethodPlan, Plan
from zoo.benchmark.published_papers import METHODS, PAPERS, Cell, Measure, compared, read_published
from zoo.benchmark.summary import MethodSummary, Summary, summarize
from zoo.data.base import OWN
from zoo.errors import ZooError
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

REPRODUCED, DIFFERS, NOT_COMPARABLE, NOT_MEASURED = "reproduced", "differs", "not comparable", "not in this run"
FEWEST = 1000
RULE = (
    "Reproduced: the published value lies in our 95 % interval, widened by the square root of 2 (the published mean "
    "has a sampling error of its own, taken to be as large as ours) and by half a unit of its last digit; differs: it "
    "lies outside. Comparable are only values of the same protocol, dataset and masks, with paper weights trained on "
    "that dataset, a complete run, and enough images; † marks cells in which a paper contradicts itself."
)


@dataclass(frozen=True)
class Beside:
    """A published value beside ours.

    Attributes:
        cell: What was published.
        label: The method of the run; empty where it has none of this name.
        protocol: The paper's protocol in words.
        theirs: Our value by the paper's definition, in the paper's unit; None where it is not measured.
        ours: Our value by our own definition.
        verdict: `reproduced`, `differs`, `not comparable` or `not in this run`.
        reason: Why it is not comparable.
        run: The folder of the run beside this one that `theirs` is from; empty where it is from this one.
    """

    cell: Cell
    label: str
    protocol: str
    theirs: Interval | None
    ours: Interval | None
    verdict: str
    reason: str = ""
    run: str = ""


def related(summary: Summary) -> list[Summary]:
    """The runs beside this one on the same dataset that follow the protocol of a paper, as far as they can be read."""
    own, found = summary.folder.resolve(), []
    for path in sorted(own.parent.glob("*/plan.json")):
        try:
            plan = Plan.read(path.parent)
            if path.parent != own and plan.dataset == summary.plan.dataset and plan.protocol != PROTOCOL:
                found.append(summarize(path.parent))
        except ZooError:  # another run's damage is not this one's
            continue
    return found


def beside(summary: Summary, cells: list[Cell] | None = None, others: Sequence[Summary] | None = None) -> list[Beside]:
    """Every published value of this run's dataset and masks, beside the run's own.

    Args:
        summary: Of `summarize`.
        cells: Of `read_published`.
        others: Of `related`: runs that are asked for a paper's protocol where this one follows another.

    Returns:
        In the order of the tables; a value of a method that the run has several of (variants) comes several times.
    """
    found = []
    cells = compared(read_published() if cells is None else cells)
    decimals = _decimals(cells)
    others = related(summary) if others is None else others
    for cell in cells:
        if _setting_differs(cell, summary):
            continue
        methods = [m for m in summary.methods.values() if m.method.name == METHODS.get(cell.method)]
        for method in methods:
            measured = _measured(cell, method, summary, others)
            found.append(_beside(cell, measured, decimals[cell.paper, cell.metric]))
        if not methods:
            found.append(Beside(cell, "", PAPERS[cell.paper].about, None, None, NOT_MEASURED))
    return found


def elsewhere(summary: Summary, cells: list[Cell] | None = None) -> list[tuple[str, str, str, int]]:
    """Where the methods of this run have published values that it cannot be compared with: other data or masks.

    Returns:
        Paper, setting, method of the run, number of values.
    """
    names = {method.name for method in summary.plan.methods}
    cells = compared(read_published() if cells is None else cells)
    counts = Counter(
        (cell.paper, cell.setting, METHODS[cell.method])
        for cell in cells
        if METHODS.get(cell.method) in names and _setting_differs(cell, summary)
    )
    return [(*place, count) for place, count in counts.items()]


def nothing(summary: Summary, found: Sequence[Beside]) -> list[str]:
    """What of a run has no published value at all, a line each: its dataset with its masks, or a method."""
    plan = summary.plan
    lines = [] if found else [f"no paper has published a value on {plan.dataset} with {plan.mask} masks"]
    known = set(METHODS.values())
    lines += [
        f"no paper has published a value of {m.label}" for m in plan.methods if not m.control and m.name not in known
    ]
    return [f"nothing comparable: {line}" for line in lines]


class _Measured(NamedTuple):
    """What a published value is compared with.

    Attributes:
        summary: The run that follows the paper's protocol, or this run where none does.
        theirs: The method in that run.
        ours: The method in this run.
        run: The folder of `summary`; empty where it is this run.
    """

    summary: Summary
    theirs: MethodSummary
    ours: MethodSummary
    run: str = ""


def _measured(cell: Cell, ours: MethodSummary, summary: Summary, others: Sequence[Summary]) -> _Measured:
    wanted = PAPERS[cell.paper].protocol
    if summary.plan.protocol != wanted:
        for other in others:
            if other.plan.protocol == wanted and not _setting_differs(cell, other):
                for theirs in other.methods.values():
                    if _same(theirs.method, ours.method):
                        return _Measured(other, theirs, ours, other.folder.name)
    return _Measured(summary, ours, ours)


def _same(a: MethodPlan, b: MethodPlan) -> bool:
    """Whether two plans ran one method with the same weights and settings."""
    return replace(a, label=b.label, weights=b.weights) == b


def _setting_differs(cell: Cell, summary: Summary) -> bool:
    plan = summary.plan
    return plan.dataset not in cell.dataset.split("/") or not _same_mask(cell, plan.mask)


def _same_mask(cell: Cell, mask: str) -> bool:
    """Whether the masks of a plan are those of a published value, as far as it says which."""
    kind, _, word = mask.partition(":")
    if cell.mask == "irregular":
        return kind in ("irregular", "nvidia") and word.partition(":")[0] == cell.hole_ratio
    return cell.mask == (kind if cell.mask == "outpaint" else mask)


def _decimals(cells: list[Cell]) -> Counter[tuple[str, str]]:
    """How many digits a paper prints of a metric: zeros at the end of a value are lost."""
    found: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        key = (cell.paper, cell.metric)
        found[key] = max(found[key], len(cell.value.partition(".")[2]))
    return found


def _beside(cell: Cell, of: _Measured, decimals: int) -> Beside:
    paper = PAPERS[cell.paper]
    measure = paper.measures.get(cell.metric)
    theirs = ours = None
    if measure is not None:
        found, ours = of.theirs.metrics.get(measure.theirs), of.ours.metrics.get(measure.ours)
        theirs = _scaled(found, measure.scale) if found is not None and found.n else None
    reason = _obstacle(cell, of.theirs, of.summary, measure, theirs)
    verdict = NOT_COMPARABLE
    if not reason and theirs is not None:
        slack = 0.5 * 10.0**-decimals
        low, high = (theirs.mean + math.sqrt(2) * (end - theirs.mean) for end in (theirs.lo, theirs.hi))
        verdict = REPRODUCED if low - slack <= float(cell.value) <= high + slack else DIFFERS
    return Beside(cell, of.ours.method.label, paper.about, theirs, ours, verdict, reason, of.run)


def _scaled(value: Interval, scale: float) -> Interval:
    return Interval(value.mean * scale, value.lo * scale, value.hi * scale, value.n)


def _obstacle(
    cell: Cell, method: MethodSummary, summary: Summary, measure: Measure | None, theirs: Interval | None
) -> str:
    """What keeps a value from being compared; empty where nothing does."""
    plan, paper = summary.plan, PAPERS[cell.paper]
    if cell.suspect:
        return f"the published cell is {cell.note}"
    if cell.mask == "outpaint" or cell.note.startswith("out of domain"):
        return "the paper does not say enough of its masks or weights"
    if plan.protocol != paper.protocol:
        return f"the run's protocol is {plan.protocol}, not {paper.protocol}"
    for name, value in paper.options.get(plan.dataset, {}).items():
        if (given := plan.data_options.get(name)) != value:
            there = f"{name}={given or 'unknown'}"
            return f"the images are those of {there}, the paper's of {value}: --option {name}={value}"
    if problem := _weights_differ(method.method, plan.dataset):
        return problem
    if plan.captions != OWN:
        return f"the run's captions are {plan.captions}"
    if plan.guidance:
        return f"{' and '.join(plan.guidance)} are shown whole"
    if method.failed or method.missing:
        return f"{method.failed} images failed, {method.missing} are missing"
    if measure is None:
        return "this metric is not measured here"
    if theirs is None:
        return f"{measure.theirs} is not measured: {summary.skipped.get(measure.theirs, 'the run did not ask for it')}"
    return _count_differs(cell, measure, theirs)


def _weights_differ(method: MethodPlan, dataset: str) -> str:
    if method.baseline:
        return "the paper does not say which weights it took of this baseline"
    if method.preset != "paper":
        return f"the weights are {method.preset}, not paper"
    if method.trained_on != dataset:
        return f"the weights were trained on {method.trained_on or 'unknown data'}"
    return f"{', '.join(sorted(method.settings))} changed" if method.settings else ""


def _count_differs(cell: Cell, measure: Measure, theirs: Interval) -> str:
    stated = PAPERS[cell.paper].images.get(cell.dataset)
    about = definition(measure.theirs)
    if about is not None and about.of == "set":
        if not stated:
            return "it depends on the number of images, which the paper does not state"
        if theirs.n != stated:
            return f"it depends on the number of images: {theirs.n}, in the paper {stated}"
        if not math.isfinite(theirs.lo):
            return "our value has no interval"
    return f"too few images: {theirs.n}, at least {FEWEST} are needed" if theirs.n < FEWEST else ""
