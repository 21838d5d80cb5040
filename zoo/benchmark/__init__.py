"""The benchmark: a plan, a loop over a fixed work list, a store of rows, a summary and a report.

What changes a number belongs to the plan and to its hash (data, masks, weights, seed, batch size, precision, device
kind, threads); what changes none is an argument of `run` (processes, workers, shards). One plan is one run folder, and
the same plan again does only what is missing.

    plan = make_plan("shapes", "object", ["deepfill", "telea"], limit=64)
    result = run(plan, progress=None)            # RunResult(folder, rows, failed, expected)
    summary = summarize(result.folder)
    render_table(summary, width=100)             # text for a terminal
    write_report(result.folder)                  # table.md, table.csv, summary.json, strip.png, index.html

Importing this package imports neither torch nor Lightning; using a name imports what the name needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.benchmark.cost import measure_cost as measure_cost
    from zoo.benchmark.loop import RunResult as RunResult
    from zoo.benchmark.loop import run as run
    from zoo.benchmark.plan import MethodPlan as MethodPlan
    from zoo.benchmark.plan import Plan as Plan
    from zoo.benchmark.planning import load_suite as load_suite
    from zoo.benchmark.planning import make_plan as make_plan
    from zoo.benchmark.planning import suites as suites
    from zoo.benchmark.report import render_table as render_table
    from zoo.benchmark.report_files import write_report as write_report
    from zoo.benchmark.summary import Summary as Summary
    from zoo.benchmark.summary import summarize as summarize
    from zoo.benchmark.summary import to_json as to_json

# make_plan(dataset=None, mask=None, models: Sequence[str] | None = None,   (None: the protocol's, else shapes, object)
#           weights: Mapping[str, str | Path] | None = None, *, leave_out=False,
#           settings: Mapping[str, Mapping[str, Any]] | None = None, preset=None, limit=None, size=None, seed=0,
#           mask_seed=0, guidance=(), captions="own", samples=0,
#           data_root=None, data_options: Mapping[str, Any] | None = None, split=None,
#           manifest: str | Path | None = None, batch_size=16, precision="32-true", accelerator="cpu",
#           threads=1, protocol="zoo", metrics: Sequence[str] = (), features_files: Mapping[str, str] | None = None,
#           announce: Callable[[str], None] | None = None) -> Plan
#     models: names, dotted paths, "cma@label=PATH"; None = every method that the data serves, and the controls.
#     settings: {"ecdm": {"steps": 50}}, constructor arguments changed (--set). data_options: mask_root, ... (`folder`).
#     samples: completions of each image by each stochastic method, for a table of their own (--samples).
#     protocol: a paper's, by name (configs/protocol). metrics: besides those of every run, by name or group
#     (zoo.metrics.ask); plan.asked has what is taken, plan.skipped {name: why} of what cannot be.
#     Raises UsageError, DataError, WeightsError, all before any work. plan.left_out: {name: why} of methods not named
#     by the user that cannot run (to be printed). plan.name -> "shapes-object-1a2b3c4d"; plan.hash; plan.methods.
# run(plan, out: str | Path | None = None, *, workers=0, devices=1, shard: tuple[int, int] | None = None,
#     progress: Callable[[int, int, str], None] | None = None) -> RunResult(folder, rows, failed, expected)
#     out=None -> runs/<plan.name>; shard (0, 4) is the first of four. Whatever is raised inside (KeyboardInterrupt, the
#     exception of a signal handler), rows are on disk as they are made: the same call goes on from there.
# measure_cost(folder, repeats=20, progress=None) -> {label: why not}; writes RUN/cost.json for the report
# suites() -> {name: description};  load_suite(name or path) -> of each run, arguments of make_plan (and `cost`)
# summarize(folder) -> Summary;  to_json(summary) -> dict (zoo/benchmark/summary.py says of what);
# render_table(summary, width=100) -> str;  write_report(folder) -> list[Path]

_HOME = {
    "measure_cost": "cost",
    "MethodPlan": "plan",
    "Plan": "plan",
    "load_suite": "planning",
    "make_plan": "planning",
    "suites": "planning",
    "render_table": "report",
    "write_report": "report_files",
    "RunResult": "loop",
    "run": "loop",
    "Summary": "summary",
    "summarize": "summary",
    "to_json": "summary",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo.benchmark' has no attribute '{name}'")
    return getattr(importlib.import_module(f"zoo.benchmark.{_HOME[name]}"), name)
