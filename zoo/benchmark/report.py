"""The tables of a run as cells: for the terminal, in Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.benchmark import edits, samples
from zoo.benchmark.plan import PROTOCOL, MethodPlan, ordered
from zoo.benchmark.plots import metric_title as title
from zoo.benchmark.summary import Summary
from zoo.benchmark.tables_cost import cost_grid, read_costs
from zoo.data.base import OWN
from zoo.metrics.definitions import definition
from zoo.metrics.statistics import Interval

__all__ = ["cell", "grid", "headline", "markdown", "notices", "render_table", "table_csv", "title"]

WIDTH = 100


def render_table(summary: Summary, width: int = WIDTH) -> str:
    """The table as text: what was compared, then one line per method, `mean [low, high]`; then the samples' table.

    Args:
        summary: Of `summarize`.
        width: Columns of the terminal; intervals move below their means where one line each does not fit.
    """
    lines = [*headline(summary), *notices(summary), "", *_text_table(partial(grid, summary), width)]
    if samples_grid(summary):
        lines += ["", samples_title(summary), *_text_table(partial(samples_grid, summary), width)]
    if edits.edits_grid(summary):
        lines += ["", edits.control(summary), *_text_table(partial(edits.edits_grid, summary), width)]
    note, costs = read_costs(summary)
    if note:
        lines += ["", "cost (table.md says how it was measured)", *_text_table(lambda _: cost_grid(costs), width)]
    return "\n".join(lines).rstrip() + "\n"


def _text_table(cells: Callable[[str], list[list[str]]], width: int) -> list[str]:
    """The lines of a table; `cells` is given what stands between a mean and its interval."""
    from rich.console import Console

    for separator in (" ", "\n"):
        table = _rich_table(cells(separator))
        wide = Console(width=10_000, file=io.StringIO())
        natural = wide.measure(table).maximum
        if natural <= width:
            break
    text = io.StringIO()
    Console(width=max(width, natural), file=text, color_system=None, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip().split("\n")


def _rich_table(cells: list[list[str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    header, *rows = cells
    for number, text in enumerate(header):
        table.add_column(Text(text), no_wrap=True, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: a label or a setting in brackets is no markup
    return table


def headline(summary: Summary) -> list[str]:
    """What was measured, in one line."""
    plan = summary.plan
    guidance = f", guided by {' and '.join(plan.guidance)}" if plan.guidance else ""
    captions = f", captions {plan.captions}" if plan.captions != OWN else ""
    protocol = f", protocol {plan.protocol}" if plan.protocol != PROTOCOL else ""
    return [
        f"{plan.dataset} ({plan.split}), mask {plan.mask}{captions}, {plan.size}x{plan.size}, n = {plan.count} images"
        f"{guidance}{protocol}; mean [95 % interval]"
    ]


def notices(summary: Summary) -> list[str]:
    """What a reader must know before believing the table: incomplete, failed, unedited, left out, other weights."""
    plan, found = summary.plan, []
    if summary.missing:
        found.append(f"INCOMPLETE: {summary.missing} rows are missing; the same command goes on")
    for label, method in summary.methods.items():
        if method.failed:
            found.append(f"FAILED: {label} on {method.failed} of {plan.count} images: {next(iter(method.errors))}")
    if summary.unedited:
        where = "fidelity" if "colour_fidelity" in summary.metrics else "how far methods moved"
        found.append(
            f"captions not edited: {summary.unedited} of {plan.count} images (their rows say why); "
            f"they do not count in {where}"
        )
    found += edits.warnings(summary)
    strangers = sorted({weights(m) for m in plan.methods if m.trained_on and m.trained_on != plan.dataset})
    found += [f"weights from other data: {text}" for text in strangers]
    found += [f"left out: {name} ({why})" for name, why in plan.left_out.items()]
    found += [f"skipped: {', '.join(names)} ({why})" for why, names in skipped(summary).items()]
    return found


def skipped(summary: Summary) -> dict[str, list[str]]:
    """The metrics that were asked for and are not measured, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, why in summary.skipped.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def weights(method: MethodPlan) -> str:
    """Preset, training data and file of a method's weights in a few words: `nano, trained on shapes (b4416494)`.

    The start of the file's SHA-256 tells two files of one preset apart, such as a run of one's own and what ships.
    Settings that were changed follow: `..., k=1`.
    """
    changed = [f"{name}={value}" for name, value in sorted(method.settings.items())]
    return ", ".join([*([_origin(method)] if method.weights_sha256 or not changed else []), *changed])


def _origin(method: MethodPlan) -> str:
    story = f"{method.preset}, trained on {method.trained_on}" if method.trained_on else method.preset
    return f"{story} ({method.weights_sha256[:8]})" if method.weights_sha256 else "-"


def cell(name: str, value: Interval | None, separator: str = " ") -> str:
    """`mean [low, high]` with the digits of the metric's definition; a dash where there is no value.

    A metric of sets may have a value and no interval.
    """
    if value is None or value.n == 0:
        return "-"
    about = definition(name)
    digits = about.digits if about else 4
    if not (math.isfinite(value.lo) and math.isfinite(value.hi)):
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f}{separator}[{value.lo:.{digits}f}, {value.hi:.{digits}f}]"


def counted(name: str, value: Interval | None, n: int = 0, separator: str = " ") -> str:
    """A cell that says its own number of images where that is not the n of its line: not every metric counts them all.

    Args:
        name: The metric.
        value: Its value.
        n: What the line says; 0 where it says nothing.
        separator: Between the mean, its interval and the number, which a comma stands before on the same line.
    """
    text = cell(name, value, separator)
    if value is None or value.n in (0, n):
        return text
    return f"{text}{', ' if separator == ' ' else separator}n = {value.n}"


def grid(summary: Summary, separator: str = " ", names: list[str] | None = None) -> list[list[str]]:
    """The table as cells, header first."""
    names = summary.main if names is None else names
    some_failed = summary.failed > 0
    header = ["method", "weights", "n", *(["failed"] if some_failed else []), *map(title, names)]
    rows = [header]
    for label, method in summary.methods.items():
        counts = [str(method.n), *([str(method.failed)] if some_failed else [])]
        values = [counted(name, method.metrics.get(name), method.n, separator) for name in names]
        rows.append([label, weights(method.method), *counts, *values])
    return rows


def samples_title(summary: Summary) -> str:
    """What the samples' table shows, so that nobody takes its best for a method's result."""
    n = summary.plan.samples
    return f"{n} samples per image: mean, oracle best of {n} (chosen with the truth), diversity"


def samples_grid(summary: Summary, separator: str = " ") -> list[list[str]]:
    """Two lines per stochastic method, mean and oracle best, header first; empty where nothing was sampled."""
    found = {label: method.samples for label, method in summary.methods.items() if method.samples}
    if not found:
        return []
    n = summary.plan.samples
    names = [name for name in samples.MEASURED if any(name in several.metrics for several in found.values())]
    rows = [["method", "samples", "n", *map(title, names), samples.DIVERSITY]]
    for label, several in found.items():
        spread = counted(samples.DIVERSITY, several.diversity, several.n, separator)
        for way, text, last in ((samples.MEAN, f"mean of {n}", spread), (samples.BEST, f"oracle best of {n}", "")):
            values = [counted(name, several.metrics.get(name, {}).get(way), several.n, separator) for name in names]
            rows.append([label, text, str(several.n), *values, last])
    return rows


# --- files -----------------------------------------------------------------------------------------------------------


def markdown(summary: Summary) -> str:
    """The table in Markdown, head and notices as on the terminal, then samples, fidelity, differences and cost."""
    parts = ["\n\n".join(map(_escape, [*headline(summary), *notices(summary)])), _pipes(grid(summary))]
    several = samples_grid(summary)
    if several:
        parts.append(f"{samples_title(summary)}:\n\n" + _pipes(several))
    moved = edits.edits_grid(summary)
    if moved:
        parts.append(f"Against the images' own captions. {edits.control(summary)}\n\n" + _pipes(moved))
    objects = objects_grid(summary)
    if objects:
        parts.append("By the number of objects in the scene:\n\n" + _pipes(objects))
    if summary.differences:
        parts.append("Paired differences on the same images (method minus control):\n\n" + _pipes(paired_grid(summary)))
    note, costs = read_costs(summary)
    if note:
        parts.append(f"Cost. {_escape(note)}\n\n" + _pipes(cost_grid(costs)))
    return "\n\n".join(parts) + "\n"


def objects_grid(summary: Summary) -> list[list[str]]:
    """Fidelity by the number of objects, `mean [low, high], n`, header first; empty where the data has no judge."""
    found = [(m.by_objects, label) for label, m in summary.methods.items() if m.by_objects]
    if not found:
        return []
    there = {(name, number) for groups, _ in found for name, group in groups.items() for number in group}
    names = ordered({name for name, _ in there})
    columns = sorted(there, key=lambda column: (names.index(column[0]), column[1]))
    header = ["method", *(f"{name}, {number} object{'s' * (number > 1)}" for name, number in columns)]
    rows = [[label, *(counted(name, groups.get(name, {}).get(k)) for name, k in columns)] for groups, label in found]
    return [header, *rows]


def paired_grid(summary: Summary) -> list[list[str]]:
    """The paired differences, header first."""
    rows = [
        [d.metric, f"{d.method} - {d.against}", str(d.value.n), cell(d.metric, d.value)] for d in summary.differences
    ]
    return [["metric", "difference", "n", "mean [95 % interval]"], *rows]


def _pipes(rows: list[list[str]]) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(_escape(text) for text in line) + " |" for line in lines)


def _escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = re.sub(r"[\\`*|]", r"\\\g<0>", text).replace("](", "]\\(").replace("<", "&lt;")
    return re.sub(r"[\r\n]+", " ", text)


def table_csv(summary: Summary) -> str:
    """Every metric of every method, one line each; then fidelity by the number of objects, which `objects` holds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "preset", "trained_on", "metric", "mean", "lo", "hi", "n", "failed", "objects"])
    for label, method in summary.methods.items():
        lines = [(name, value, "") for name, value in method.metrics.items()]
        lines += [(name, value, str(k)) for name, group in method.by_objects.items() for k, value in group.items()]
        for name, value, objects in lines:
            numbers = [repr(x) if math.isfinite(x) else "" for x in value[:3]]
            about = [label, method.method.preset, method.method.trained_on, name]
            writer.writerow([*about, *numbers, value.n, method.failed, objects])
    return text.getvalue()
