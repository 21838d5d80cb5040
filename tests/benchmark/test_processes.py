"""How many processes a run gets that nobody gave a number. What they do together is in `test_loop`, `test_faults`."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_plan import plan
from zoo.benchmark import Plan, processes
from zoo.benchmark.leases import Leases
from zoo.benchmark.loop import Job, Progress
from zoo.benchmark.plan import MethodPlan
from zoo.benchmark.processes import processes_for
from zoo.cli.main import main
from zoo.errors import EXIT_INTERRUPTED, DataError

NANO = MethodPlan("a", "a", "b.A", "nano", "shapes", "11")
CONTROL = MethodPlan("mean", "mean", "zoo.models.controls.Mean")
BASELINE = MethodPlan("sd_inpaint", "sd_inpaint", "zoo.models.ecdm.baselines.StableDiffusionInpaint")
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
        ({"methods": (NANO, BASELINE)}, 1),
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


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, 16, 24 << 30),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, 16, 24 << 30),
        ({"cpu.max": "350000 100000\n", "memory.max": f"{4 << 30}\n"}, 3, 4 << 30),
        ({"cpu.max": "50000 100000\n"}, 1, 24 << 30),
        ({"cpu.max": "6400000 100000\n", "memory.max": f"{1 << 50}\n"}, 16, 24 << 30),
        ({"memory/memory.limit_in_bytes": f"{6 << 30}\n"}, 16, 6 << 30),
    ],
)
def test_a_container_has_what_it_may_use(
    files: dict[str, str], cores: int, memory: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(processes, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (24 << 30) // 4096}.__getitem__)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert (processes._cores(), processes._memory()) == (cores, memory)


class Wordy(Job):
    """Ends with an error that is larger than the buffer of a pipe."""

    def __call__(self, progress: Progress | None = None) -> None:
        raise DataError("x" * 1_000_000, where=str(self.local))


class Interrupted(Job):
    """Is interrupted with a block in hand."""

    def __call__(self, progress: Progress | None = None) -> None:
        with Leases(self.folder) as leases:
            leases.take("mean-0")
            raise KeyboardInterrupt


def test_an_error_of_any_length_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START", "fork")
    monkeypatch.setattr(processes, "PAUSE", 0.05)
    until = time.monotonic() + 60

    def watch(done: int, total: int, label: str) -> None:
        assert time.monotonic() < until, "it waits for a child that waits to be read"

    with pytest.raises(DataError) as caught:
        processes.launch(Wordy(plan("mean"), tmp_path), 2, watch)
    assert (len(caught.value.what), caught.value.where) == (1_000_000, "0")


def test_an_interrupted_process_gives_back_what_it_has_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, sender = multiprocessing.Pipe(duplex=False)
    job = Interrupted(plan("mean"), tmp_path)
    child = multiprocessing.get_context("fork").Process(target=processes._child, args=(job, sender))
    child.start()
    child.join(60)
    assert child.exitcode == EXIT_INTERRUPTED
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "leases").iterdir()) == []


def _leaves(folder: Path, wait: float) -> None:
    with Leases(folder) as leases:
        leases.take("mean-0")
        (folder / "ready").touch()
        time.sleep(wait)


@pytest.mark.parametrize("wait", [0.5, 600.0])
def test_after_an_interruption_processes_have_a_moment_to_end(
    wait: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", 1.0 if wait > 1.0 else 60.0)
    child = multiprocessing.get_context("fork").Process(target=_leaves, args=(tmp_path, wait))
    with pytest.raises(KeyboardInterrupt), processes._no_orphans([child]):  # noqa: PT012
        child.start()
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert child.exitcode == (0 if wait < 1.0 else -signal.SIGTERM)
    assert len(list((tmp_path / "leases").iterdir())) == (0 if wait < 1.0 else 1)


def test_ctrl_c_is_held_back_while_processes_start_and_then_taken() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    held = False
    try:
        with pytest.raises(KeyboardInterrupt), processes._uninterrupted():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            held = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert held
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


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
