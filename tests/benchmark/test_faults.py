"""A fault in any stage costs its own rows and nothing else; the command exits 5, and its report says what happened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tests.benchmark.test_loop import rows
from tests.benchmark.test_plan import FAKE, plan
from tests.fakes import picture
from zoo import weights
from zoo.benchmark import gallery, processes, render_table, run, summarize
from zoo.benchmark.store import ROWS, read_rows
from zoo.cli.main import main

Rows = dict[tuple[str, str], dict[str, Any]]
MODELS = ("Mixing", "mean", "Crashing", "NotANumber", "Exhausted", "Unloadable")


def command(folder: Path, *models: str, **options: str) -> list[str]:
    labels = ",".join(FAKE + m if m[0].isupper() else m for m in models)
    words = ["--dataset", "tests.fakes_benchmark:Dots", "--mask", "center", "--models", labels, "--batch-size", "4"]
    given = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    return ["benchmark", *words, *given, "--out", str(folder)]


def by_place(folder: Path) -> Rows:
    return {(row["method"].removeprefix(FAKE), row["id"]): row for row in rows(folder)}


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("method", "id")}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of methods without faults."""
    return by_place(run(plan("Mixing", "mean", batch_size=4), tmp_path_factory.mktemp("sound") / "run").folder)


def test_faults_of_methods_and_images(sound: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Crashes, NaN, no memory on either side, a method that cannot be made, and an image that cannot be read."""
    assert main(command(tmp_path / "run", *MODELS, broken="6")) == 5
    said = capsys.readouterr()
    found = by_place(tmp_path / "run")
    errors = {place: row["error"] for place, row in found.items() if "error" in row}
    images = [f"dots/{index}" for index in range(21)]
    faults = {
        "Mixing": {6},
        "mean": {6},
        "Crashing": {3, 6, 8},
        "NotANumber": {5, 6},
        "Exhausted": {2, 6, 13},
        "Unloadable": set(range(21)),
    }
    assert set(errors) == {(method, images[index]) for method, indices in faults.items() for index in indices}
    assert len(found) == 21 * len(MODELS)
    for (method, sample), row in found.items():  # to the bit, whatever happened beside it
        if "error" not in row:
            assert numbers(row) == numbers(sound["mean" if method == "mean" else "Mixing", sample])
    for place, text in {
        ("Mixing", "dots/6"): "the file is damaged (dots/6); get it again",
        ("Crashing", "dots/3"): "RuntimeError: no idea what this is",
        ("NotANumber", "dots/5"): "not finite",
        ("Exhausted", "dots/2"): "OutOfMemoryError: CUDA out of memory",
        ("Exhausted", "dots/13"): "MemoryError: no more",
    }.items():
        assert text in errors[place]
    page = (tmp_path / "run" / "index.html").read_text()
    for method, indices in faults.items():
        label = method if method == "mean" else FAKE + method
        for report in (said.out, page):
            assert f"FAILED: {label} on {len(indices)} of 21 images" in report
    assert f"{sum(map(len, faults.values()))} of {21 * len(MODELS)} rows failed" in said.err


def test_a_disk_that_is_full_for_a_row_and_for_a_picture(
    sound: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_write, real_whole = os.write, gallery.write_whole

    def write(file: int, content: bytes) -> int:
        if content.startswith(b'{"id": "dots/5", "method": "mean"'):
            raise OSError(28, "No space left on device")
        return real_write(file, content)

    def whole(path: Path, content: bytes) -> None:
        with monkeypatch.context() as patch:
            if path.parts[-2:] == (FAKE + "Mixing", "dots_9.png"):
                patch.setattr("zoo.weights.write_atomically", _full)
            real_whole(path, content)

    words = command(tmp_path / "run", "Mixing", "mean")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(gallery, "write_whole", whole)
        assert main(words) == 5
    said = capsys.readouterr()
    assert "No space left on device" in said.err
    assert "INCOMPLETE: 2 rows are missing" in said.out
    left = {place: row for place, row in sound.items() if place not in {("mean", "dots/5"), ("Mixing", "dots/9")}}
    assert by_place(tmp_path / "run") == left
    assert run(plan("Mixing", "mean", batch_size=4), tmp_path / "run").complete
    assert by_place(tmp_path / "run") == sound


def _full_of(count: int) -> Callable[[Path, bytes], None]:
    """As `write_atomically`, as long as there is space."""
    real, done = weights.write_atomically, []

    def write(path: Path, content: bytes) -> None:
        done.append(path)
        if len(done) > count:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    return write


def _full(path: Path, content: bytes) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_a_disk_that_stays_full_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("zoo.weights.write_atomically", _full_of(20))
        assert main(command(tmp_path / "run", "mean")) == 5
    said = capsys.readouterr()
    count = len(read_rows(tmp_path / "run"))
    assert 0 < count < 21
    assert f"INCOMPLETE: {21 - count} rows are missing; the same command goes on" in said.out
    assert not (tmp_path / "run" / "index.html").exists()


def test_a_lost_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in (2, 0, 1):
        assert run(plan("mean", batch_size=4), tmp_path / "run", shard=(part, 3)).missing == 0
    sorted((tmp_path / "run" / ROWS).iterdir())[0].unlink()
    missing = 21 - len(read_rows(tmp_path / "run"))
    assert missing in (5, 8)
    assert main(["report", str(tmp_path / "run")]) == 5
    assert f"INCOMPLETE: {missing} rows are missing; the same command goes on" in capsys.readouterr().out
    assert f"INCOMPLETE: {missing} rows are missing" in (tmp_path / "run" / "index.html").read_text()
    assert run(plan("mean", batch_size=4), tmp_path / "run", shard=(2, 3)).missing == 0
    assert run(plan("mean", batch_size=4), tmp_path / "run").complete


def test_a_loader_that_dies(sound: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    made = plan("Mixing", batch_size=4, data_options={"deadly": "6,20"})
    result = run(made, tmp_path / "run", workers=2)
    assert (result.rows, result.failed, result.missing) == (19, 2, 0)
    for place, row in by_place(tmp_path / "run").items():
        if place[1] in ("dots/6", "dots/20"):
            assert row["error"] == "the process that read this image died"
        else:
            assert row == sound[place]


def test_a_process_that_dies(sound: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START", "fork")
    monkeypatch.setattr(processes, "PAUSE", 0.05)
    made = plan("Deadly", "mean", batch_size=4)
    result = run(made, tmp_path / "run", devices=2)
    assert (result.rows, result.failed, result.missing) == (38, 4, 0)
    found = by_place(tmp_path / "run")
    lost = {("Deadly", f"dots/{index}") for index in range(8, 12)}
    assert {place for place, row in found.items() if "error" in row} == lost
    assert all("was ended by signal 9" in found[place]["error"] for place in lost)
    assert all(row == sound[place] for place, row in found.items() if place[0] == "mean")
    text = render_table(summarize(tmp_path / "run"), width=120)
    assert f"FAILED: {FAKE}Deadly on 4 of 21 images: the process that measured this image was ended by signal 9" in text
    assert list((tmp_path / "run" / "leases").iterdir()) == []
    again = run(made, tmp_path / "run")  # it harms no process that nobody has started
    assert (again.rows, again.failed) == (42, 0)


def test_text_that_no_file_can_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A caption cut in the middle of an emoji costs its own rows; a file name that is no UTF-8 is said at once."""
    images = tmp_path / "images"
    images.mkdir()
    entries = [{"file": f"{k}.png", "caption": "plain \ud83d" if k == 1 else "a cat"} for k in range(3)]
    for k, entry in enumerate(entries):
        Image.fromarray(picture(32, 32, k)).save(images / entry["file"])
    (images / "captions.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    command = ["benchmark", "--dataset", "folder", "--data.root", str(images), "--mask", "center", "--size", "32"]
    command += ["--models", "telea,mean", "--devices", "1"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 5
    rows = list(read_rows(tmp_path / "run"))
    failed = [row for row in rows if "error" in row]
    assert (len(rows), {row["id"] for row in failed}, len(failed)) == (6, {"folder/all/1"}, 2)
    assert "no Unicode text: 'plain \\ud83d' (the caption of folder/all/1)" in failed[0]["error"]
    (images / "1.png").rename(images / os.fsdecode(b"\xff.png"))
    (images / "captions.jsonl").unlink()
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "other")]) == 3
    assert "'folder/all/\\udcff'" in capsys.readouterr().err
