"""The page: one self-contained HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.benchmark import edits, report, samples
from zoo.benchmark.environment import read_environments
from zoo.benchmark.masks import Masks
from zoo.benchmark.page_cost import cost
from zoo.benchmark.page_gallery import gallery
from zoo.benchmark.page_pairs import matrices, rank_table
from zoo.benchmark.plan import PROTOCOL
from zoo.benchmark.plots import curves, forest
from zoo.benchmark.published import RULE, Beside, elsewhere, nothing
from zoo.benchmark.published_text import published_grid
from zoo.benchmark.summary import MethodSummary, Summary
from zoo.benchmark.tables import Table
from zoo.benchmark.tables_pairs import SideBySide, shown
from zoo.data.base import OWN
from zoo.metrics.definitions import definition

TEMPLATE = "report.html.j2"
ERRORS = 20  # texts of a method: each image may have one of its own


def render(template: str, content: dict[str, Any]) -> str:
    """A template of this folder with its content; what is not marked as safe is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**content)


def render_page(
    summary: Summary,
    table: Table,
    masks: Masks,
    side: SideBySide,
    published: Sequence[Beside] | None = None,
    seconds: bool = False,
) -> str:
    """The page of a run as HTML; captions and names are escaped, pictures and plots are inside.

    Args:
        summary: Of `summarize`.
        table: Of `read_table`.
        masks: Of `read_masks`.
        side: Of `side_by_side`.
        published: Of `beside`, for a section of the papers' numbers.
        seconds: Show what rows took where there is no cost pass.

    Raises:
        DataError: The cost pass is damaged.
    """
    return render(TEMPLATE, page_content(summary, table, masks, side, published, seconds))


def page_content(
    summary: Summary,
    table: Table,
    masks: Masks,
    side: SideBySide,
    published: Sequence[Beside] | None,
    seconds: bool,
) -> dict[str, Any]:
    """Everything the template shows: plain types, and plots as SVG."""
    plan = summary.plan
    environments = read_environments(summary.folder)
    notices = report.notices(summary)
    if len(environments) > 1:
        notices.append(
            f"computed in {len(environments)} environments (below): values may differ by about 1e-4 between them"
        )
    return {
        "plan": plan,
        "captions": "" if plan.captions == OWN else f", {plan.captions} captions",
        "facts": _facts(summary),
        "methods": _methods(summary),
        "notices": notices,
        "complete": not (summary.failed or summary.missing),
        "main_rows": _weights_last(report.grid(summary, "\n")),
        "samples_title": report.samples_title(summary),
        "samples": report.samples_grid(summary, "\n"),
        "control": edits.control(summary),
        "edits": edits.edits_grid(summary, "\n"),
        "everything": _weights_last(report.grid(summary, "\n", summary.metrics)),
        "charts": _charts(summary),
        "curves": _curves(side),
        "cost": cost(summary, table, seconds),
        "published": _published(summary, published),
        "matrices": matrices(side),
        "ranks": rank_table(side),
        "objects": report.objects_grid(summary),
        "paired": report.paired_grid(summary) if summary.differences else [],
        "gallery": gallery(summary, table, masks),
        "skipped": [[", ".join(names), why] for why, names in report.skipped(summary).items()],
        "errors": [_errors(label, method) for label, method in summary.methods.items() if method.errors],
        "definitions": _definitions(summary),
        "plan_text": json.dumps(asdict(plan), indent=2, sort_keys=True),
        "environment_text": json.dumps(environments, indent=2),
    }


def _weights_last(rows: list[list[str]]) -> list[list[str]]:
    """The table with its longest column at the end, so that a phone shows values beside the names of methods."""
    return [[name, *values, weights] for name, weights, *values in rows]


def _facts(summary: Summary) -> list[tuple[str, str]]:
    plan = summary.plan
    facts = [
        ("data", f"{plan.dataset}, {plan.split}"),
        ("mask", f"{plan.mask}, seed {plan.mask_seed}"),
        ("size", f"{plan.size} x {plan.size}"),
        ("images", str(plan.count)),
        ("batch", f"{plan.batch_size}, {plan.precision}, {plan.accelerator}"),
        ("plan", plan.hash[:8]),
        ("zoo", plan.version),
    ]
    if plan.protocol != PROTOCOL:
        facts.append(("protocol", plan.protocol))
    if plan.captions != OWN:
        facts.append(("captions", plan.captions))
    if plan.samples:
        facts.append(("samples", f"{plan.samples} of each image"))
    return [*facts, ("shown whole", " and ".join(plan.guidance))] if plan.guidance else facts


def _methods(summary: Summary) -> list[list[str]]:
    """Which weights each method ran with, header first."""
    rows = [["method", "class", "weights", "sha256"]]
    for method in summary.plan.methods:
        rows.append([method.label, method.class_path, report.weights(method), method.weights_sha256[:16] or "-"])
    return rows


def _errors(label: str, method: MethodSummary) -> tuple[str, list[tuple[str, int]], int, int]:
    """The most frequent errors of a method, the failures in all, and how many other texts there are."""
    texts = list(method.errors.items())
    return label, texts[:ERRORS], method.failed, len(texts[ERRORS:])


def _charts(summary: Summary) -> list[dict[str, str]]:
    """The intervals of each metric; `truth` is left off: its perfect score would squeeze the others together."""
    labels = shown(summary)
    found = []
    for name in summary.main:
        values = {a: value for a in labels if (value := summary.methods[a].metrics.get(name)) is not None}
        found.append({"title": report.title(name), "svg": forest(values, labels, f"mean-{name}")})
    return [chart for chart in found if chart["svg"]]


def _curves(side: SideBySide) -> list[dict[str, str]]:
    found = [
        {"title": report.title(name), "svg": curves(name, bands, side.labels, f"hole-{name}")}
        for name, bands in side.bands.items()
    ]
    return [curve for curve in found if curve["svg"]]


def _published(summary: Summary, found: Sequence[Beside] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    places = [[paper, setting, method, str(count)] for paper, setting, method, count in elsewhere(summary)]
    protocols = {one.cell.paper: one.protocol for one in found}
    return {
        "rule": RULE,
        "rows": published_grid(list(found)) if found else [],
        "protocols": list(protocols.items()),
        "nothing": nothing(summary, found),
        "elsewhere": [["paper", "measured on", "method", "values"], *places] if places else [],
    }


def _definitions(summary: Summary) -> list[tuple[str, str]]:
    found = [(report.title(name), _definition(name)) for name in summary.metrics]
    several = summary.plan.samples > 0
    return [*found, *([(samples.DIVERSITY, samples.DIVERSITY_DEFINITION.text)] if several else [])]


def _definition(name: str) -> str:
    found = definition(name)
    return found.text if found else "defined by the dataset"
