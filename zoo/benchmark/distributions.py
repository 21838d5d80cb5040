"""The metrics of sets of a run, out of the features in its folder: FID, KID, P-IDS, U-IDS.

They are computed when a run is summarized, once: `RUN/features/<extractor>/values-<method>.json` keeps what came out
beside a hash of everything that it depends on. A run that is not finished has none, for they depend on the number of
images.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.benchmark.features import TRUTH, part_of, read_stores
from zoo.benchmark.plan import MethodPlan, Plan, canonical
from zoo.benchmark.store import Row, failed, read_json, write_whole
from zoo.errors import DataError
from zoo.metrics.definitions import DEFINITIONS, STAND_IN
from zoo.metrics.sources import Skipped
from zoo.metrics.statistics import Interval

if TYPE_CHECKING:
    from zoo.metrics.sets import Truths
    from zoo.metrics.store import FeatureStore

Found = dict[str, Interval | Skipped]


class Sets(NamedTuple):
    """The metrics of sets of a run.

    Attributes:
        values: By method and metric.
        skipped: Of each metric that any method lacks, why.
    """

    values: dict[str, dict[str, Interval]]
    skipped: dict[str, str]


def text_of(skipped: Skipped) -> str:
    """Why a metric is not measured, and what would make it measurable, in one line."""
    return "; ".join(part for part in skipped if part)


def set_names(plan: Plan) -> tuple[str, ...]:
    """The metrics of sets that a plan asks for."""
    return tuple(name for name in plan.asked if DEFINITIONS[name.removesuffix(STAND_IN)].of == "set")


def distributions(folder: Path, plan: Plan, rows: Mapping[str, Sequence[Row]]) -> Sets:
    """Takes the metrics of sets that a plan asks for, of every method.

    Args:
        folder: The run folder.
        plan: Its plan.
        rows: Its rows by method.

    Raises:
        DataError: Features are damaged, or of other pixels than the rows.
    """
    names = set_names(plan)
    if not names:
        return Sets({}, {})
    found = _Run(folder, plan, rows)
    by_method = {method.label: found.method(method, names) for method in plan.methods}
    values = {
        label: {name: value for name, value in all_of.items() if isinstance(value, Interval)}
        for label, all_of in by_method.items()
    }
    reasons = {
        name: {label: text_of(why) for label, all_of in by_method.items() if isinstance(why := all_of[name], Skipped)}
        for name in names
    }
    return Sets(values, {name: _said(why, len(by_method)) for name, why in reasons.items() if why})


def _said(reasons: Mapping[str, str], methods: int) -> str:
    """One reason where all methods have the same, else each method's."""
    if len(reasons) == methods and len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return ". ".join(f"{label}: {reason}" for label, reason in reasons.items())


class _Run:
    """A run with the features of its truths, which methods that completed the same images share."""

    def __init__(self, folder: Path, plan: Plan, rows: Mapping[str, Sequence[Row]]) -> None:
        self.folder, self.plan, self.rows = folder, plan, rows
        self.stores = read_stores(folder)
        self._truths: dict[tuple[str, tuple[str, ...]], Truths] = {}

    def method(self, method: MethodPlan, names: Sequence[str]) -> Found:
        rows = self.rows.get(method.label, [])
        hashes = {row["id"]: row["image_hash"] for row in rows if not failed(row)}
        missing = self.plan.count - len(rows)
        if missing:
            return dict.fromkeys(names, Skipped(f"the run is not finished: {missing} rows are missing"))
        from zoo.metrics.sets import extractor_of

        found: Found = {}
        for extractor in dict.fromkeys(map(extractor_of, names)):
            group = [name for name in names if extractor_of(name) == extractor]
            found |= self._group(method, extractor, group, hashes)
        return {name: found[name] for name in names}

    def _group(self, method: MethodPlan, extractor: str, names: Sequence[str], hashes: dict[str, str]) -> Found:
        store = self.stores.get(extractor)
        if store is None:
            return dict.fromkeys(names, Skipped("the folder holds no features", "give the same command again"))
        ours, theirs = store.known(part_of(method.label)), store.known(TRUTH)
        absent = [sample for sample in hashes if sample not in ours or sample not in theirs]
        if absent:
            why = Skipped(f"{len(absent)} images have rows and no features", "give the same command again")
            return dict.fromkeys(names, why)
        for sample, digest in hashes.items():
            if theirs[sample] != digest:
                raise DataError(
                    "features and rows are of other pixels of the same image: the data changed during the run",
                    where=f"{store.folder}: {sample}",
                    remedy="run the benchmark into another folder",
                )
        pixels = sorted((sample, ours[sample], theirs[sample]) for sample in hashes)
        facts = {name: self.plan.metrics[name] for name in names}
        versions = {name: value for name, value in self.plan.metrics.items() if isinstance(value, str)}
        about = canonical({"pixels": pixels, "of": store.extractor.fingerprint, "metrics": facts, "with": versions})
        key = hashlib.sha256(about.encode()).hexdigest()
        path = store.folder / f"values-{method.file_name}.json"
        kept = _read(path, key, names)
        if kept is None:
            kept = self._compute(method, store, names, sorted(hashes))
            with suppress(DataError):  # of a folder that cannot be written: it is computed again next time
                write_whole(path, _text(key, kept))
        return kept

    def _compute(self, method: MethodPlan, store: FeatureStore, names: Sequence[str], ids: list[str]) -> Found:
        from zoo.metrics.sets import Truths, distribution

        place = store.extractor.name, tuple(ids)
        if place not in self._truths:
            self._truths[place] = Truths(store.read(TRUTH, ids))
        return distribution(names, store.read(part_of(method.label), ids), self._truths[place])


def _text(key: str, found: Found) -> bytes:
    plain = {name: [_number(x) for x in v] if isinstance(v, Interval) else v._asdict() for name, v in found.items()}
    return (json.dumps({"key": key, "values": plain}, indent=2, allow_nan=False) + "\n").encode()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read(path: Path, key: str, names: Sequence[str]) -> Found | None:
    """What was computed before, where it is of the same features; None where it is not."""
    try:
        content = read_json(path)
        values = content["values"]
        if content["key"] != key or list(values) != list(names):
            return None
        return {name: _plain(value) for name, value in values.items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Interval | Skipped:
    if isinstance(value, dict):
        return Skipped(value["reason"], value["remedy"])
    mean, lo, hi = (math.nan if x is None else float(x) for x in value[:3])
    return Interval(mean, lo, hi, int(value[3]))
