"""`--parquet`: every row as one file, and what is said where the library for it is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed.report import make_run
from zoo.benchmark import write_report
from zoo.benchmark.plan import Plan
from zoo.benchmark.store import read_file
from zoo.benchmark.tables import chunks
from zoo.benchmark.tables_parquet import write_parquet
from zoo.benchmark.tables_read import read_table
from zoo.cli.main import main
from zoo.errors import UsageError

ROWS = 40 * 3


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Rows of three methods on 40 images, made up; with a failure, an undefined value and a whole number."""
    folder = tmp_path / "run"
    assert make_run(folder, 40, 3, seed=1) == ROWS
    path = folder / "rows" / "telea-0of4.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] = {name: rows[0][name] for name in ("method", "id")} | {"error": "so | <so>"}
    rows[1] |= {"psnr": None, "ssim": 1}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_row_is_there(made: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (path,) = (path for path in write_report(made, parquet=True) if path.suffix == ".parquet")
    found = parquet.read_table(path).to_pylist()
    stored = (row for file in (made / "rows").glob("*.jsonl") for row in read_file(file))
    rows = {(row["method"], row["id"]): row for row in stored}
    assert len(found) == len(rows) == ROWS
    for row in found:
        expected = rows[row["method"], row["id"]]
        if "guidance" in expected:
            expected = {**expected, "guidance": json.dumps(expected["guidance"])}
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in expected.items() if value is not None
        }
    kinds = {field.name: str(field.type) for field in parquet.read_schema(path)}
    assert (kinds["psnr"], kinds["ssim"], kinds["batch"], kinds["caption"]) == ("double", "double", "int64", "string")
    assert not list(made.glob("*.part"))


def test_rows_come_in_chunks() -> None:
    rows = [{"id": str(number)} for number in range(5)]
    assert [len(chunk) for chunk in chunks(iter(rows), 2)] == [2, 2, 1]
    assert list(chunks(iter([]), 2)) == []


def test_without_the_library_it_says_so_before_any_work(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["report", str(made), "--parquet"]) == 2
    error = capsys.readouterr().err
    assert "pyarrow" in error
    assert 'pip install ".[parquet]"' in error
    assert not (made / "summary.json").exists()
    table = read_table(made, Plan.read(made))
    with pytest.raises(UsageError, match="pyarrow"):
        write_parquet(table, made / "rows.parquet")
    assert not (made / "rows.parquet").exists()
