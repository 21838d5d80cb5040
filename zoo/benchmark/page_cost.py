"""The page's cost: what the cost pass measured, or, where it is asked for, what rows took; and quality against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.benchmark.cost import SECONDS
from zoo.benchmark.plots import Costed, against_cost, metric_title
from zoo.benchmark.summary import Summary
from zoo.benchmark.tables import Table
from zoo.benchmark.tables_cost import cost_grid, read_costs
from zoo.benchmark.tables_pairs import shown
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
    note, methods = read_costs(summary)
    if note:
        what = "median seconds per image"
        times = {label: float(facts.get(SECONDS, math.nan)) for label, facts in methods.items()}
        return {"note": note, "rows": cost_grid(methods), "plots": _plots(summary, times, what)}
    if not seconds or "seconds" not in table.values:
        return None
    times = {label: _median(table, label) for label in summary.methods}
    note = (
        "Median of the seconds that rows took, on whatever machines measured them, in batches and beside other work: "
        "another run gives other numbers."
    )
    rows = [["method", "seconds per image"], *([label, f"{time:.4g}"] for label, time in times.items())]
    return {"note": note, "rows": rows, "plots": _plots(summary, times, "median seconds per image, as rows were timed")}


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
