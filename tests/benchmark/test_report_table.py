"""Rows as columns: what they hold, what they refuse, and that they say what the rows say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.speed.report import make_run
from tests.benchmark.test_plan import plan
from zoo.benchmark import run, summarize, write_report
from zoo.benchmark.plan import Plan
from zoo.benchmark.store import constant, failed, read_rows
from zoo.benchmark.summary import META
from zoo.benchmark.tables import Table
from zoo.benchmark.tables_read import read_table
from zoo.errors import DataError
from zoo.metrics.statistics import interval, paired_difference


def table_of(folder: Path) -> Table:
    return read_table(folder, Plan.read(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of three methods on 40 images, made up."""
    folder = tmp_path_factory.mktemp("table") / "run"
    assert make_run(folder, 40, 3, seed=1) == 120
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    make_run(folder, 40, 3, seed=1)
    return folder


def test_columns_hold_what_rows_hold(made: Path) -> None:
    table, rows = table_of(made), read_rows(made)
    assert table.ids == sorted({row["id"] for row in rows})
    assert table.labels == ("method0", "method1", "telea")
    assert table.measured.all()
    for row in rows:
        place, column = table.ids.index(row["id"]), table.labels.index(row["method"])
        numbers = {name for name in row if name not in META}
        assert set(table.metrics) == numbers
        assert all(table.values[name][place, column] == row[name] for name in numbers)
        assert table.ratios[place] == row["hole_ratio"]
        assert table.captions[row["id"]] == row["caption"]
        assert table.image_hashes[place] == row["image_hash"]
    assert "seconds" in table.values
    assert "seconds" not in table.metrics
    by_key = sorted(table.rows(), key=lambda row: (row["method"], row["id"]))
    assert by_key == sorted(rows, key=lambda row: (row["method"], row["id"]))


def test_failures_samples_and_undefined_values(tmp_path: Path) -> None:
    from tests.benchmark.test_samples import MOODY

    folder = run(plan("Moody", "Crashing", batch_size=4, samples=2), tmp_path / "run").folder
    table, rows = table_of(folder), read_rows(folder)
    crashing = next(label for label in table.labels if label.endswith("Crashing"))
    assert table.failures[crashing] == {
        row["id"]: row["error"] for row in rows if failed(row) and row["method"] == crashing
    }
    assert table.measured.sum() == sum(not failed(row) for row in rows)
    column = table.labels.index(MOODY)
    for row in rows:
        place = table.ids.index(row["id"])
        if row["method"] == MOODY and not failed(row):
            assert table.values["samples.diversity"][place, column] == row["samples"]["diversity"]
            assert table.values["samples.l1_hole.mean"][place, column] == row["samples"]["l1_hole"]["mean"]
        if failed(row):
            assert math.isnan(table.values["l1_hole"][place, table.labels.index(row["method"])])
    assert not [name for name in table.metrics if name.startswith("samples")]
    outlines = table.outlines(crashing)
    assert [one["id"] for one in outlines] == table.ids
    assert [one["id"] for one in outlines if failed(one)] == sorted(table.failures[crashing])
    assert len(list(table.rows())) == len(rows)


def edit(folder: Path, label: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    path = folder / "rows" / f"{label}-0of4.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


def test_equal_rows_of_two_writers_count_once(copied: Path) -> None:
    before = table_of(copied)
    twin = (copied / "rows" / "telea-0of4.jsonl").read_text().splitlines()[:3]
    later = [json.dumps({**json.loads(line), "seconds": 9.0, "at": "later"}) for line in twin]
    (copied / "rows" / "telea-zz.jsonl").write_text("\n".join(later) + "\n")
    after = table_of(copied)
    assert all(np.array_equal(before.values[name], after.values[name], equal_nan=True) for name in before.values)
    assert [constant(row) for row in after.rows()] == [constant(row) for row in before.rows()]


def test_rows_that_differ_are_refused(copied: Path) -> None:
    twin = json.loads((copied / "rows" / "telea-0of4.jsonl").read_text().splitlines()[2])
    (copied / "rows" / "telea-zz.jsonl").write_text(json.dumps({**twin, "psnr": 1.0}) + "\n")
    with pytest.raises(DataError, match="differ in psnr") as caught:
        table_of(copied)
    assert caught.value.where == f"telea on {twin['id']}"


def test_other_pixels_are_refused(copied: Path) -> None:
    edit(copied, "telea", lambda rows: [{**rows[0], "image_hash": "other"}, *rows[1:]])
    with pytest.raises(DataError, match="different pixels"):
        table_of(copied)


def test_a_failure_counts_until_its_image_is_measured(copied: Path) -> None:
    edit(copied, "method0", lambda rows: [{"method": "method0", "id": rows[0]["id"], "error": "old"}, *rows])
    assert table_of(copied).failures["method0"] == {}
    first: list[str] = []

    def fail(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first.append(rows[1]["id"])
        return [{**row, "error": "new"} if row["id"] == rows[1]["id"] else row for row in rows]

    edit(copied, "method0", fail)
    table = table_of(copied)
    assert table.failures["method0"] == {first[0]: "new"}
    assert not table.measured[table.ids.index(first[0]), 0]
    assert np.isnan(table.values["psnr"][table.ids.index(first[0]), 0])


def test_a_torn_last_line_is_passed_over_and_a_damaged_one_is_not(copied: Path) -> None:
    path = copied / "rows" / "telea-3of4.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "coco/te')
    assert table_of(copied).measured.all()
    path.write_bytes(b'{"id": "coco/te\n' + whole)
    with pytest.raises(DataError, match="not a row") as caught:
        table_of(copied)
    assert caught.value.where == f"{path}:1"


def test_rows_of_no_method_of_the_plan_are_passed_over(copied: Path) -> None:
    edit(copied, "telea", lambda rows: [*rows, {**rows[0], "method": "stranger", "image_hash": "other"}])
    assert table_of(copied).measured.sum() == 120


def test_a_run_without_pictures_has_a_report(copied: Path) -> None:
    files = {path.name for path in write_report(copied)}
    assert "index.html" in files
    assert "strip.png" not in files
    assert summarize(copied).failed == 0
    assert 'id="gallery"' not in (copied / "index.html").read_text()


def test_the_last_failure_counts_whichever_file_it_is_in(copied: Path) -> None:
    image: list[str] = []

    def fail(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        image.append(rows[0]["id"])
        return [{"method": "method0", "id": rows[0]["id"], "error": "late", "at": "2026-02-02"}, *rows[1:]]

    edit(copied, "method0", fail)
    early = {"method": "method0", "id": image[0], "error": "early", "at": "2026-01-01"}
    (copied / "rows" / "method0-zz.jsonl").write_text("\n" + json.dumps(early) + "\n")
    assert table_of(copied).failures["method0"] == {image[0]: "late"}


def test_a_summary_says_what_one_column_at_a_time_says(copied: Path) -> None:
    def hide(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[0], "psnr": None}, *({**row, "colour_fidelity": 1.0, "objects": 2} for row in rows[1:])]

    edit(copied, "method0", hide)
    found, table = summarize(copied), table_of(copied)
    method, column = found.methods["method0"], table.labels.index("method0")
    for name, value in method.metrics.items():
        alone = interval(table.values[name][:, column])
        assert value.n == alone.n
        assert value[:3] == pytest.approx(alone[:3], rel=1e-12)
    assert method.metrics["psnr"].n == 39
    assert method.by_objects == {"colour_fidelity": {2: method.metrics["colour_fidelity"]}}
    (difference,) = (d for d in found.differences if (d.metric, d.method) == ("l1_hole", "method0"))
    ours, theirs = table.columns("l1_hole", ["method0", "telea"]).values()
    assert difference.value[:3] == pytest.approx(paired_difference(ours, theirs)[:3], rel=1e-12)
