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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.benchmark import samples
from zoo.benchmark.distributions import Sets, distributions
from zoo.benchmark.plan import PROTOCOL, MethodPlan, Plan
from zoo.benchmark.plan import ordered as ordered
from zoo.benchmark.tables import META as META
from zoo.benchmark.tables import Numbers, Table
from zoo.benchmark.tables_read import read_table
from zoo.metrics.comparison import intervals_each
from zoo.metrics.statistics import Interval

FIDELITY = ("colour_fidelity", "shape_fidelity", "colour_given", "shape_given")
MAIN = ("l1_hole", "psnr", "ssim", *FIDELITY)
PAIRED = ("l1_hole", "ssim_hole", "colour_fidelity", "colour_given")
BASELINE = "telea"


METRIC, OBJECTS, DIFFERENCE = "metric", "objects", "difference"
NOTHING = Interval(math.nan, math.nan, math.nan, 0)


class _Column(NamedTuple):
    """What a mean is of.

    Attributes:
        kind: `metric`, `objects`, `samples` or `difference`.
        label: The method.
        name: The metric.
        part: The number of objects, the way samples are taken together, or the method that is taken away.
    """

    kind: str
    label: str
    name: str
    part: str = ""


Columns = dict[_Column, Numbers]


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
    return summarize_table(folder, plan, read_table(folder, plan))


def summarize_table(folder: Path, plan: Plan, table: Table) -> Summary:
    """As `summarize`, of the rows of `read_table`."""
    sets = distributions(folder, plan, {label: table.outlines(label) for label in table.labels})
    columns: Columns = {}
    for label in table.labels:
        columns |= _columns(table, label)
    columns |= _differences(plan, table)
    means = dict(zip(columns, intervals_each(columns.values()), strict=True))
    methods = {method.label: _method(method, plan, table, means, sets) for method in plan.methods}
    differences = [Difference(key.name, key.label, key.part, means[key]) for key in columns if key.kind == DIFFERENCE]
    skipped = plan.skipped | sets.skipped
    skipped = {name: skipped[name] for name in ordered(skipped)}
    return Summary(folder, plan, methods, tuple(differences), len(table.unedited), skipped)


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


def _columns(table: Table, label: str) -> Columns:
    """Every column of values of a method that a summary has the mean of."""
    place = table.labels.index(label)
    columns: Columns = {}
    if not table.measured[:, place].any():
        return columns
    for name in table.metrics:
        values = table.values[name][:, place]
        columns[_Column(METRIC, label, name)] = values
        if name in FIDELITY:
            judged = np.isfinite(values) & np.isfinite(table.objects)
            for number in np.unique(table.objects[judged]):
                columns[_Column(OBJECTS, label, name, str(int(number)))] = values[table.objects == number]
    for key, found in table.values.items():
        values = found[:, place]
        if key.startswith(f"{samples.KEY}.") and np.isfinite(values).any():
            _, name, *way = key.split(".")
            columns[_Column(samples.KEY, label, name, *way)] = values
    return columns


def _differences(plan: Plan, table: Table) -> Columns:
    """Trained methods minus the baseline control, on the images that both completed."""
    controls = [m.label for m in plan.methods if m.control and m.name not in ("truth",)]
    against = BASELINE if BASELINE in controls else next(iter(controls), None)
    columns: Columns = {}
    for method in plan.methods:
        if against is None or method.control:
            continue
        for metric in PAIRED:
            if metric in table.values:
                ours, theirs = table.columns(metric, [method.label, against]).values()
                if np.isfinite(ours - theirs).any():
                    columns[_Column(DIFFERENCE, method.label, metric, against)] = ours - theirs
    return columns


def _method(
    method: MethodPlan, plan: Plan, table: Table, means: Mapping[_Column, Interval], sets: Sets
) -> MethodSummary:
    label = method.label
    n, errors = int(table.measured[:, table.labels.index(label)].sum()), table.failures[label]
    mine = {key: value for key, value in means.items() if key.label == label}
    metrics = {key.name: value for key, value in mine.items() if key.kind == METRIC} | sets.values.get(label, {})
    by_objects: dict[str, dict[int, Interval]] = {}
    for name in FIDELITY:
        found = {int(key.part): value for key, value in mine.items() if (key.kind, key.name) == (OBJECTS, name)}
        by_objects |= {name: found} if found else {}
    return MethodSummary(
        method,
        {name: metrics[name] for name in ordered(metrics)},
        n,
        len(errors),
        plan.count - n - len(errors),
        dict(Counter(errors[sample] for sample in sorted(errors)).most_common()),
        by_objects,
        _samples({(key.name, key.part): value for key, value in mine.items() if key.kind == samples.KEY}),
    )


def _samples(found: dict[tuple[str, str], Interval]) -> SampleSummary | None:
    """What several samples say, from the mean of each metric by each way."""
    if not found:
        return None
    n = found["n", ""].n
    metrics = {
        name: {way: found[name, way] for way in (samples.MEAN, samples.BEST)}
        for name in samples.MEASURED
        if (name, samples.MEAN) in found
    }
    return SampleSummary(metrics, found.get((samples.DIVERSITY, ""), NOTHING), n)
