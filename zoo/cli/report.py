"""`zoo report`: the table and the pages of a run folder, finished or not."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from zoo.errors import EXIT_FAILED_ROWS, EXIT_OK, DataError, UsageError


def run(arguments: Namespace) -> int:
    """Summarizes a run again."""
    if arguments.run is None:
        raise UsageError("zoo report needs the folder of a run", remedy="zoo report runs/NAME")
    folder = Path(arguments.run)
    if not folder.is_dir():
        raise DataError("no such run", where=str(folder), remedy="zoo benchmark says where its run is")
    if arguments.against:
        raise UsageError(
            "this version ships no published numbers to stand beside measured ones", remedy="leave out --against"
        )
    from zoo.benchmark import summarize, to_json, write_report
    from zoo.cli.benchmark import print_summary

    files = write_report(folder)
    summary = summarize(folder)
    if arguments.json:
        print(json.dumps(to_json(summary), indent=2))
    else:
        print_summary(summary, files)
    return EXIT_FAILED_ROWS if summary.failed else EXIT_OK
