"""The files of a report, beside the rows of its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from zoo.benchmark.latex import latex
from zoo.benchmark.masks import read_masks
from zoo.benchmark.plan import Plan
from zoo.benchmark.published import Beside, beside
from zoo.benchmark.published_text import published_csv
from zoo.benchmark.report import markdown, table_csv
from zoo.benchmark.report_html import render_page
from zoo.benchmark.store import write_whole
from zoo.benchmark.strip import strip_of_run
from zoo.benchmark.summary import Summary, summarize_table, to_json
from zoo.benchmark.tables_pairs import bands_csv, pairs_csv, side_by_side
from zoo.benchmark.tables_parquet import require_pyarrow, write_parquet
from zoo.benchmark.tables_read import read_table


class Report(NamedTuple):
    """A report that was written.

    Attributes:
        summary: Of `summarize`.
        files: Their paths.
        published: Of `beside`, where it was asked for.
    """

    summary: Summary
    files: list[Path]
    published: list[Beside]


def tables_of(summary: Summary) -> dict[str, bytes]:
    """The files that follow from plan, rows and cost alone: no masks or pictures are needed to make them anew."""
    facts = to_json(summary) | {"run": summary.plan.name}
    return {
        "summary.json": (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode(),
        "table.md": markdown(summary).encode(),
        "table.csv": table_csv(summary).encode(),
    }


def write_report(
    folder: str | Path, *, against: bool = False, seconds: bool = False, parquet: bool = False
) -> list[Path]:
    """Writes all files of the report beside the rows, and gives their paths; see `make_report`."""
    return make_report(folder, against=against, seconds=seconds, parquet=parquet).files


def make_report(folder: str | Path, *, against: bool = False, seconds: bool = False, parquet: bool = False) -> Report:
    """Writes all files of the report beside the rows, and gives what is in them and their paths.

    `summary.json` (the facts), `table.md`, `table.csv` and `table.tex` (the tables), `pairs.csv` (methods in pairs),
    `bands.csv` (by the hole's share), `strip.png` and `index.html` (the page). But for what is asked for by the options
    below, all of them follow from the rows alone: the same rows, made by however many processes, give the same bytes.

    Args:
        folder: The run folder.
        against: Also `published.csv`, and on the page: the papers' numbers beside ours.
        seconds: Also on the page: quality against the seconds that rows took, which vary from run to run.
        parquet: Also `rows.parquet`: every row.

    Raises:
        DataError: No run folder, damaged rows, or a full disk.
        UsageError: Parquet is asked for and cannot be written.
    """
    if parquet:
        require_pyarrow()
    folder = Path(folder)
    plan = Plan.read(folder)
    table = read_table(folder, plan)
    summary = summarize_table(folder, plan, table)
    masks = read_masks(folder)
    side = side_by_side(summary, table)
    found = beside(summary) if against else None
    files: dict[str, bytes | None] = {
        **tables_of(summary),
        "table.tex": latex(summary).encode(),
        "pairs.csv": pairs_csv(side).encode(),
        "bands.csv": bands_csv(side).encode(),
        "published.csv": None if found is None else published_csv(found).encode(),
        "index.html": render_page(summary, table, masks, side, found, seconds).encode(),
        "strip.png": strip_of_run(summary, masks, table.captions),
    }
    written = {name: content for name, content in files.items() if content is not None}
    for name, content in written.items():
        write_whole(folder / name, content)
    rows = [write_parquet(table, folder / "rows.parquet")] if parquet else []
    return Report(summary, [*(folder / name for name in written), *rows], found or [])
