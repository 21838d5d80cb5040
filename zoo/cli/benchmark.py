"""`zoo benchmark`: a plan from options, the run with its progress, then the table and the pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.interrupt import Stopped
from zoo.cli.progress import Meter
from zoo.errors import EXIT_FAILED_ROWS, EXIT_OK, UsageError, WeightsError, unknown_name
from zoo.resources import resource

if TYPE_CHECKING:
    from zoo.benchmark import Plan

AGAIN = "what is measured is stored; the same command goes on"


def run(arguments: Namespace) -> int:
    """Measures what the run folder lacks and prints the table."""
    options = plan_options(arguments)
    if arguments.fit:
        fit_missing(options)
    from zoo.benchmark import make_plan, run, summarize, to_json, write_report

    plan = make_plan(**options, announce=lambda text: print(f"zoo benchmark: {text}", file=sys.stderr))
    _announce(plan)
    try:
        with Meter("benchmark", None, seconds=2.0) as meter:
            result = run(
                plan,
                Path(arguments.out) if arguments.out else None,
                workers=arguments.workers or 0,
                devices=arguments.devices or 1,
                shard=arguments.shard,
                progress=lambda done, total, label: _show(meter, done, total, label),
            )
    except Stopped as error:
        raise Stopped(error.number, AGAIN) from error
    except KeyboardInterrupt as error:
        raise Stopped(2, AGAIN) from error
    files = write_report(result.folder)
    summary = summarize(result.folder)
    if arguments.json:
        print(json.dumps(to_json(summary), indent=2))
    else:
        print_summary(summary, files)
    if result.failed:
        print(f"zoo: {result.failed} of {result.expected} rows failed; the report says why", file=sys.stderr)
        return EXIT_FAILED_ROWS
    return EXIT_OK


def print_summary(summary: Any, files: Sequence[Path]) -> None:
    """The table, the folder, and what lies in it."""
    from zoo.benchmark import render_table

    print(render_table(summary, width=shutil.get_terminal_size((110, 24)).columns))
    print(f"run:   {summary.folder}")
    for what, name in (("strip", "strip.png"), ("page", "index.html")):
        for file in files:
            if file.name == name:
                print(f"{what + ':':<6} {file}")


def _show(meter: Meter, done: int, total: int, label: str) -> None:
    meter.total = total
    meter.update(done, label or "rows")


def _announce(plan: Plan) -> None:
    from zoo.benchmark.plan import PROTOCOL
    from zoo.data.base import OWN

    for method in plan.methods:
        trained = f"preset {method.preset}, trained on {method.trained_on or 'unknown data'}, {_near(method.weights)}"
        changed = "".join(f", {name}={value}" for name, value in sorted(method.settings.items()))
        print(f"zoo benchmark: {method.label}: {trained if method.weights else 'control'}{changed}", file=sys.stderr)
    for name, reason in plan.left_out.items():
        print(f"zoo benchmark: {name} is left out: {reason}", file=sys.stderr)
    for reason, names in _by_reason(plan.skipped).items():
        print(f"zoo benchmark: {', '.join(names)}: skipped: {reason}", file=sys.stderr)
    captions = f", {plan.captions} captions" if plan.captions != OWN else ""
    several = f", {plan.samples} samples of each" if plan.samples else ""
    protocol = f", protocol {plan.protocol}" if plan.protocol != PROTOCOL else ""
    images = (
        f"{plan.count} images of {plan.dataset}{several}, {plan.mask} masks{captions}, {plan.size} pixels{protocol}"
    )
    print(f"zoo benchmark: {images}", file=sys.stderr)


def _by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        groups.setdefault(reason, []).append(name)
    return groups


def _near(path: str) -> Path:
    """A path as short as it can be said from here."""
    return Path(path).relative_to(Path.cwd()) if Path(path).is_relative_to(Path.cwd()) else Path(path)


def plan_options(arguments: Namespace) -> dict[str, Any]:
    """The arguments of `make_plan` for a command line: the suite's, over them what was typed, then the protocol's.

    Raises:
        UsageError: An unknown name, an option given twice, or one that contradicts the protocol.
    """
    from zoo.cli.expand import check_data, check_mask, check_preset, one

    dataset = one(arguments.data, "--dataset")
    check_data(dataset)
    check_preset(arguments.preset)
    suite = _check_suite(arguments.suite)
    typed = {
        "dataset": dataset,
        "mask": arguments.mask,
        "models": _names(arguments.models),
        "weights": dict(arguments.weights) or None,
        "settings": _settings(arguments.set) or None,
        "preset": arguments.preset,
        "limit": arguments.limit,
        "size": arguments.size,
        "seed": arguments.seed,
        "guidance": tuple(_names(arguments.guidance) or ()) or None,
        "captions": arguments.captions,
        "samples": arguments.samples,
        "data_root": arguments.root,
        "split": arguments.split,
        "manifest": Path(arguments.manifest) if arguments.manifest else None,
        "batch_size": arguments.batch_size,
        "precision": arguments.precision,
        "accelerator": arguments.accelerator,
        "protocol": arguments.protocol,
        "metrics": _metrics(arguments.metrics),
        "features_files": _features_files(arguments.features_files),
    }
    _check_models(typed["models"])
    check_mask(arguments.mask)
    chosen = {name: value for name, value in typed.items() if value is not None}
    if suite is None:
        return _settled(chosen, arguments)
    from zoo.benchmark import load_suite  # imports torch: after everything that can be refused without

    return _settled({**load_suite(suite), **chosen}, arguments)


def _settled(options: Mapping[str, Any], arguments: Namespace) -> dict[str, Any]:
    """With the protocol's choices where it is not `zoo`, and the options of the dataset that this comes to."""
    from zoo.benchmark.protocols import load_protocol, settle

    protocol = load_protocol(options.get("protocol", "zoo"))
    dataset = options.get("dataset") or next(iter(protocol.datasets), "shapes")
    given = {**(options.get("data_options") or {}), **_data_options(dataset, arguments)}
    said = {**options, **({"data_options": given} if given else {})}
    return {**said, **settle(protocol, said)._asdict()} if protocol.datasets else said


def _metrics(text: str | None) -> list[str] | None:
    if text is None:
        return None
    from zoo.metrics.asked import GROUPS
    from zoo.metrics.definitions import STAND_IN

    names = _names(text)
    for name in names or ():
        if name.removesuffix(STAND_IN) not in {*GROUPS, *GROUPS["all"]}:
            raise unknown_name("metric", name, [*GROUPS["all"], *GROUPS])
    return names


def _features_files(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    from zoo.metrics.sources import check_files, parse_files

    files = parse_files(text)
    check_files(files)
    return files


def _check_suite(name: str | None) -> str | None:
    if name is not None and not name.endswith((".yaml", ".yml")):
        shipped = [path.stem for path in resource("configs/suite").glob("*.yaml")]
        if name not in shipped:
            raise unknown_name("suite", name, shipped)
    return name


def _check_models(models: Sequence[str] | None) -> None:
    from zoo.models import BASELINES, CONTROLS, MODELS

    known = [*MODELS, *CONTROLS, *BASELINES]
    for entry in models or ():
        name = entry.partition("=")[0].partition("@")[0]
        if "." not in name and ":" not in name and name not in known:
            raise unknown_name("model", name, known)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"'{text}' names nothing", remedy="names are separated by commas: deepfill,telea")
    return names


def _data_options(dataset: str, arguments: Namespace) -> dict[str, Any]:
    """What `--option` and `--data.mask_...` say."""
    from zoo.data.info import parse_options

    names = ("mask_root", "mask_threshold", "mask_invert")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    for name, value in arguments.option:
        if name in options:
            raise UsageError(f"{name} is set twice", where=f"--option {name}={value}", remedy="leave one of them out")
        options |= parse_options(dataset, [(name, value)])
    return options


def _settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`ecdm.steps=50` as {"ecdm": {"steps": 50}}; what is no JSON is a text."""
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        method, dot, name = path.rpartition(".")
        if not (equals and dot and method and name):
            raise UsageError(f"'{text}' is not METHOD.OPTION=VALUE", remedy="such as --set ecdm.steps=50")
        if name in settings.setdefault(method, {}):
            raise UsageError(f"{path} is set twice", where=f"--set {text}", remedy="leave one of them out")
        try:
            settings[method][name] = json.loads(value, parse_constant=_no_number)
        except ValueError:
            settings[method][name] = value
    return settings


def _no_number(text: str) -> None:
    """Python reads NaN and Infinity as JSON; a plan, which is JSON, cannot hold them."""
    raise ValueError(text)


def fit_missing(options: Mapping[str, Any]) -> None:
    """Trains the methods of a plan that have no weights, one after the other, as `zoo fit` would.

    Raises:
        WeightsError: A training failed.
    """
    for command in fit_commands(options):
        print(f"zoo benchmark: {' '.join(command)}", file=sys.stderr)
        code = subprocess.run([sys.executable, "-m", "zoo", *command[1:]], stdout=sys.stderr, check=False).returncode
        if code != EXIT_OK:
            raise WeightsError(f"training ended with exit code {code}", where=" ".join(command))


def fit_commands(options: Mapping[str, Any]) -> list[list[str]]:
    """The command lines that train what a plan lacks."""
    from zoo.models import BASELINES, CONTROLS, MODELS
    from zoo.weights import find_weights

    dataset = options.get("dataset", "shapes")
    preset = options.get("preset") or ("nano" if dataset == "shapes" else "paper")
    commands = []
    for entry in options.get("models") or list(MODELS):
        if "=" in entry or "@" in entry or entry in {*CONTROLS, *BASELINES} or entry in options.get("weights", {}):
            continue
        if find_weights(entry, preset) is None:
            command = ["zoo", "fit", "--model", entry, "--data", str(dataset), "--preset", preset, "--resume", "auto"]
            if options.get("data_root"):
                command += ["--data.root", str(options["data_root"])]
            for name, value in (options.get("data_options") or {}).items():
                command += [f"--data.{name}", str(value).lower() if isinstance(value, bool) else str(value)]
            commands.append(command)
    return commands
