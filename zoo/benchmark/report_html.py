"""The page: one self-contained HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark import report, samples
from zoo.benchmark.environment import read_environments
from zoo.benchmark.gallery import FIRST, ORDER_BY, TRUTH, encode_png, read_picture
from zoo.benchmark.masks import read_masks
from zoo.benchmark.store import Row, by_method, failed, read_rows
from zoo.benchmark.strip import hide_grey, shown
from zoo.benchmark.summary import MAIN, Summary
from zoo.data.base import OWN
from zoo.metrics.definitions import DEFINITIONS

TEMPLATE = "report.html.j2"
GALLERY_ROWS = 8
WORST_SHOWN = 5


def render_page(summary: Summary) -> str:
    """The page of a run as HTML; captions and names are escaped, pictures are inside as data URIs."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(**page_content(summary))


def page_content(summary: Summary) -> dict[str, Any]:
    """Everything the template shows, plain types."""
    plan, rows = summary.plan, read_rows(summary.folder)
    masks = read_masks(summary.folder)
    captions = {row["id"]: row["caption"] for row in rows if row.get("caption")}
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
        "headline": report.headline(summary)[0],
        "notices": notices,
        "main_rows": report.grid(summary),
        "samples_title": report.samples_title(summary),
        "samples": report.samples_grid(summary),
        "everything": report.grid(summary, names=summary.metrics),
        "charts": [chart(summary, name) for name in MAIN if name in summary.metrics],
        "objects": report.objects_grid(summary),
        "paired": report.paired_grid(summary) if summary.differences else [],
        "gallery": _gallery(summary, masks, captions),
        "worst": _worst(summary, masks, captions, rows),
        "errors": [(label, m.errors) for label, m in summary.methods.items() if m.errors],
        "definitions": _definitions(summary),
        "plan_text": json.dumps(asdict(plan), indent=2, sort_keys=True),
        "environment_text": json.dumps(environments, indent=2),
    }


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
    if plan.captions != OWN:
        facts.append(("captions", plan.captions))
    if plan.samples:
        facts.append(("samples", f"{plan.samples} of each image"))
    return [*facts, ("shown whole", " and ".join(plan.guidance))] if plan.guidance else facts


def _definitions(summary: Summary) -> list[tuple[str, str]]:
    found = [(report.title(name), _definition(name)) for name in summary.metrics]
    several = summary.plan.samples > 0
    return [*found, *([(samples.DIVERSITY, samples.DIVERSITY_DEFINITION.text)] if several else [])]


def _definition(name: str) -> str:
    return DEFINITIONS[name].text if name in DEFINITIONS else "defined by the dataset"


def chart(summary: Summary, name: str) -> dict[str, Any]:
    """One metric as bars on a common axis: positions in percent of the axis, which spans all intervals.

    The control `truth` is left off: its perfect score would squeeze the others together.
    """
    found = {
        label: value
        for label, m in summary.methods.items()
        if m.method.name != "truth" and (value := m.metrics.get(name)) is not None and value.n
    }
    low = min((v.lo for v in found.values()), default=0.0)
    high = max((v.hi for v in found.values()), default=1.0)
    margin = 0.06 * (high - low) or 0.5
    low, high = max(low - margin, min(low, 0.0)), high + margin  # no axis below zero for what is never negative

    def place(x: float) -> float:
        return round(100 * (x - low) / (high - low), 2)

    digits = DEFINITIONS[name].digits if name in DEFINITIONS else 4
    bars = [
        {
            "label": label,
            "left": place(v.lo),
            "width": max(0.4, round(place(v.hi) - place(v.lo), 2)),
            "mean": place(v.mean),
            "text": f"{v.mean:.{digits}f}",
            "full": report.cell(name, v),
        }
        for label, v in found.items()
    ]
    ends = [f"{low:.{digits}f}", f"{high:.{digits}f}"]
    return {"title": report.title(name), "bars": bars, "ends": ends}


# --- pictures --------------------------------------------------------------------------------------------------------


def data_uri(image: NDArray[np.uint8] | None) -> str:
    """An image as a data URI; empty where there is none."""
    return "" if image is None else "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def _gallery(summary: Summary, masks: Mapping[str, NDArray[np.uint8]], captions: Mapping[str, str]) -> dict[str, Any]:
    """The first images: the input, every method, the truth."""
    plan, folder = summary.plan, summary.folder
    labels = shown(plan)
    files = {method.label: method.file_name for method in plan.methods}
    lines: list[dict[str, Any]] = []
    for sample in list(masks)[:FIRST]:
        truth = read_picture(folder, TRUTH, sample)
        if truth is not None and len(lines) < GALLERY_ROWS:
            made = [read_picture(folder, files[label], sample) for label in labels]
            images = [hide_grey(truth, masks[sample]), *made, truth]
            lines.append(
                {"id": sample, "caption": captions.get(sample, ""), "images": [data_uri(image) for image in images]}
            )
    return {"titles": ["input", *labels, "truth"], "lines": lines}


def _worst(
    summary: Summary, masks: Mapping[str, NDArray[np.uint8]], captions: Mapping[str, str], rows: list[Row]
) -> list[dict[str, Any]]:
    """For each method its images of largest hole L1: input, output, truth."""
    groups = by_method(rows)
    found = []
    for method in summary.plan.methods:
        if method.name == "truth":
            continue
        good = [r for r in groups.get(method.label, []) if not failed(r) and r.get(ORDER_BY) is not None]
        cases: list[dict[str, Any]] = []
        for row in sorted(good, key=lambda row: (-row[ORDER_BY], row["id"])):
            made = read_picture(summary.folder, method.file_name, row["id"])
            truth = read_picture(summary.folder, TRUTH, row["id"])
            if made is None or truth is None or row["id"] not in masks:
                continue
            images = [data_uri(image) for image in (hide_grey(truth, masks[row["id"]]), made, truth)]
            value = f"{row[ORDER_BY]:.3f}" if math.isfinite(row[ORDER_BY]) else "-"
            caption = captions.get(row["id"], "")
            cases.append({"id": row["id"], "value": value, "caption": caption, "images": images})
            if len(cases) == WORST_SHOWN:
                break
        if cases:
            found.append({"label": method.label, "cases": cases})
    return found
