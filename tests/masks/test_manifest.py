"""Manifests: round trip, and every kind of damage."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import DataError
from zoo.masks import Canvas, draw_mask
from zoo.masks.manifest import Entry, _counts, make, read, verify


def canvases(count: int = 5, size: int = 32) -> Iterator[Canvas]:
    for i in range(count):
        yield Canvas("fake", f"fake/test/{i}", size, size)


def write(path: Path, kind: str = "freeform", count: int = 5) -> Path:
    make(path, canvases(count), dataset="fake", split="test", kind=kind, seed=3)
    return path


def damage(path: Path, line: int, change: dict[str, object]) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **change})
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def test_round_trip_gives_the_same_masks_and_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl.gz"), write(tmp_path / "b.jsonl.gz")
    assert first.read_bytes() == second.read_bytes()
    manifest = read(first)
    assert (manifest.dataset, manifest.split, manifest.kind, manifest.seed) == ("fake", "test", "freeform", 3)
    for canvas in canvases():
        drawn = draw_mask("freeform", canvas, 3)
        assert np.array_equal(manifest.mask(canvas.id), drawn)
        assert manifest.entries[canvas.id].ratio == pytest.approx(drawn.mean(), abs=1e-6)
    assert verify(first, canvases()) == []


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (64, 40)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_mask_survives(shape: tuple[int, int], share: float) -> None:
    mask = (np.random.default_rng(0).random(shape) < share).astype(np.uint8)
    entry = Entry.of("x", mask)
    assert np.array_equal(entry.mask(), mask)
    assert sum(_counts(entry.rle)) == mask.size


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sha": "0" * 64}, "hash differs"),
        ({"ratio": 0.5}, "the ratio is"),
        ({"size": [32, 33]}, "do not fill"),
        ({"rle": "0"}, "do not fill"),
        (
            {"size": [5, 6], "rle": "d0L>"},
            "do not fill",
        ),  # runs of 20, -4, 14
    ],
)
def test_verify_finds_a_changed_mask(tmp_path: Path, change: dict[str, object], text: str) -> None:
    path = write(tmp_path / "a.jsonl.gz")
    damage(path, 2, change)
    problems = verify(path)
    assert len(problems) == 1
    assert text in problems[0]
    assert problems[0].startswith("fake/test/1")


def test_verify_draws_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz")
    damage(path, 0, {"seed": 4})
    assert len(verify(path, canvases())) == 5
    assert verify(path, canvases(6))[-1] == "fake/test/5: missing"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "torn or damaged"),
        (b"not gzip", "torn or damaged"),
        (gzip.compress(b"{}", mtime=0), "not a mask manifest"),
        (gzip.compress(b"[1]\n", mtime=0), "not a mask manifest"),
        (gzip.compress(b'{"format": "inpainting-zoo-masks/1", "count": 1}\nx', mtime=0), "torn or damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        read(path)


def test_torn_repeated_and_missing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="torn or damaged"):
        read(path)
    path.write_bytes(whole)
    damage(path, 0, {"count": 6})
    with pytest.raises(DataError, match="5 masks where the first line says 6"):
        read(path)
    path.write_bytes(whole)
    damage(path, 2, {"id": "fake/test/0"})
    with pytest.raises(DataError, match="comes twice"):
        read(path)
    with pytest.raises(DataError, match="no such mask manifest"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match="same id"):
        make(path, [*canvases(1), *canvases(1)], dataset="fake", split="test", kind="box")
    with pytest.raises(DataError, match="no mask for this image"):
        read(write(path)).mask("fake/test/9")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl.gz")
    before = path.read_bytes()

    def full(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "box")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl.gz"]
