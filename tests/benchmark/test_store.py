"""Rows on disk: whole lines or none, one row per measurement."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from zoo.benchmark.store import Seen, StorageError, Writer, constant, merge, read_file, read_rows
from zoo.errors import DataError


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
def test_a_torn_last_line_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("a"), row("b"))
    with path.open("ab") as file:
        file.write(torn)
    write(tmp_path / "rows" / "mean-later.jsonl", row("c"))
    assert [r["id"] for r in read_file(path)] == ["a", "b"]
    assert [r["id"] for r in read_rows(tmp_path)] == ["a", "b", "c"]
    assert Seen(tmp_path).measured == {"mean": {"a", "b", "c"}}


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("a"))
    path.write_text("{\n" + path.read_text())
    for read in (read_rows, Seen):
        with pytest.raises(DataError, match=r"mean-0of1.jsonl:1"):
            read(tmp_path)


def test_one_row_per_measurement(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "mean-0of2.jsonl", row("a"), row("b", error="first"), row("b", error="second"))
    write(tmp_path / "rows" / "mean-1of2.jsonl", row("a", at="later", seconds=3), row("c", error="gone"), row("c"))
    rows = {r["id"]: r for r in read_rows(tmp_path)}
    assert len(read_rows(tmp_path)) == 3
    assert rows["b"]["error"] == "second"
    assert "error" not in rows["c"]
    assert constant(rows["a"]) == constant(row("a"))


def test_a_merge_is_loud_about_double_and_missing_ids_and_has_no_order(tmp_path: Path) -> None:
    rows = [row("a"), row("b"), row("c", error="gone")]
    assert merge(rows, {"mean": "abc"}) == merge(reversed(rows), {"mean": "cab"}) == rows
    for other, what in (({"l1": 0.25}, "l1"), ({"seed": 1}, "seed"), ({"weights": "11"}, "weights")):
        with pytest.raises(DataError, match=rf"differ in {what}\n  where: mean on b"):
            merge([*rows, row("b", **other)])
    with pytest.raises(DataError, match="2 rows are missing\n  where: mean on d, telea on a"):
        merge(rows, {"mean": "abcd", "telea": "a"})
    with pytest.raises(DataError, match="1 rows are not of this plan\n  where: mean on c"):
        merge(rows, {"mean": "ab"})
    write(tmp_path / "rows" / "mean-1.jsonl", *rows)
    with pytest.raises(DataError, match="1 rows are missing"):
        read_rows(tmp_path, {"mean": "abcd"})


def test_what_others_add_is_seen(tmp_path: Path) -> None:
    first, second = (tmp_path / "rows" / f"mean-{k}.jsonl" for k in (1, 2))
    write(first, row("a"), row("b", error="before"))
    seen = Seen(tmp_path)
    assert (seen.measured, seen.settled) == ({"mean": {"a"}}, {"mean": {"a"}}), "what failed before is tried again"
    line = (json.dumps(row("c")) + "\n").encode()
    with first.open("ab") as file:
        file.write(line[:9])
    write(second, row("d", error="since"))
    seen.look()
    assert (seen.measured["mean"], seen.settled["mean"]) == ({"a"}, {"a", "d"})
    with first.open("ab") as file:
        file.write(line[9:])
    seen.look()
    assert (seen.measured["mean"], seen.settled["mean"]) == ({"a", "c"}, {"a", "c", "d"})


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


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "mean-0of1.jsonl"
    write(path, row("a"))
    with pytest.raises(StorageError, match="exists"):
        Writer(path)
    assert [r["id"] for r in read_file(path)] == ["a"]


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.jsonl") as store, pytest.raises(ValueError):
        store.append(row("a", l1=float("nan")))
