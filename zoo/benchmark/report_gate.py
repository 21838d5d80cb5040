"""`--fail-below`: whether the methods of a run are at least as good as they have to be."""

from __future__ import annotations

import math
from typing import NamedTuple

from zoo.benchmark.summary import Summary
from zoo.errors import UsageError, unknown_name
from zoo.metrics.definitions import definition

EXAMPLE = "such as --fail-below psnr=25,cma:colour_fidelity=0.9"


class Bound(NamedTuple):
    """The value that a metric must reach: of one method, or of every trained one where `method` is empty."""

    method: str
    metric: str
    value: float


def parse_bounds(text: str) -> list[Bound]:
    """The bounds of `[METHOD:]METRIC=VALUE,...`.

    Raises:
        UsageError: The text is not of this form, or a metric has no better side.
    """
    bounds = []
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        method, _, metric = name.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (equals and metric and math.isfinite(value)):
            raise UsageError(f"'{part.strip()}' is not METRIC=VALUE or METHOD:METRIC=VALUE", remedy=EXAMPLE)
        bounds.append(Bound(method, metric, value))
    return bounds


def misses(summary: Summary, bounds: list[Bound]) -> list[str]:
    """What is not good enough, one line each; empty where everything is.

    Higher metrics must be at least the value, lower ones at most. A method without a value, or with failures or missing
    rows, is not good enough: its mean is over other images.

    Raises:
        UsageError: A bound names a method or a metric that the run does not have, or a metric without a better side.
    """
    found = []
    for bound in bounds:
        about = definition(bound.metric)
        # Where every image failed nothing was measured, and a metric's name is a name all the same.
        if bound.metric not in summary.metrics and (summary.metrics or about is None):
            raise unknown_name("metric of this run", bound.metric, summary.metrics)
        if about is None or about.better == "none":
            raise UsageError(f"neither side of '{bound.metric}' is better", remedy=EXAMPLE)
        for label in _labels(summary, bound):
            problem = _problem(summary, label, bound, about.better == "higher", about.digits)
            found += [f"{label}: {problem}"] if problem else []
    return found


def _labels(summary: Summary, bound: Bound) -> list[str]:
    if bound.method:
        if bound.method not in summary.methods:
            raise unknown_name("method of this run", bound.method, list(summary.methods))
        return [bound.method]
    trained = [label for label, method in summary.methods.items() if not method.method.control]
    if not trained:
        raise UsageError("this run has controls only", remedy="name one: --fail-below telea:psnr=20")
    return trained


def _problem(summary: Summary, label: str, bound: Bound, higher: bool, digits: int) -> str:
    method = summary.methods[label]
    value = method.metrics.get(bound.metric)
    if method.failed or method.missing:
        return f"{method.failed} images failed and {method.missing} are missing"
    if value is None or not math.isfinite(value.mean):
        return f"{bound.metric} has no value"
    good = value.mean >= bound.value if higher else value.mean <= bound.value
    side = "below" if higher else "above"
    return "" if good else f"{bound.metric} {value.mean:.{digits}f} is {side} {bound.value:g}"
