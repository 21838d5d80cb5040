"""The page's cost: what the cost pass measured, or, where it is asked for, what the rows took; and quality against it.

A cost pass leaves `RUN/cost.json` (`zoo.benchmark.cost`): `{"device": text, "methods": {method: {fact: number}}}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.benchmark.cost import DEFINITIONS, FACTS, FILE, SECONDS
from zoo.benchmark.plots import Costed, against_cost, metric_title
from zoo.benchmark.store import read_json
from zoo.benchmark.summary import Summary
from zoo.benchmark.tables import Table
from zoo.benchmark.tables_pairs import shown
from zoo.errors import DataError
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

SHOWN = ("l1_hole", "psnr", "ssim", "lpips_alex", "fid_tf", "colour_fidelity")  # the first three of them that are there
MOST = 3


def cost(summary: Summary, table: Table, seconds: bool) -> dict[str, Any] | None:
    """What the template shows of cost; None where nothing was measured.

    Args:
        summary: Of `summarize`.
        table: The rows.
        seconds: Without a cost pass, take the seconds that rows took.

    Raises:
        DataError: `cost.json` is damaged.
    """
    path = summary.folder / FILE
    if path.is_file():
        content = _read(path)
        methods = {label: content["methods"].get(label, {}) for label in summary.methods}
        failed = "".join(f" Not measured: {label} ({why})." for label, why in content.get("failed", {}).items())
        note = f"Measured in a pass of its own{_device(content)}. {DEFINITIONS}{failed}"
        what = "median seconds per image"
        times = {label: float(facts.get(SECONDS, math.nan)) for label, facts in methods.items()}
        return {"note": note, "rows": _facts(methods), "plots": _plots(summary, times, what)}
    if not seconds or "seconds" not in table.values:
        return None
    times = {label: _median(table, label) for label in summary.methods}
    note = (
        "Median of the seconds that rows took, on whatever machines measured them, in batches and beside other work: "
        "another run gives other numbers."
    )
    rows = [["method", "seconds per image"], *([label, f"{time:.4g}"] for label, time in times.items())]
    return {"note": note, "rows": rows, "plots": _plots(summary, times, "median seconds per image, as rows were timed")}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
        methods = content["methods"]
        if not all(isinstance(x, int | float) for facts in methods.values() for x in facts.values()):
            raise TypeError("a fact is not a number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"this is no record of a cost pass: {error}", str(path), "measure the cost again") from error
    return content


def _device(content: Mapping[str, Any]) -> str:
    """Where, and with what, as far as the record says."""
    threads = f"{content['threads']} thread{'s' * (content['threads'] != 1)}" if content.get("threads") else ""
    parts = [f"on {content['device']}" if content.get("device") else "", threads]
    parts += [f"torch {content['torch']}" if content.get("torch") else ""]
    parts += [f"{content['repeats']} repeats" if content.get("repeats") else ""]
    return "".join(f", {part}" for part in parts if part)


def _facts(methods: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    there = {name for facts in methods.values() for name in facts}
    names = [name for name in FACTS if name in there] + sorted(there - FACTS.keys())
    header = ["method", *(FACTS.get(name, name) for name in names)]
    return [header, *([label, *(_number(facts.get(name)) for name in names)] for label, facts in methods.items())]


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _median(table: Table, label: str) -> float:
    column = table.columns("seconds", [label])[label]
    column = column[np.isfinite(column)]
    return float(np.median(column)) if len(column) else math.nan


def _plots(summary: Summary, times: Mapping[str, float], what: str) -> list[dict[str, str]]:
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    names = [name for name in SHOWN if name in summary.metrics and (found := definition(name)) and found.better]
    plots = []
    for name in names[:MOST]:
        points = [Costed(a, times[a], summary.methods[a].metrics.get(name, nothing)) for a in shown(summary)]
        svg = against_cost(name, points, f"cost-{name}", what)
        plots.append({"title": f"{metric_title(name)} against cost", "svg": svg})
    return [plot for plot in plots if plot["svg"]]
