"""How many processes a run gets that nobody gave a number. What they do together is in `test_loop`, `test_faults`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoo.benchmark import Plan, processes
from zoo.benchmark.plan import MethodPlan
from zoo.benchmark.processes import processes_for
from zoo.cli.main import main

NANO = MethodPlan("a", "a", "b.A", "nano", "shapes", "11")
CONTROL = MethodPlan("mean", "mean", "b.B")
PLAN = Plan(
    "shapes", "test", None, {}, 5000, 64, "00", "object", 0, "", (NANO, CONTROL),
    0, (), 16, "32-true", "cpu", 1, {"metrics": "1"}, "0.1.0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen cores and 24 GiB."""
    monkeypatch.setattr(processes, "_cores", lambda: 16)
    monkeypatch.setattr(processes, "_memory", lambda: 24 << 30)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 10),  # of 10,000 rows
        ({"count": 2000}, 4),
        ({"count": 64}, 1),
        ({"count": 50_000}, 12),  # memory
        ({"count": 50_000, "threads": 4}, 4),
        ({"count": 50_000, "threads": 32}, 1),
        ({"accelerator": "cuda"}, 1),
        ({"methods": (replace(NANO, preset="paper"), CONTROL)}, 1),
        ({"methods": (CONTROL,)}, 5),
    ],
)
def test_as_many_as_there_are_cores_memory_and_work_for(changes: dict[str, Any], count: int, tmp_path: Path) -> None:
    assert processes_for(replace(PLAN, **changes), tmp_path) == count


def test_what_is_done_needs_no_process(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    rows = [{"method": "mean", "id": str(number)} for number in range(5000)]
    rows += [{"method": "a", "id": str(number), "error": "it broke"} for number in range(3000)]
    (tmp_path / "rows" / "mean-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert processes_for(PLAN, tmp_path) == 5, "failures are tried again"


def test_torchrun_has_started_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes_for(PLAN, tmp_path) == 1


def test_this_machine_has_a_core_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    assert processes._cores() >= 1
    assert processes._memory() > 1 << 30


@pytest.mark.parametrize(("more", "count"), [([], 3), (["--devices", "2"], 2), (["--shard", "1/2"], 1)])
def test_the_command_takes_that_number_unless_told_another(
    more: list[str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run(*arguments: Any, devices: int, **options: Any) -> None:
        asked.append(devices)
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.benchmark.processes.processes_for", lambda plan, folder: 3)
    monkeypatch.setattr("zoo.benchmark.loop.run", run)
    assert main(["benchmark", "--models", "mean", "--limit", "4", "--out", str(tmp_path / "run"), *more]) == 130
    assert asked == [count]
