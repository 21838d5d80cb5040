"""The loop: the same rows however the work is shared out, interrupted or resumed; failures are rows."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_leases import elsewhere
from tests.benchmark.test_plan import plan
from tests.fakes_benchmark import Trained
from zoo.benchmark import Plan, leases, make_plan, processes, run, write_report
from zoo.benchmark.loop import LAUNCHERS, blocks, launched
from zoo.benchmark.masks import FILE, read_masks
from zoo.benchmark.store import constant, read_rows
from zoo.cli.main import main
from zoo.errors import DataError, UsageError
from zoo.masks import Canvas, draw_mask
from zoo.masks.manifest import make
from zoo.weights import save_weights

ROOT = Path(__file__).resolve().parents[2]


def rows(folder: Path) -> list[dict[str, Any]]:
    return sorted((constant(row) for row in read_rows(folder)), key=lambda row: (row["method"], row["id"]))


def undisturbed(tmp_path: Path, *models: str, **options: Any) -> tuple[Plan, list[dict[str, Any]]]:
    made = plan(*models, batch_size=4, **options)
    result = run(made, tmp_path / "undisturbed")
    assert (result.rows, result.failed, result.expected) == (21 * len(models), 0, 21 * len(models))
    assert result.complete
    return made, rows(result.folder)


def test_shards_workers_and_order_give_the_same_rows(tmp_path: Path) -> None:
    made, expected = undisturbed(tmp_path, "Mixing", "mean")
    for part in (2, 0, 1):  # shards in any order, with other numbers of workers
        run(made, tmp_path / "shards", shard=(part, 3), workers=part % 2)
    assert rows(tmp_path / "shards") == expected
    assert len({row["id"] for row in expected}) == 21


@pytest.mark.slow
def test_two_processes_give_the_same_rows(tmp_path: Path) -> None:
    _, expected = undisturbed(tmp_path, "Mixing")
    command = [sys.executable, "-m", "tests.benchmark.bench_script", str(tmp_path / "two"), "Mixing", "2", "0"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=570)
    assert rows(tmp_path / "two") == expected


def killed_at(count: int, made: Plan, folder: Path, **options: Any) -> int | None:
    """A run in a process of its own that is killed when it has that many rows; its exit code."""

    def stop(done: int, total: int, label: str) -> None:
        if done >= count:
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(
        target=run, args=(made, folder), kwargs={**options, "progress": stop}
    )
    child.start()
    child.join(120)
    return child.exitcode


def test_kill_and_run_again_gives_the_rows_of_an_undisturbed_run(tmp_path: Path) -> None:
    made, expected = undisturbed(tmp_path, "Mixing", "mean")
    folder = tmp_path / "killed"
    for count in (8, 25):
        assert killed_at(count, made, folder) == -signal.SIGKILL
        before = rows(folder)
        assert len(before) == count, "it must be killed in the middle"
        assert all(row in expected for row in before)
        with sorted(folder.glob("rows/*.jsonl"))[-1].open("ab") as file:
            file.write(b'{"id": "dots/1')  # the line that was being written
    result = run(made, folder)
    assert (result.rows, result.failed, result.missing) == (42, 0, 0)
    assert rows(folder) == expected
    assert list((folder / "leases").iterdir()) == []


def report(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_report(folder)}


def test_reports_of_one_two_and_three_processes_killed_and_resumed_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan("truth", "mean", "Crashing", batch_size=4)
    run(made, tmp_path / "one")
    expected = report(tmp_path / "one")
    assert {"index.html", "table.md", "table.csv", "table.tex", "pairs.csv", "bands.csv", "summary.json"} <= set(
        expected
    )
    monkeypatch.setattr(processes, "START", "fork")
    monkeypatch.setattr(processes, "PAUSE", 0.05)
    assert killed_at(20, made, tmp_path / "two") == -signal.SIGKILL
    assert run(made, tmp_path / "two", devices=2, workers=1).complete
    assert report(tmp_path / "two") == expected

    def shuffled(count: int, batch_size: int) -> list[range]:
        found = blocks(count, batch_size)
        random.Random(os.getpid()).shuffle(found)  # another order in each process
        return found

    monkeypatch.setattr("zoo.benchmark.loop.blocks", shuffled)
    seen: list[int] = []
    assert run(made, tmp_path / "three", devices=3, progress=lambda done, total, label: seen.append(done)).complete
    assert seen == sorted(seen)
    assert seen[-1] == 63
    assert report(tmp_path / "three") == expected


def test_idle_jobs_take_over_what_another_machine_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, expected = undisturbed(tmp_path, "mean")
    monkeypatch.setattr(leases, "LEASE", 0.3)
    lease = elsewhere(tmp_path / "run", f"{made.methods[0].file_name}-8")
    (tmp_path / "run" / "plan.json").write_text(made.to_json())
    states: list[int] = []
    began = time.monotonic()
    run(made, tmp_path / "run", progress=lambda done, total, label: states.append(done))
    assert time.monotonic() - began > 0.25
    assert states[-2:] == [17, 21], "what another has in hand comes last"
    assert rows(tmp_path / "run") == expected
    assert not lease.exists()


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "6", "SLURM_LOCALID": "0"}, (2, 6, 0)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "9"}, (0, 2, 0)),
    ],
)
def test_torchrun_and_slurm_say_which_process_this_is(
    given: dict[str, str], place: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launched() == place
    if place[1] > 1:  # they have started the processes
        monkeypatch.setattr(processes, "launch", None)
        assert run(plan("mean", batch_size=4), tmp_path / "run", devices=4).complete


def test_a_finished_run_does_nothing_again(tmp_path: Path) -> None:
    made, _ = undisturbed(tmp_path, "Mixing")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "undisturbed" / "rows").iterdir()}
    assert run(made, tmp_path / "undisturbed").rows == 21
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_other_batch_sizes_agree_closely(tmp_path: Path) -> None:
    """The shipped network on real scenes: floats agree to 1e-4, since matrix kernels differ between batch shapes."""
    found = {}
    for size in (1, 4, 6):
        made = make_plan("shapes", "object", ["deepfill", "telea"], limit=9, batch_size=size)
        found[size] = rows(run(made, tmp_path / str(size)).folder)
    names = [name for name in found[4][0] if name.startswith(("l1", "ssim", "tv", "raw"))]
    assert len(names) == 10
    for size in (1, 6):
        for one, other in zip(found[4], found[size], strict=True):
            assert [one[k] for k in ("id", "method", "image_hash", "mask_hash")] == [
                other[k] for k in ("id", "method", "image_hash", "mask_hash")
            ]
            assert [one[name] for name in names] == pytest.approx([other[name] for name in names], abs=1e-4)


def test_one_crashing_method_costs_its_own_images(tmp_path: Path) -> None:
    _, expected = undisturbed(tmp_path, "Mixing")
    result = run(plan("Crashing", "NotANumber", "Unloadable", "Mixing", batch_size=4), tmp_path / "run")
    assert (result.rows, result.failed) == (19 + 20 + 0 + 21, 2 + 1 + 21)
    assert result.complete
    by_method: dict[str, dict[str, Any]] = {}
    for row in read_rows(result.folder):
        by_method.setdefault(row["method"].rpartition(".")[2], {})[row["id"]] = row
    assert {i for i, row in by_method["Crashing"].items() if "error" in row} == {"dots/3", "dots/8"}
    assert by_method["Crashing"]["dots/3"]["error"] == "RuntimeError: no idea what this is"
    assert "not finite" in by_method["NotANumber"]["dots/5"]["error"]
    assert "a file of mine is gone" in by_method["Unloadable"]["dots/0"]["error"]
    assert [constant(by_method["Mixing"][row["id"]]) for row in expected] == expected


def test_an_unreadable_image_fails_until_it_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = undisturbed(tmp_path, "mean")
    made = plan("mean", batch_size=4, data_options={"broken": "2,7"})
    first = run(made, tmp_path / "run")
    assert (first.rows, first.failed) == (19, 2)
    errors = {row["id"]: row["error"] for row in read_rows(tmp_path / "run") if "error" in row}
    assert set(errors) == {"dots/2", "dots/7"}
    assert "the file is damaged" in errors["dots/2"]
    assert list(read_masks(tmp_path / "run")) == [f"dots/{i}" for i in range(21) if i not in (2, 7)]
    monkeypatch.setenv("DOTS_MENDED", "1")
    second = run(made, tmp_path / "run")
    assert (second.rows, second.failed) == (21, 0)
    assert rows(tmp_path / "run") == expected


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    result = run(plan("Hungry", batch_size=8), tmp_path / "run")
    assert (result.rows, result.failed) == (21, 0)
    assert {row["batch"] for row in read_rows(result.folder)} == {2}


def test_a_folder_belongs_to_one_plan(tmp_path: Path) -> None:
    undisturbed(tmp_path, "mean")
    with pytest.raises(UsageError, match="differ in batch_size, methods"):
        run(plan("telea", batch_size=8), tmp_path / "undisturbed")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no plan"):
        run(plan("mean"), tmp_path / "other")
    with pytest.raises(UsageError, match="does not exist"):
        run(plan("mean"), tmp_path / "new", shard=(3, 3))


def test_weights_that_changed_are_a_failure(tmp_path: Path) -> None:
    path = save_weights(Trained(), tmp_path / "a.safetensors")
    label = "tests.fakes_benchmark.Trained"
    made = plan("Trained", batch_size=4, weights={label: str(path)})
    assert run(made, tmp_path / "run").rows == 21
    save_weights(Trained(strength=2.0), path)
    result = run(made, tmp_path / "again")
    assert (result.rows, result.failed) == (0, 21)
    assert "changed since the plan was made" in read_rows(tmp_path / "again")[0]["error"]


def test_masks_come_from_a_manifest_where_one_is_given(tmp_path: Path) -> None:
    from zoo.data import open_dataset
    from zoo.data.masked import canvas_of

    data = open_dataset("tests.fakes_benchmark:Dots", split="test", size=24)
    canvases = [canvas_of(data, data.sample(i)) for i in range(21)]
    given = tmp_path / "given.jsonl.gz"
    make(given, canvases, dataset="dots", split="test", kind="center", seed=0)
    drawn = run(plan("mean", batch_size=4, size=24), tmp_path / "drawn")
    read = run(plan("mean", batch_size=4, size=24, manifest=given), tmp_path / "read")
    assert rows(drawn.folder) == rows(read.folder)
    assert (drawn.folder / FILE).read_bytes() == (read.folder / FILE).read_bytes()
    make(given, canvases[:20], dataset="dots", split="test", kind="center", seed=0)
    with pytest.raises(DataError, match="lacks 1 of 21 images"):
        plan("mean", size=24, manifest=given)
    make(given, canvases, dataset="dots", split="test", kind="box", seed=0)
    with pytest.raises(DataError, match="it holds 'box' masks"):
        plan("mean", size=24, manifest=given)


def test_a_full_disk_is_an_error_and_the_run_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, expected = undisturbed(tmp_path, "mean")
    real, calls = os.write, []

    def full(file: int, content: bytes) -> int:
        calls.append(file)
        if b'"id"' in content and len(calls) > 6:
            raise OSError(28, "No space left on device")
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DataError, match="No space left"):
            run(made, tmp_path / "full")
    assert 0 < len(read_rows(tmp_path / "full")) < 21
    run(made, tmp_path / "full")
    assert rows(tmp_path / "full") == expected


def test_progress_ends_where_the_work_does(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    run(plan("mean", "telea", batch_size=4), tmp_path / "run", progress=lambda *state: seen.append(state))
    assert seen[-1][:2] == (42, 42)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_only_object_masks_are_judged(tmp_path: Path) -> None:
    from zoo.data import open_dataset
    from zoo.data.masked import judge_of

    data = open_dataset("shapes", split="test", count=2)
    assert judge_of(data, "object") == data.judge  # type: ignore[attr-defined]
    assert judge_of(data, "2*object,freeform") == data.judge  # type: ignore[attr-defined]
    assert judge_of(data, "object:segmentation:3") is None
    assert judge_of(data, "freeform") is None


def test_a_mask_that_cannot_be_drawn_fails_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mask file"):
        plan("mean", mask="file")  # tried before any work
    with pytest.raises(UsageError, match="unknown class of shapes 'nope'"):
        make_plan("shapes", "class:nope", ["mean"], limit=2)
    made = replace(plan("mean", batch_size=4, limit=5), mask="file")
    result = run(made, tmp_path / "run")
    assert (result.rows, result.failed) == (0, 5)
    with pytest.raises(DataError) as reason:
        draw_mask("file", Canvas("dots", "dots/0", 24, 24))
    assert all(reason.value.what in row["error"] for row in rows(result.folder))


def test_a_full_disk_while_masks_are_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("mean", batch_size=4, limit=5)
    with monkeypatch.context() as patch:
        patch.setattr("zoo.benchmark.masks.write", _no_space)
        with pytest.raises(DataError, match="No space left on device"):
            run(made, tmp_path / "run")
    assert not (tmp_path / "run" / FILE).exists()
    assert run(made, tmp_path / "run").rows == 5


def _no_space(path: Path, manifest: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_the_first_process_of_torchrun_speaks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "--dataset", "tests.fakes_benchmark:Dots", "--mask", "center", "--models", "mean", "--json"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "zoo benchmark:" not in said.err
    assert len(read_rows(tmp_path / "run")) == 21
    assert not (tmp_path / "run" / "index.html").exists()
