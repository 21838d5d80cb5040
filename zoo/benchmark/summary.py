"""From rows to a table: means with 95 % intervals, pairwise differences, failures. Pure functions of what is stored.

What `to_json` gives, and `summary.json` holds:

    run, captions, n, failed, unedited     the folder, the caption rule, images, failure rows, captions not edited
    methods      {method: {metric: {mean, lo, hi, n}}}, null where undefined. Metrics that were asked for (lpips_alex,
                 fid_tf, ...) stand among those of every run. Of a metric of sets `mean` is its value on all n images,
                 and `lo` and `hi` may be null. Stand-ins are named `<metric>_stand-in`.
    by_objects   {method: {metric: {number of objects: {mean, lo, hi, n}}}}
    samples      where the plan asks for some: {n, methods: {method: {metric: {mean: {...}, oracle_best: {...}}}}}
    skipped      where any metric that was asked for is not measured: {metric: why}; where only some methods lack it,
                 `why` names them
    protocol     where it is not `zoo`: {name, sha256} of its file

In a `Summary` the same are `MethodSummary.metrics` (NaN for null), `Summary.skipped`, `Summary.plan.protocol`; the
table's columns are `Summary.main`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.benchmark import samples
from zoo.benchmark.distributions import Sets, distributions
from zoo.benchmark.plan import PROTOCOL, MethodPlan, Plan
from zoo.benchmark.plan import ordered as ordered
from zoo.benchmark.store import KEY, VARYING, Row, by_method, failed, read_rows
from zoo.errors import DataError
from zoo.metrics.statistics import Interval, interval, paired_difference

META = frozenset(
    {*KEY, *VARYING, "preset", "trained_on", "objects", "hole_ratio", "image_hash", "mask_hash", "undefined"}
    | {"batch", "error", "unedited", samples.KEY}
)
FIDELITY = ("colour_fidelity", "shape_fidelity", "colour_given", "shape_given")
MAIN = ("l1_hole", "psnr", "ssim", *FIDELITY)
PAIRED = ("l1_hole", "ssim_hole", "colour_fidelity", "colour_given")
BASELINE = "telea"


@dataclass(frozen=True)
class SampleSummary:
    """What several samples of each image say of a stochastic method.

    Attributes:
        metrics: By metric, then `mean` and `oracle_best`: the mean and interval over images.
        diversity: Of `zoo.benchmark.samples.diversity`.
        n: Images sampled.
    """

    metrics: dict[str, dict[str, Interval]]
    diversity: Interval
    n: int


@dataclass(frozen=True)
class MethodSummary:
    """One row of the table.

    Attributes:
        method: What it is.
        metrics: Mean and interval by metric, in the order of the definitions.
        n: Images measured.
        failed: Images it failed on.
        missing: Images without a row: the run is not finished.
        errors: How often each error text occurred.
        by_objects: Fidelity by the number of objects in the scene: metric, then number.
        samples: Of a stochastic method whose plan asks for samples; `metrics` never counts them.
    """

    method: MethodPlan
    metrics: dict[str, Interval]
    n: int
    failed: int
    missing: int
    errors: dict[str, int] = field(default_factory=dict)
    by_objects: dict[str, dict[int, Interval]] = field(default_factory=dict)
    samples: SampleSummary | None = None


@dataclass(frozen=True)
class Difference:
    """The mean of `method` minus `against` over the images that both completed."""

    metric: str
    method: str
    against: str
    value: Interval


@dataclass(frozen=True)
class Summary:
    """What a run says.

    Attributes:
        folder: The run folder.
        plan: Its plan.
        methods: By label, in the order of the plan.
        differences: Trained methods against the baseline control, on the same images.
        unedited: Images whose caption was to be edited and could not be: their fidelity does not count.
        skipped: Metrics that were asked for and are not measured, and why.
    """

    folder: Path
    plan: Plan
    methods: dict[str, MethodSummary]
    differences: tuple[Difference, ...] = ()
    unedited: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Images in the plan."""
        return self.plan.count

    @property
    def failed(self) -> int:
        """Failure rows."""
        return sum(method.failed for method in self.methods.values())

    @property
    def missing(self) -> int:
        """Rows that a complete run would have."""
        return sum(method.missing for method in self.methods.values())

    @property
    def metrics(self) -> list[str]:
        """Metrics that any method has a value of, in the order of the definitions."""
        found = {name for method in self.methods.values() for name, value in method.metrics.items() if value.n}
        return ordered(found)

    @property
    def main(self) -> list[str]:
        """The metrics of the table: the few of every run, and all that were asked for, where any method has a value."""
        return [name for name in (*MAIN, *self.plan.asked) if name in self.metrics]


def summarize(folder: str | Path) -> Summary:
    """Summarizes what a run folder holds, finished or not.

    Raises:
        DataError: No run folder, damaged rows, or rows measured on different pixels.
    """
    folder = Path(folder)
    plan = Plan.read(folder)
    return summarize_rows(folder, plan, read_rows(folder))


def summarize_rows(folder: Path, plan: Plan, rows: Sequence[Row]) -> Summary:
    """As `summarize`, of rows at hand."""
    _check_pixels(rows)
    groups = by_method(rows)
    sets = distributions(folder, plan, groups)
    methods = {method.label: _method(method, plan, groups.get(method.label, []), sets) for method in plan.methods}
    unedited = len({row["id"] for row in rows if row.get("unedited")})
    skipped = plan.skipped | sets.skipped
    skipped = {name: skipped[name] for name in ordered(skipped)}
    return Summary(folder, plan, methods, tuple(_differences(plan, groups)), unedited, skipped)


def to_json(summary: Summary) -> dict[str, Any]:
    """The facts for programs, as the top of this module describes them."""
    plan = summary.plan
    several: dict[str, Any] = {"samples": _plain_samples(summary)} if plan.samples else {}
    if summary.skipped:
        several["skipped"] = summary.skipped
    if plan.protocol != PROTOCOL:
        several["protocol"] = {"name": plan.protocol, "sha256": plan.protocol_sha256}
    return {
        "run": str(summary.folder),
        "captions": summary.plan.captions,
        "n": summary.n,
        "failed": summary.failed,
        "unedited": summary.unedited,
        "methods": {
            label: {name: _plain(value) for name, value in method.metrics.items()}
            for label, method in summary.methods.items()
        },
        "by_objects": {
            label: {
                name: {str(number): _plain(value) for number, value in group.items()}
                for name, group in method.by_objects.items()
            }
            for label, method in summary.methods.items()
        },
    } | several


def _plain(value: Interval) -> dict[str, float | int | None]:
    numbers = {"mean": value.mean, "lo": value.lo, "hi": value.hi}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()} | {"n": value.n}


def _plain_samples(summary: Summary) -> dict[str, Any]:
    found = {label: method.samples for label, method in summary.methods.items() if method.samples}
    methods = {
        label: {name: {way: _plain(value) for way, value in ways.items()} for name, ways in several.metrics.items()}
        | {samples.DIVERSITY: _plain(several.diversity)}
        for label, several in found.items()
    }
    return {"n": summary.plan.samples, "methods": methods}


def _check_pixels(rows: Sequence[Row]) -> None:
    seen: dict[str, tuple[Any, Any]] = {}
    for row in rows:
        if failed(row):
            continue
        pixels = (row.get("image_hash"), row.get("mask_hash"))
        if seen.setdefault(row["id"], pixels) != pixels:
            raise DataError(
                "the methods were measured on different pixels of the same image: the data changed during the run",
                where=row["id"],
                remedy="run the benchmark into another folder",
            )


def _method(method: MethodPlan, plan: Plan, rows: Sequence[Row], sets: Sets) -> MethodSummary:
    good = [row for row in rows if not failed(row)]
    bad = [row for row in rows if failed(row)]
    metrics = {
        name: interval(_values(name, good)) for name in {name for row in good for name in row if name not in META}
    }
    metrics |= sets.values.get(method.label, {})
    by_objects = {}
    for name in FIDELITY:
        numbers = sorted({row["objects"] for row in good if row.get("objects") and row.get(name) is not None})
        if numbers:
            by_objects[name] = {k: interval(_values(name, [r for r in good if r["objects"] == k])) for k in numbers}
    return MethodSummary(
        method,
        {name: metrics[name] for name in ordered(metrics)},
        len(good),
        len(bad),
        plan.count - len(good) - len(bad),
        dict(Counter(row["error"] for row in bad).most_common()),
        by_objects,
        _samples([row[samples.KEY] for row in good if samples.KEY in row]),
    )


def _samples(stored: Sequence[dict[str, Any]]) -> SampleSummary | None:
    if not stored:
        return None
    found = {name: [one.get(name, {}) for one in stored] for name in samples.MEASURED}
    metrics = {
        name: {way: interval(_values(way, values)) for way in (samples.MEAN, samples.BEST)}
        for name, values in found.items()
        if any(values)
    }
    return SampleSummary(metrics, interval(_values(samples.DIVERSITY, stored)), len(stored))


def _values(name: str, rows: Sequence[Row]) -> list[float]:
    """The values of a metric; NaN where a row has none."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _differences(plan: Plan, groups: dict[str, list[Row]]) -> list[Difference]:
    controls = [m.label for m in plan.methods if m.control and m.name not in ("truth",)]
    against = BASELINE if BASELINE in controls else next(iter(controls), None)
    found: list[Difference] = []
    for method in plan.methods:
        if against is None or method.control:
            continue
        for metric in PAIRED:
            ours, theirs = (
                {row["id"]: row[metric] for row in groups.get(label, []) if row.get(metric) is not None}
                for label in (method.label, against)
            )
            both = sorted(ours.keys() & theirs.keys())
            if both:
                value = paired_difference([ours[i] for i in both], [theirs[i] for i in both])
                found.append(Difference(metric, method.label, against, value))
    return found
