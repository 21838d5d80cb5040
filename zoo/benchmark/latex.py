"""The table in LaTeX, with the rules of `booktabs`."""

from __future__ import annotations

import math
import re

from zoo.benchmark import report
from zoo.benchmark.summary import Summary
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\n": " ",
    "\r": " ",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex(summary: Summary) -> str:
    """The main table as a `table` environment: means with their intervals, the best value of a column in bold.

    The control `truth` takes no part in what is best. Notices stand above as comments.
    """
    names = summary.main
    header, *rows = report.grid(summary)
    fixed = len(header) - len(names)
    best = {name: _best(summary, name) for name in names}
    lines = []
    for row, (label, method) in zip(rows, summary.methods.items(), strict=True):
        cells = [_cell(name, method.metrics.get(name), method.n, label in best[name]) for name in names]
        lines.append(" & ".join([*map(escape, row[:fixed]), *cells]) + r" \\")
    about = [f"% {line}" for text in report.notices(summary) for line in re.split(r"[\r\n]+", text)]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            *about,
            r"\begin{table}",
            r"\centering\small",
            rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}",
            r"\toprule",
            " & ".join(map(escape, header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{escape(report.headline(summary)[0])}}}",
            r"\end{table}",
            "",
        ]
    )


def _cell(name: str, value: Interval | None, n: int, bold: bool) -> str:
    if value is None or value.n == 0:
        return "--"
    mean = report.cell(name, value).partition(" ")[0]
    ends = report.counted(name, value, n).removeprefix(mean).lstrip(", ")
    text = rf"\textbf{{{mean}}}" if bold else mean
    return rf"{text} {{\scriptsize {ends}}}" if ends else text


def _best(summary: Summary, name: str) -> set[str]:
    """The methods whose value is the best of a column, as it is printed; none where neither side is better."""
    about = definition(name)
    if about is None or about.better == "none":
        return set()
    means = {
        label: round(value.mean, about.digits)
        for label, method in summary.methods.items()
        if method.method.name != "truth" and (value := method.metrics.get(name)) is not None
        and value.n and math.isfinite(value.mean)
    }  # fmt: skip
    if len(means) < 2:
        return set()
    top = min(means.values()) if about.better == "lower" else max(means.values())
    return {label for label, mean in means.items() if mean == top}
