"""Summary, tables, strip and page of a run."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmark.test_plan import plan
from zoo.benchmark import render_table, run, summarize, to_json, write_report
from zoo.benchmark.store import read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    run(plan("truth", "mean", "Crashing", batch_size=4), folder)
    return folder


def test_means_and_counts_are_those_of_the_rows(folder: Path) -> None:
    content = to_json(summarize(folder))
    assert (content["n"], content["failed"], content["run"]) == (21, 2, str(folder))
    by_method: dict[str, list[float]] = {}
    for row in read_rows(folder):
        if "error" not in row:
            by_method.setdefault(row["method"], []).append(row["l1_hole"])
    for method, values in by_method.items():
        found = content["methods"][method]["l1_hole"]
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["n"] == len(values)
        assert found["lo"] <= found["mean"] <= found["hi"]
    assert content["methods"]["truth"]["psnr"] == {"mean": 100.0, "lo": 100.0, "hi": 100.0, "n": 21}
    json.dumps(content, allow_nan=False)


def test_the_interval_is_the_bootstraps(folder: Path) -> None:
    values = [row["l1_hole"] for row in read_rows(folder) if row["method"] == "mean"]
    found = to_json(summarize(folder))["methods"]["mean"]["l1_hole"]
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert found["hi"] - found["lo"] == pytest.approx(2 * half, rel=0.25)


def test_the_tables_say_n_intervals_and_failures(folder: Path) -> None:
    files = {path.name: path for path in write_report(folder)}
    assert {"table.md", "table.csv", "summary.json", "strip.png", "index.html"} <= set(files)
    for text in (render_table(summarize(folder), width=160), files["table.md"].read_text()):
        assert "n = 21" in text
        assert "Crashing" in text
        assert "fail" in text
    with files["table.csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["method"] for row in table} >= {"truth", "mean"}


def test_the_page_is_self_contained_and_escapes_captions(folder: Path) -> None:
    write_report(folder)
    page = (folder / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(0)&lt;/script&gt;" in page
    assert not re.search(r"""(?:src|href)=(?!["']?(?:data:|#))""", page), "nothing may be fetched"
    assert not re.search(r"url\((?!#|data:)", page)
    assert 'name="viewport"' in page
    assert page.count("data:image/png") >= 3


def test_the_strip_has_a_column_per_picture(folder: Path) -> None:
    write_report(folder)
    strip = np.asarray(Image.open(folder / "strip.png").convert("RGB"))
    truth = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("images/truth/*.png"))]
    assert truth
    assert strip.shape[1] >= 4 * truth[0].shape[1], "input, mean, Crashing, truth"
    assert strip.shape[0] > truth[0].shape[0]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run(plan("mean", batch_size=4), tmp_path / "run", shard=(0, 2))
    text = render_table(summarize(tmp_path / "run"), width=120)
    assert re.search("incomplete|unfinished|missing", text)
