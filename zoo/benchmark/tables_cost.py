"""What the cost pass measured, as a table: for the page and in Markdown.

A cost pass leaves `RUN/cost.json` (`zoo.benchmark.cost`): `{"device": text, "methods": {method: {fact: number}}}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.benchmark.cost import DEFINITIONS, FACTS, FILE
from zoo.benchmark.store import read_json
from zoo.benchmark.summary import Summary
from zoo.errors import DataError

Costs = Mapping[str, Mapping[str, float]]


def read_costs(summary: Summary) -> tuple[str, Costs]:
    """What is to be known of the facts, and the facts of every method of the run; "" and nothing without a cost pass.

    Raises:
        DataError: `cost.json` is damaged.
    """
    path = summary.folder / FILE
    if not path.is_file():
        return "", {}
    content = _read(path)
    methods = {label: content["methods"].get(label, {}) for label in summary.methods}
    failed = "".join(f" Not measured: {label} ({why})." for label, why in content.get("failed", {}).items())
    return f"Measured in a pass of its own{_device(content)}. {DEFINITIONS}{failed}", methods


def cost_grid(methods: Costs) -> list[list[str]]:
    """The facts as cells, header first."""
    there = {name for facts in methods.values() for name in facts}
    names = [name for name in FACTS if name in there] + sorted(there - FACTS.keys())
    header = ["method", *(FACTS.get(name, name) for name in names)]
    return [header, *([label, *(_number(facts.get(name)) for name in names)] for label, facts in methods.items())]


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


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
