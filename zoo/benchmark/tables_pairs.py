"""Methods side by side on the images that they share: pairs, ranks, and metrics against the hole's share."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from zoo.benchmark.summary import Summary
from zoo.benchmark.tables import Table
from zoo.metrics.comparison import Band, Better, Comparison, bands, compare, ranks
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

LEVEL = 0.05


@dataclass(frozen=True)
class SideBySide:
    """What a run says of its methods on the same images.

    Attributes:
        labels: The methods compared, in the order of the plan; the control `truth`, which nothing can beat, is not.
        pairs: By metric, every two methods; Holm's adjustment is over the pairs of one metric.
        ranks: By metric, the mean rank of each method, over the images that all with a value have one for.
        bands: By metric, the means by the hole's share of the image, a value per method; empty where no share is known.
    """

    labels: tuple[str, ...]
    pairs: dict[str, list[Comparison]]
    ranks: dict[str, list[Interval]]
    bands: dict[str, list[Band]]


def shown(summary: Summary) -> tuple[str, ...]:
    """Labels of the methods to be compared: all but the control `truth`."""
    return tuple(method.label for method in summary.plan.methods if method.name != "truth")


def side_by_side(summary: Summary, table: Table) -> SideBySide:
    """Compares methods by each metric of single images that the table shows and that has a better side."""
    labels = shown(summary)
    better: dict[str, Better] = {}
    for name in summary.main:
        found = definition(name)
        if found is not None and found.better != "none" and name in table.values:
            better[name] = found.better
    columns = {name: table.columns(name, labels) for name in better}
    several = {name: way for name, way in better.items() if len(labels) > 1}
    return SideBySide(
        labels,
        {name: compare(columns[name], way) for name, way in several.items()},
        {name: ranks(columns[name], way) for name, way in several.items()},
        _bands(table, labels, list(better)),
    )


def _bands(table: Table, labels: tuple[str, ...], names: list[str]) -> dict[str, list[Band]]:
    known = np.isfinite(table.ratios)
    if not (names and labels and known.any()):
        return {}
    values = np.concatenate([np.stack(list(table.columns(name, labels).values()), 1)[known] for name in names], 1)
    found = bands(values, table.ratios[known])  # one call: the resamples of a band serve all metrics
    width = len(labels)
    return {
        name: [Band(b.low, b.high, b.values[k * width : (k + 1) * width]) for b in found if any(v.n for v in b.values)]
        for k, name in enumerate(names)
    }


def pairs_csv(side: SideBySide) -> str:
    """Every pair by every metric, one line each."""
    fields = ["difference", "lo", "hi", "n", "bootstrap_p", "wilcoxon_p", "holm_p", "wins", "ties", "signed_ranks"]
    lines = [["metric", "first", "second", *fields]]
    for name, found in side.pairs.items():
        for one in found:
            value = one.difference
            rest = (one.bootstrap_p, one.wilcoxon_p, one.holm_p, one.wins, one.ties, one.signed_ranks)
            lines.append([name, one.first, one.second, *map(_plain, value[:3]), str(value.n), *map(_plain, rest)])
    return _csv(lines)


def bands_csv(side: SideBySide) -> str:
    """Every metric of every method by the hole's share of the image, one line each."""
    lines = [["metric", "method", "above", "to", "mean", "lo", "hi", "n"]]
    for name, found in side.bands.items():
        for band in found:
            for label, value in zip(side.labels, band.values, strict=True):
                limits = [f"{band.low:g}", f"{band.high:g}"]
                lines.append([name, label, *limits, *map(_plain, value[:3]), str(value.n)])
    return _csv(lines)


def _plain(number: float) -> str:
    return repr(float(number)) if np.isfinite(number) else ""


def _csv(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
