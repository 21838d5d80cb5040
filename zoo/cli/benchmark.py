"""`zoo benchmark`: a plan from options, the run with its progress, then the table and the pictures."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.cli.benchmark_fit import fit_missing
from zoo.cli.interrupt import Stopped
from zoo.cli.progress import Meter
from zoo.errors import EXIT_FAILED_ROWS, EXIT_OK, DataError, UsageError, unknown_name
from zoo.resources import resource

if TYPE_CHECKING:
    from zoo.benchmark import Plan, RunResult

AGAIN = "what is done is stored; the same command goes on"


class Asked(NamedTuple):
    """One run of a command.

    Attributes:
        options: Arguments of `make_plan`.
        cost: Whether its cost is measured, too.
    """

    options: dict[str, Any]
    cost: bool


def run(arguments: Namespace) -> int:
    """Measures what the run folders lack, and prints a table of each."""
    runs = asked_runs(arguments)
    if arguments.fit and _launched():
        remedy = "train first: the same command, by itself, with --fit --limit 1"
        raise UsageError("--fit trains in one process, and several were started", remedy=remedy)
    with _resumable():
        failed = fit_missing([one.options for one in runs]) if arguments.fit else {}
        plans = _plans(runs, failed)
        codes, facts = [EXIT_FAILED_ROWS if failed else EXIT_OK], []
        for plan, cost in plans:
            code, found = _one_run(plan, cost, arguments, several=len(plans) > 1)
            codes.append(code)
            facts.append(found)
    if arguments.json and any(facts):
        print(json.dumps(facts[0] if len(plans) == 1 else {"runs": facts}, indent=2))
    return max(codes)


def _launched() -> bool:
    """Whether torchrun or SLURM has started several of this process."""
    from zoo.benchmark.loop import launched

    return launched().world > 1


def _tell(text: str) -> None:
    """A line on stderr, of the first process alone: the others of torchrun or SLURM would say the same."""
    from zoo.benchmark.loop import launched

    if launched().rank == 0:
        print(f"zoo benchmark: {text}", file=sys.stderr)


@contextmanager
def _resumable() -> Iterator[None]:
    """Says of an interruption that it cost nothing."""
    try:
        yield
    except Stopped as error:
        raise Stopped(error.number, AGAIN) from error
    except KeyboardInterrupt as error:
        raise Stopped(signal.SIGINT, AGAIN) from error


def _plans(runs: Sequence[Asked], failed: Mapping[str, str]) -> list[tuple[Plan, bool]]:
    """The plans of the runs, each with whether its cost is asked for; those that come to the same plan are one.

    Of a suite of several runs, those that these data do not allow are left out, and that is said: captions that nobody
    can edit, say. Where none is left, the first one's reason ends the command.
    """
    from zoo.benchmark import make_plan

    plans: dict[str, tuple[Plan, bool]] = {}
    errors: list[UsageError] = []
    for one in runs:
        try:
            plan = make_plan(**{**one.options, **({"leave_out": True} if failed else {})}, announce=_tell)
        except UsageError as error:
            errors.append(error)
            continue
        plan = replace(plan, left_out={**plan.left_out, **failed})
        before = plans.get(plan.hash)
        plans[plan.hash] = (plan, one.cost or (before is not None and before[1]))
    if errors and not plans:
        raise errors[0]
    for lost in errors:
        _tell(f"a run of the suite is left out: {lost.what}" + (f" ({lost.where})" if lost.where else ""))
    return list(plans.values())


def _one_run(plan: Plan, cost: bool, arguments: Namespace, *, several: bool) -> tuple[int, dict[str, Any]]:
    """The exit code and the facts of one run, which is printed unless the facts are to be."""
    from zoo.benchmark import summarize, to_json
    from zoo.benchmark.loop import launched
    from zoo.benchmark.report_files import make_report
    from zoo.benchmark.store import StorageError

    _announce(plan)
    out = Path(arguments.out) if arguments.out else Path("runs") / plan.name
    folder = out / plan.name if arguments.out and several else out
    code, result = _measure(plan, folder, arguments)
    if launched().rank > 0:  # the first process of torchrun or SLURM speaks for all, which have waited for each other
        return code, {}
    if cost and result is not None:
        code = max(code, _measure_cost(result))
    try:
        summary, files, _ = make_report(folder)
    except StorageError as error:
        print(f"zoo: {error}", file=sys.stderr)
        code, summary, files = EXIT_FAILED_ROWS, summarize(folder), []
    if not arguments.json:
        print_summary(summary, files)
    return code, to_json(summary)


def _measure(plan: Plan, folder: Path, arguments: Namespace) -> tuple[int, RunResult | None]:
    """The exit code, and what there is; None where rows could not be written."""
    from zoo.benchmark import run
    from zoo.benchmark.processes import processes_for
    from zoo.benchmark.store import ROWS, StorageError

    # A part of the work is one of several jobs, which share this machine for all that is known.
    devices = arguments.devices or (processes_for(plan, folder) if arguments.shard is None else 1)
    try:
        with Meter("benchmark", None, seconds=2.0) as meter:
            result = run(
                plan,
                folder,
                workers=arguments.workers or 0,
                devices=devices,
                shard=arguments.shard,
                progress=lambda done, total, label: _show(meter, done, total, label),
            )
    except StorageError as error:
        if not (folder / ROWS).is_dir():
            raise
        print(f"zoo: {error}", file=sys.stderr)
        return EXIT_FAILED_ROWS, None
    for count, what in ((result.failed, "failed"), (result.missing, "are missing")):
        if count:
            print(f"zoo: {count} of {result.expected} rows {what}; the report says why", file=sys.stderr)
    return EXIT_FAILED_ROWS if result.failed or result.missing else EXIT_OK, result


def _measure_cost(result: RunResult) -> int:
    """The cost pass of a run that has all its rows."""
    from zoo.benchmark import measure_cost

    if not result.complete:
        print("zoo benchmark: the cost is measured once all rows are there", file=sys.stderr)
        return EXIT_OK
    with Meter("cost", None, seconds=2.0) as meter:
        try:
            failed = measure_cost(result.folder, progress=lambda done, total, label: _show(meter, done, total, label))
        except DataError as error:  # the rows are there, and their report comes first
            failed = {"any method": str(error)}
    for label, why in failed.items():
        print(f"zoo benchmark: the cost of {label} is not measured: {why}", file=sys.stderr)
    return EXIT_FAILED_ROWS if failed else EXIT_OK


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

    others = _other_sizes(plan)
    for method in plan.methods:
        at = f" at {others[method.label]} pixels" if method.label in others else ""
        about = f"preset {method.preset}, trained on {method.trained_on or 'unknown data'}{at}, {_near(method.weights)}"
        bare = "control" if method.control else "published networks" if method.baseline else "no weights"
        bare += f", trained{at}" if at else ""
        changed = "".join(f", {name}={value}" for name, value in sorted(method.settings.items()))
        _tell(f"{method.label}: {about if method.weights else bare}{changed}")
    for name, reason in plan.left_out.items():
        _tell(f"{name} is left out: {reason}")
    for reason, names in _by_reason(plan.skipped).items():
        _tell(f"{', '.join(names)}: skipped: {reason}")
    captions = f", {plan.captions} captions" if plan.captions != OWN else ""
    several = f", {plan.samples} samples of each" if plan.samples else ""
    protocol = f", protocol {plan.protocol}" if plan.protocol != PROTOCOL else ""
    sized = f"{plan.mask} masks{captions}, {plan.size} pixels{protocol}"
    _tell(f"{plan.count} images of {plan.dataset}{several}, {sized}")
    if others and plan.protocol == PROTOCOL:  # a protocol has a size of its own
        sizes = " or ".join(f"--size {size}" for size in sorted(set(others.values())))
        _tell(f"{', '.join(others)}: not measured at the size of their training; for that: {sizes}")


def _other_sizes(plan: Plan) -> dict[str, int]:
    """The methods that were trained at another size than they are measured at, and at which; by label."""
    from zoo.benchmark.planning import trained_size

    sizes = {method.label: trained_size(method) for method in plan.methods if "size" not in method.settings}
    return {label: size for label, size in sizes.items() if size and size != plan.size}


def _by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        groups.setdefault(reason, []).append(name)
    return groups


def _near(path: str) -> Path:
    """A path as short as it can be said from here."""
    return Path(path).relative_to(Path.cwd()) if Path(path).is_relative_to(Path.cwd()) else Path(path)


def asked_runs(arguments: Namespace) -> list[Asked]:
    """The runs of a command line: of each the suite's options, over them what was typed, then the protocol's.

    Raises:
        UsageError: An unknown name, an option given twice, or one that contradicts the protocol.
    """
    typed = _typed(arguments)
    runs: list[dict[str, Any]] = [{}]
    if arguments.suite is not None:
        from zoo.benchmark import load_suite  # imports torch: after everything that can be refused without

        runs = load_suite(arguments.suite)
    found = []
    for one in runs:
        options = {**one, **typed}
        cost = bool(options.pop("cost", False)) or arguments.cost
        if typed.keys() & {"models", "preset"}:  # what was named must be there
            options.pop("leave_out", None)
        found.append(Asked(_settled(options, arguments), cost))
    return found


def _typed(arguments: Namespace) -> dict[str, Any]:
    """The arguments of `make_plan` that were typed."""
    from zoo.cli.expand import check_data, check_mask, check_preset, one

    dataset = one(arguments.data, "--dataset")
    check_data(dataset)
    check_preset(arguments.preset)
    _check_suite(arguments.suite)
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
    return {name: value for name, value in typed.items() if value is not None}


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


def _check_suite(name: str | None) -> None:
    if name is not None and not name.endswith((".yaml", ".yml")):
        shipped = [path.stem for path in resource("configs/suite").glob("*.yaml")]
        if name not in shipped:
            raise unknown_name("suite", name, shipped)


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
