"""`zoo masks`: a manifest of masks is made, verified, or shown."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from zoo.cli.expand import check_data, check_mask, one
from zoo.cli.progress import Meter
from zoo.errors import EXIT_OK, UsageError, unknown_name

ACTIONS = ("make", "verify", "show")
SHOWN = 16


def run(arguments: Namespace) -> int:
    """Runs one of the actions."""
    if arguments.action not in ACTIONS:
        if arguments.action is None:
            raise UsageError("zoo masks needs an action", remedy="zoo masks make|verify|show")
        raise unknown_name("action", arguments.action, list(ACTIONS))
    if arguments.action == "verify" and arguments.file is None:
        raise UsageError("zoo masks verify needs a manifest", remedy="zoo masks verify FILE.jsonl.gz")
    if arguments.action != "verify" and arguments.out is None:
        raise UsageError(f"zoo masks {arguments.action} needs --out FILE", remedy="zoo masks --help")
    arguments.data = one(arguments.data, "--dataset") or "shapes"
    check_data(arguments.data)
    check_mask(arguments.mask)
    return {"make": _make, "verify": _verify, "show": _show}[arguments.action](arguments)
