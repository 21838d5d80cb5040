"""Leases: one job has a block in hand, until it gives it back or ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo.benchmark import leases
from zoo.benchmark.leases import FOLDER, Leases
from zoo.benchmark.store import StorageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def elsewhere(folder: Path, name: str) -> Path:
    """A lease that a job of another machine has taken."""
    path = folder / FOLDER / f"{name}~0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"place": "another machine", "process": 1, "job": "a"}))
    return path


def test_a_lease_is_had_by_one_job(tmp_path: Path) -> None:
    with Leases(tmp_path) as one, Leases(tmp_path) as other:
        assert one.take("mean-0")
        assert not one.take("mean-0")
        assert not other.take("mean-0", over=True)
        assert other.take("mean-4")
        one.release("mean-4")  # not its own
        one.release("mean-0")
        assert names(tmp_path) == ["mean-4~0"]
        assert other.take("mean-0")
    assert names(tmp_path) == []


def test_a_lease_of_a_process_that_died_here_is_taken_over_at_once(tmp_path: Path) -> None:
    with Leases(tmp_path) as job:
        assert job.take("mean-0")
        lease = tmp_path / FOLDER / "mean-0~0"
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        lease.write_text(json.dumps({**json.loads(lease.read_text()), "process": child.pid}))
        assert job.left_by({child.pid: "gone", 1: "not it"}) == {"mean-0": "gone"}
        with Leases(tmp_path) as other:
            assert not other.take("mean-0"), "only where that is asked for"
            assert other.take("mean-0", over=True)
            job.release("mean-0")
            assert names(tmp_path) == ["mean-0~0", "mean-0~1"], "it is another job's by now"
    assert names(tmp_path) == []


def test_a_lease_of_another_machine_ends_without_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE", 0.3)
    lease = elsewhere(tmp_path, "mean-0")
    with Leases(tmp_path) as job:
        began = time.monotonic()
        while time.monotonic() < began + 0.6:  # it is renewed
            lease.touch()
            assert not job.take("mean-0", over=True)
            time.sleep(0.01)
        began = time.monotonic()
        with job.turn("mean-0"):
            assert time.monotonic() - began > 0.25
            assert names(tmp_path) == ["mean-0~0", "mean-0~1"]
        assert names(tmp_path) == []


def test_a_job_renews_what_it_has_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE", 0.2)
    with Leases(tmp_path) as job:
        job.take("mean-0")
        lease = tmp_path / FOLDER / "mean-0~0"
        times = set()
        deadline = time.monotonic() + 20
        while len(times) < 3 and time.monotonic() < deadline:
            times.add(lease.stat().st_mtime_ns)
            time.sleep(0.005)
    assert len(times) == 3


def test_one_of_many_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        name = f"mean-{number}"
        monkeypatch.setattr(leases, "LEASE", 60.0)
        elsewhere(tmp_path, name)
        jobs = [Leases(tmp_path) for _ in range(6)]
        for job in jobs:
            assert not job.take(name, over=True), "it was not looked at before"
        monkeypatch.setattr(leases, "LEASE", 0.02)
        time.sleep(0.03)
        had, start = [], threading.Barrier(6)

        def race(job: Leases, name: str = name, had: list[Leases] = had, start: threading.Barrier = start) -> None:
            start.wait()
            if job.take(name, over=True):
                had.append(job)

        threads = [threading.Thread(target=race, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(had) == 1
        assert names(tmp_path) == [f"{name}~0", f"{name}~1"]
        had[0].release(name)


def test_a_full_disk_leaves_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with Leases(tmp_path) as job, monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        with pytest.raises(StorageError, match="No space left"):
            job.take("mean-0")
    assert names(tmp_path) == []
