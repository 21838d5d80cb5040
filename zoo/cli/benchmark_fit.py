"""`zoo benchmark --fit`: trains the methods of a comparison that have no weights, before it begins."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.interrupt import Stopped
from zoo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, UsageError

if TYPE_CHECKING:
    from zoo.data.base import Dataset


def fit_missing(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Trains the methods of some plans that have no weights, one after the other, as `zoo fit` would.

    Args:
        runs: Arguments of `make_plan`, of each run.

    Returns:
        Why a training failed, by the name of its method; the others go on.
    """
    commands: dict[str, list[str]] = {}
    for options in runs:
        commands = fit_commands(options) | commands
    if commands:
        check_masks(runs)
    failed = {}
    for name, command in commands.items():
        print(f"zoo benchmark: {' '.join(command)}", file=sys.stderr)
        code = train(command[1:])
        if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            raise Stopped(signal.SIGTERM if code == EXIT_TERMINATED else signal.SIGINT)
        if code != EXIT_OK:
            failed[name] = f"its training ended with exit code {code}"
            print(f"zoo benchmark: {name}: {failed[name]}; the others go on", file=sys.stderr)
    return failed


def check_masks(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuses, before hours of training, a comparison whose masks these data cannot have.

    Raises:
        UsageError: No run can have its masks; the first one's reason.
    """
    from zoo.benchmark.masks import TRIED, check_drawable

    errors = []
    for options in runs:
        try:
            if not options.get("manifest"):
                check_drawable(_open(options, TRIED), options.get("mask") or "object", options.get("mask_seed") or 0)
        except UsageError as error:
            errors.append(error)
    if errors and len(errors) == len(runs):
        raise errors[0]


def train(words: Sequence[str]) -> int:
    """The exit code of `zoo WORDS`, a process of its own that writes to stderr and ends, its state saved, with this."""
    with subprocess.Popen([sys.executable, "-m", "zoo", *words], stdout=sys.stderr) as process:
        try:
            return process.wait()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # which a terminal sends to both
                process.terminate()
            process.wait()
            raise


def fit_commands(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """The command lines that train what a plan lacks, by the name of the method.

    Without a preset that is `nano`, whatever the data: `paper` takes days, and whoever wants it says so.
    """
    from zoo.benchmark.planning import presets_of
    from zoo.models import resolve
    from zoo.weights import find_weights

    dataset, preset = str(options.get("dataset", "shapes")), options.get("preset")
    commands = {}
    for name in _untrained(options):
        if not resolve(name).trainable or any(find_weights(name, one) for one in presets_of(preset, dataset)):
            continue
        command = ["zoo", "fit", "--model", name, "--data", dataset, "--preset", preset or "nano", "--resume", "auto"]
        if options.get("data_root"):
            command += ["--data.root", str(options["data_root"])]
        for option, value in (options.get("data_options") or {}).items():
            command += [f"--data.{option}", str(value).lower() if isinstance(value, bool) else str(value)]
        commands[name] = command
    return commands


def _untrained(options: Mapping[str, Any]) -> list[str]:
    """The names of the methods of a plan for which no file of weights is given."""
    from zoo.models import MODELS

    entries, given = options.get("models"), options.get("weights", {})
    if entries is None or options.get("leave_out"):
        entries = _served(entries or list(MODELS), options)
    labels = [entry for entry in entries if "=" not in entry and entry not in given]
    return list(dict.fromkeys(label.partition("@")[0] for label in labels))


def _served(entries: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The entries of methods that the data can guide; the plan will leave out the others."""
    from zoo.batch import check_needs
    from zoo.models import resolve

    data = _open(options, 1)
    provides, name = data.provides | {"edge"}, options.get("dataset", "shapes")
    served = []
    for entry in entries:
        try:
            check_needs(resolve(entry.partition("=")[0].partition("@")[0]).needs, provides, entry, name)
        except UsageError:
            continue
        served.append(entry)
    return served


def _open(options: Mapping[str, Any], count: int) -> Dataset:
    """The first images of a run."""
    from zoo.data import open_dataset

    name, split, root = options.get("dataset", "shapes"), options.get("split", "test"), options.get("data_root")
    return open_dataset(name, split=split, size=64, root=root, count=count, **(options.get("data_options") or {}))
