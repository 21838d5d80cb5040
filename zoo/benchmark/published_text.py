"""The comparison with published numbers as a table, as CSV and for programs."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from zoo.benchmark.published import Beside
from zoo.benchmark.published_papers import COLUMNS, PAPERS
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval


def published_grid(found: list[Beside]) -> list[list[str]]:
    """The comparison as cells, header first."""
    header = ["method", "setting", "metric", "published", "their protocol, ours", "our definition", "verdict"]
    return [header, *([*_cells(one), _verdict(one)] for one in found)]


def _cells(one: Beside) -> list[str]:
    cell, measure = one.cell, PAPERS[one.cell.paper].measures.get(one.cell.metric)
    mark = " †" if cell.suspect else ""
    digits = max(2, len(cell.value.partition(".")[2]))
    ours = ""
    if measure is not None and one.ours is not None and one.ours.n:
        about = definition(measure.ours)
        ours = f"{measure.ours} {_interval(one.ours, about.digits if about else 4)}"
    name = f"{cell.method} ({one.label})" if one.label else cell.method
    place = f"{cell.paper}, table {cell.table}: {cell.setting}"
    return [name, place, cell.metric, cell.value + mark, _interval(one.theirs, digits), ours or "-"]


def _interval(value: Interval | None, digits: int) -> str:
    if value is None or not value.n or not math.isfinite(value.mean):
        return "-"
    mean = f"{value.mean:.{digits}f}"
    return f"{mean} [{value.lo:.{digits}f}, {value.hi:.{digits}f}]" if math.isfinite(value.lo) else mean


def _verdict(one: Beside) -> str:
    place = f" (by {one.run})" if one.run else ""
    return f"{one.verdict}: {one.reason}{place}" if one.reason else one.verdict + place


def published_csv(found: list[Beside]) -> str:
    """The comparison, one published value a line; `theirs_*` is our value by the paper's definition, in its unit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [f"{whose}_{end}" for whose in ("theirs", "ours") for end in ("mean", "lo", "hi", "n")]
    writer.writerow([*COLUMNS, "label", *ends, "verdict", "reason", "run"])
    for one in found:
        values = [number for value in (one.theirs, one.ours) for number in _plain(value)]
        writer.writerow([*one.cell, one.label, *values, one.verdict, one.reason, one.run])
    return text.getvalue()


def _plain(value: Interval | None) -> list[str]:
    if value is None:
        return [""] * 4
    return [*(repr(float(x)) if math.isfinite(x) else "" for x in value[:3]), str(value.n)]


def published_json(found: list[Beside]) -> list[dict[str, Any]]:
    """The comparison for programs."""

    def plain(value: Interval | None) -> dict[str, Any] | None:
        if value is None:
            return None
        ends = {name: x if math.isfinite(x) else None for name, x in zip(("mean", "lo", "hi"), value[:3], strict=True)}
        return {**ends, "n": value.n}

    return [
        {
            **one.cell._asdict(), "value": float(one.cell.value), "suspect": one.cell.suspect, "label": one.label,
            "protocol": one.protocol, "theirs": plain(one.theirs), "ours": plain(one.ours), "verdict": one.verdict,
            "reason": one.reason, "run": one.run,
        }
        for one in found
    ]  # fmt: skip
