"""The results that `python -m benchmarks.publish` stored."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@cache
def rows(name: str, method: str) -> list[dict[str, Any]]:
    """The rows of a method in `benchmarks/results/shapes-NAME`: all 512 scenes."""
    with gzip.open(RESULTS / f"shapes-{name}" / "rows.jsonl.gz", "rt") as file:
        found = [row for row in map(json.loads, file) if row["method"] == method]
    assert len(found) == 512
    return found


def mean(name: str, metric: str, method: str, objects: int | None = None) -> float:
    """The mean of a metric where it is defined, over all scenes or those of so many objects."""
    chosen = [row[metric] for row in rows(name, method) if objects in (None, row["objects"])]
    return fmean(value for value in chosen if value is not None)


def interval(name: str, metric: str, method: str) -> tuple[float, float]:
    """The bounds of the 95 % interval of a mean."""
    summary = json.loads((RESULTS / f"shapes-{name}" / "summary.json").read_text())
    found = summary["methods"][method][metric]
    return found["lo"], found["hi"]
