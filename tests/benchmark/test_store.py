"""Rows on disk: whole lines or none, one row per measurement."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from zoo.benchmark.store import Writer, constant, read_file, read_rows
from zoo.errors import DataError, UsageError


def row(sample: str, **more: Any) -> dict[str, Any]:
    return {"id": sample, "method": "mean", "weights": "", "caption": "", "seed": 0, "l1": 0.5, "at": "now"} | more


def write(path: Path, *rows: dict[str, Any]) -> None:
    with Writer(path) as store:
        for one in rows:
            store.append(one)


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("b", l1=0.1 + 0.2), row("a", l1=None, caption="Grüße\n\u2028"))
    assert [r["id"] for r in read_rows(tmp_path)] == ["a", "b"]
    assert read_rows(tmp_path)[1]["l1"] == 0.1 + 0.2
    assert read_rows(tmp_path)[0]["caption"] == "Grüße\n\u2028"


@pytest.mark.parametrize(
    "torn", [b'{"id": "c", "meth', b'{"id": "c"\x00\x00\n', b'{"id": "c", "method": 3', b"\xff\xfe"]
)
def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("a"), row("b"))
    with path.open("ab") as file:
        file.write(torn)
    assert [r["id"] for r in read_rows(tmp_path)] == ["a", "b"]
    write(path, row("c"))
    assert [r["id"] for r in read_file(path)] == ["a", "b", "c"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("a"))
    path.write_text("{\n" + path.read_text())
    with pytest.raises(DataError, match=r"mean-0of1.jsonl:1"):
        read_rows(tmp_path)


def test_one_row_per_measurement(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "mean-0of2.jsonl", row("a"), row("b", error="first"), row("b", error="second"))
    write(tmp_path / "rows" / "mean-1of2.jsonl", row("a", at="later", seconds=3), row("c", error="gone"), row("c"))
    rows = {r["id"]: r for r in read_rows(tmp_path)}
    assert len(read_rows(tmp_path)) == 3
    assert rows["b"]["error"] == "second"
    assert "error" not in rows["c"]
    assert constant(rows["a"]) == constant(row("a"))
    write(tmp_path / "rows" / "mean-1of2.jsonl", row("a", l1=0.25))
    with pytest.raises(DataError, match="differ in l1"):
        read_rows(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "rows" / "mean-0of1.jsonl", os.write

    def full(file: int, content: bytes) -> int:
        if len(content) > 20:
            return real(file, content[:20])  # some of it fits
        raise OSError(errno.ENOSPC, "No space left on device")

    with Writer(path) as store:
        store.append(row("a"))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DataError, match="No space left on device") as caught:
            store.append(row("b"))
        assert "same command again" in str(caught.value)
    monkeypatch.undo()
    assert [r["id"] for r in read_file(path)] == ["a"]
    assert path.read_bytes().endswith(b"\n")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    with Writer(path), pytest.raises(UsageError, match="another process"):
        Writer(path)
    write(path, row("a"))


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.jsonl") as store, pytest.raises(ValueError):
        store.append(row("a", l1=float("nan")))
