"""The page's comparison of methods in pairs: who wins how often, by how much, and whether that could be chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.benchmark import report
from zoo.benchmark.tables_pairs import LEVEL, SideBySide
from zoo.metrics.comparison import Comparison
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval


def matrices(side: SideBySide) -> list[dict[str, Any]]:
    """For each metric: a matrix of win rates, and every pair in detail."""
    return [
        {"title": report.title(name), "labels": side.labels, "rows": _matrix(side, found), "pairs": _pairs(name, found)}
        for name, found in side.pairs.items()
    ]


def _matrix(side: SideBySide, found: list[Comparison]) -> list[dict[str, Any]]:
    """Rows of cells: how often the row's method beats the column's, and whether that side is the better by the test."""
    place = {label: k for k, label in enumerate(side.labels)}
    cells: list[list[dict[str, str]]] = [[{"text": "", "kind": "self"} for _ in place] for _ in place]
    for one in found:
        a, b = place[one.first], place[one.second]
        for row, column, share, favour in ((a, b, one.wins, one.signed_ranks), (b, a, 1 - one.wins, -one.signed_ranks)):
            cells[row][column] = _cell(share, one.holm_p, favour)
    return [{"label": label, "cells": cells[k]} for label, k in place.items()]


def _cell(share: float, p: float, favour: float) -> dict[str, str]:
    """A method that wins often by little and loses by much can be the worse by signed ranks: that bears no mark."""
    if not math.isfinite(share):
        return {"text": "-", "kind": ""}
    agree = p < LEVEL and (share - 0.5) * favour > 0
    kind = ("win" if share > 0.5 else "loss") if agree else ""
    return {"text": f"{100 * share:.0f} %{'*' if agree else ''}", "kind": kind}


def _pairs(name: str, found: list[Comparison]) -> list[list[str]]:
    header = ["pair", "n", "mean difference [95 % interval]", "bootstrap p", "Wilcoxon p", "Holm p"]
    return [[*header, "wins", "ties", "signed ranks"], *(_pair(name, one) for one in found)]


def _pair(name: str, one: Comparison) -> list[str]:
    chances = [_chance(p) for p in (one.bootstrap_p, one.wilcoxon_p, one.holm_p)]
    shares = [f"{100 * x:.1f} %" if math.isfinite(x) else "-" for x in (one.wins, one.ties)]
    names = f"{one.first} − {one.second}"
    ranks = f"{one.signed_ranks:+.2f}" if math.isfinite(one.signed_ranks) else "-"
    return [names, str(one.difference.n), report.cell(name, one.difference), *chances, *shares, ranks]


def _chance(p: float) -> str:
    if not math.isfinite(p):
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def rank_table(side: SideBySide) -> list[list[str]]:
    """The mean rank of each method by each metric, header first; empty where there is nothing to rank."""
    if not side.ranks:
        return []
    rows = [["method", *(f"{name} {_arrow(name)}".rstrip() for name in side.ranks)]]
    for k, label in enumerate(side.labels):
        rows.append([label, *(_rank(found[k]) for found in side.ranks.values())])
    return rows


def _arrow(name: str) -> str:
    about = definition(name)
    return {"lower": "↓", "higher": "↑"}.get(about.better, "") if about else ""


def _rank(value: Interval) -> str:
    if not value.n or not np.isfinite(value.mean):
        return "-"
    return f"{value.mean:.2f}\n[{value.lo:.2f}, {value.hi:.2f}]"
