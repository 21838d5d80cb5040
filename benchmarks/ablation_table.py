"""The tables of an ablation: means over seeds and images, their intervals, the spread of the seeds; and where they come
from. See `benchmarks.ablation`.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.environment import read_environments
from zoo.benchmark.plan import FILE, Plan
from zoo.benchmark.report import cell, headline, title
from zoo.benchmark.store import constant, read_rows
from zoo.benchmark.summary import META, ordered, summarize
from zoo.errors import DataError
from zoo.metrics.statistics import Interval, interval, paired_difference
from zoo.weights import read_header, sha256, write_atomically

if TYPE_CHECKING:
    from benchmarks.ablation import Job

ROOT = Path(__file__).resolve().parents[1]
Values = dict[str, NDArray[np.float64]]  # by metric: seeds x images, NaN where undefined


def values_of(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Values:
    """The values of one variant.

    Args:
        rows: Of the benchmark, failures apart.
        labels: The variant's trainings, one for each seed.

    Raises:
        DataError: The trainings were not measured on the same images.
    """
    by_label = {label: {row["id"]: row for row in rows if row["method"] == label} for label in labels}
    ids = sorted(by_label[labels[0]])
    if not ids or any(sorted(found) != ids for found in by_label.values()):
        raise DataError("the seeds of a variant were not measured on the same images", ", ".join(labels))
    names = ordered({name for found in by_label.values() for row in found.values() for name in row} - META)
    made = {}
    for name in names:
        found = [[by_label[label][i].get(name) for i in ids] for label in labels]
        made[name] = np.array([[math.nan if v is None else float(v) for v in row] for row in found])
    return made


def figures(values: NDArray[np.float64], against: NDArray[np.float64] | None = None) -> dict[str, Any]:
    """The mean over seeds and images with its interval, and how far the seeds lie apart.

    The interval is the bootstrap over images of their means over seeds; an image that has no value with some seed is
    left out. It holds for these seeds: what others would give, `spread` tells.

    Args:
        values: Seeds x images, NaN where undefined.
        against: The same of another variant; the figures are then those of the paired differences to it.

    Returns:
        `mean`, `lo`, `hi` (None where undefined) and `n`; `seeds`, the mean with each seed; and `spread`, their
        standard deviation with n - 1, None where there are fewer than two.
    """
    if against is None:
        found, each = interval(values.mean(0)), values
    else:
        found, each = paired_difference(values.mean(0), against.mean(0)), values - against
    each = each[:, ~np.isnan(each).any(0)]
    seeds = each.mean(1).tolist() if each.size else []
    spread = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
    numbers = {name: None if math.isnan(v) else v for name, v in zip(("mean", "lo", "hi"), found[:3], strict=True)}
    return {**numbers, "n": found.n, "seeds": seeds, "spread": spread}


def compare(job: Job, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All figures: by variant and metric, and the differences of the other variants to the first."""
    first, *others = job.ablation.variants
    values = {
        v.label: values_of(rows, [job.label(v, seed) for seed in job.seeds]) for v in job.ablation.variants
    }  # fmt: skip
    variants = {label: {name: figures(v) for name, v in found.items()} for label, found in values.items()}
    differences = {
        v.label: {n: figures(found, values[first.label][n]) for n, found in values[v.label].items()} for v in others
    }
    return {"variants": variants, "differences": {"to": first.label, **differences}}


def provenance(job: Job, command: str, folder: Path) -> dict[str, Any]:
    """Where the figures come from: commands, weights, plan, versions and machines."""
    plan = Plan.read(folder)

    def story(path: Path) -> dict[str, Any]:
        return {"sha256": sha256(path), "provenance": read_header(path).provenance}

    trained = {
        variant.label: {
            "title": variant.title,
            "arguments": dict(variant.arguments),
            "trainings": {str(seed): story(job.weights(variant, seed)) for seed in job.seeds},
        }
        for variant in job.ablation.variants
    }
    return {
        "command": command,
        "method": job.ablation.method,
        "steps": job.steps,
        "seeds": list(job.seeds),
        "plan": plan.hash,
        "n": plan.count,
        "versions": plan.metrics,
        "environments": read_environments(folder),
        "shared": {stage: story(job.shared(stage)) for stage in job.ablation.kept},
        "trained": trained,
    }


def markdown(job: Job, facts: Mapping[str, Any], first_line: str) -> str:
    """The tables: the variants, and their differences to the first."""
    ablation, (first, *others) = job.ablation, job.ablation.variants
    columns = [name for name in ablation.metrics if name in facts["variants"][first.label]]
    several = len(job.seeds) > 1
    seeds = f"seed{'s' * several} {', '.join(map(str, job.seeds))}"
    shared = ", ".join(f"`{stage}` ({facts['shared'][stage]['sha256'][:8]})" for stage in ablation.kept)
    head = [
        f"{first_line.partition(';')[0]}; `{job.last}` trained for {job.steps} steps with {seeds} on the same "
        f"{shared}.",
        f"Mean over seeds [95 % interval over images]{' ± standard deviation of the seeds' * several}; plan "
        f"{facts['plan'][:8]}; `{facts['command']}`",
    ]
    rows = [["variant", *map(title, columns)]]
    rows += [[v.title, *(shown(name, facts["variants"][v.label][name]) for name in columns)] for v in ablation.variants]
    parts = ["\n\n".join(head), pipes(rows)]
    if others:
        of = facts["differences"]
        rows = [["variant", *map(title, columns)]]
        rows += [[v.title, *(shown(name, of[v.label][name]) for name in columns)] for v in others]
        parts += [f"Differences to `{first.title}` on the same images and with the same seeds:", pipes(rows)]
    return "\n\n".join(parts) + "\n"


def shown(name: str, found: Mapping[str, Any]) -> str:
    """`mean [low, high] ± spread` with the digits of the metric; a dash where there is no value."""
    if found["mean"] is None:
        return "-"
    text = cell(name, Interval(found["mean"], found["lo"], found["hi"], found["n"]))
    if found["spread"] is None:
        return text
    return f"{text} ± {cell(name, Interval(found['spread'], 0.0, 0.0, 1)).partition(' ')[0]}"


def pipes(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, header first."""
    header, *body = rows
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body))


def write(job: Job, out: Path, command: str, folder: Path) -> str:
    """Writes the results and returns the table.

    Raises:
        DataError: Rows are missing, or there are failures among them.
    """
    summary = summarize(folder)
    if summary.failed or summary.missing:
        what = f"{summary.failed} rows failed and {summary.missing} are missing; nothing is written"
        raise DataError(what, str(folder), "the same command goes on")
    rows = sorted((constant(row) for row in read_rows(folder)), key=lambda row: (row["method"], row["id"]))
    facts = {**provenance(job, command, folder), **compare(job, rows)}
    table = markdown(job, facts, headline(summary)[0])
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    files = {FILE: (folder / FILE).read_text(), "summary.json": json.dumps(facts, indent=2) + "\n"}
    for name, text in {**files, "table.md": table}.items():  # places on this machine say nothing to others
        plain = text.replace(str(job.work.resolve()), job.work.name).replace(f"{ROOT}/", "")
        write_atomically(out / name, plain.encode())
    write_atomically(out / "rows.jsonl.gz", gzip.compress(lines.encode(), mtime=0))
    return table
