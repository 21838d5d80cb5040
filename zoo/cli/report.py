"""`zoo report`: the tables and the page of a run folder, finished or not; a user study of it, and what raters said."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import EXIT_FAILED_ROWS, EXIT_OK, DataError, UsageError

if TYPE_CHECKING:
    from zoo.benchmark import Summary
    from zoo.benchmark.published import Beside
    from zoo.benchmark.report_files import Report


def run(arguments: Namespace) -> int:
    """Summarizes a run again, or makes and evaluates a user study of it."""
    folder = _folder(arguments.run)
    if arguments.study and arguments.rank:
        raise UsageError("--study makes a study and --rank evaluates one", remedy="give one of them")
    if arguments.study:
        return _study(folder, arguments.study)
    if arguments.rank:
        return _rank(folder, arguments.rank, arguments.json)
    from zoo.benchmark.report_gate import misses, parse_bounds

    bounds = parse_bounds(arguments.fail_below) if arguments.fail_below else []
    from zoo.benchmark.report_files import make_report

    against = arguments.against is not None
    made = make_report(folder, against=against, seconds=arguments.seconds, parquet=arguments.parquet)
    summary = made.summary
    problems = misses(summary, bounds)
    _show(made, against, arguments.json)
    if arguments.update:
        _update(Path(arguments.update), summary)
    for problem in problems:
        print(f"zoo report: not good enough: {problem}", file=sys.stderr)
    return EXIT_FAILED_ROWS if summary.failed or summary.missing or problems else EXIT_OK


def _folder(name: str | None) -> Path:
    """The folder that was named, or the newest one under `runs`."""
    if name is not None:
        folder = Path(name)
        if not folder.is_dir():
            raise DataError("no such run", where=str(folder), remedy="zoo benchmark says where its run is")
        return folder
    found = [path.parent for path in Path("runs").glob("*/plan.json")]
    if not found:
        raise UsageError("zoo report needs the folder of a run", remedy="zoo report runs/NAME")
    folder = max(found, key=lambda path: ((path / "rows").stat().st_mtime if (path / "rows").is_dir() else 0.0, path))
    print(f"zoo report: {folder}, the newest run", file=sys.stderr)
    return folder


def _show(made: Report, against: bool, as_json: bool) -> None:
    from zoo.benchmark import to_json
    from zoo.benchmark.published_text import published_json
    from zoo.cli.benchmark import print_summary

    if as_json:
        content = to_json(made.summary) | ({"published": published_json(made.published)} if against else {})
        print(json.dumps(content, indent=2))
        return
    print_summary(made.summary, made.files)
    if against:
        _print_published(made.summary, made.published)


def _print_published(summary: Summary, found: list[Beside]) -> None:
    from zoo.benchmark.published import RULE, elsewhere, nothing
    from zoo.benchmark.published_text import published_grid

    print("\nthe papers' numbers")
    if found:
        print(f"{RULE}\n\n{_text(published_grid(found))}")
    for line in nothing(summary, found):
        print(line)
    for paper, setting, method, count in elsewhere(summary):
        print(f"not comparable: {count} values of {method} on {setting} ({paper})")


def _text(rows: list[list[str]]) -> str:
    """A table as plain text, columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _update(path: Path, summary: Summary) -> None:
    from zoo.benchmark.report import markdown
    from zoo.benchmark.report_update import update

    changed = update(path, summary.plan, markdown(summary))
    print(f"zoo report: {path}: {'the table is new' if changed else 'the table was the same'}", file=sys.stderr)


def _study(folder: Path, count: int) -> int:
    from zoo.benchmark.study import make_study

    page, key = make_study(folder, count)
    print(f"page:  {page}")
    print(f"key:   {key} (not for the raters)")
    print(f"later: zoo report {folder} --rank ANSWERS.json ...")
    return EXIT_OK


def _rank(folder: Path, names: Sequence[str], as_json: bool) -> int:
    from zoo.benchmark.study_rank import rank_answers, rank_grids, rank_json

    ranking = rank_answers(folder, [Path(name) for name in names])
    if as_json:
        content: dict[str, Any] = rank_json(ranking)
        print(json.dumps(content, indent=2))
        return EXIT_OK
    print(f"{ranking.raters} raters, {ranking.questions} images; mean [95 % interval over images]")
    for title, rows in rank_grids(ranking):
        print(f"\n{title}\n{_text(rows)}")
    return EXIT_OK
