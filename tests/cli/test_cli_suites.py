"""`zoo benchmark --suite`: one run or several, each with its folder and its report; and `--cost`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run

from zoo.cli.benchmark import asked_runs
from zoo.cli.parsers import benchmark_parser

RUNS = {
    "quick": ["object"],
    "object": ["object"],
    "freeform": ["freeform"],
    "center": ["center"],
    "text": ["object", "object-deranged", "object-recoloured", "object-renamed"],
    "classic": ["freeform", "center"],
    "full": ["object", "object-deranged", "freeform", "center"],
}
FACTS = {"latency_median_s": 0.5, "parameters": 1_234_567}


@pytest.fixture(autouse=True)
def costs(monkeypatch: pytest.MonkeyPatch, place: Path) -> list[str]:
    """The cost pass without its processes, and what was measured in it."""
    measured: list[str] = []

    def fake(folder: Path, label: str, *rest: object) -> dict[str, float] | str:
        measured.append(label)
        return "it is broken" if label == "telea" else FACTS

    monkeypatch.setattr("zoo.benchmark.cost._measured", fake)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    return measured


@pytest.mark.parametrize("name", RUNS)
def test_every_suite_runs(name: str, zoo: Run, place: Path, costs: list[str]) -> None:
    words = ("benchmark", "--suite", name, "--limit", 2, "--models", "truth,mean", "--offline", "--json")
    done = zoo(*words)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    runs = facts["runs"] if len(RUNS[name]) > 1 else [facts]
    assert [Path(one["run"]).name.rpartition("-")[0] for one in runs] == [f"shapes-{run}" for run in RUNS[name]]
    for one in runs:
        assert list(one["methods"]) == ["truth", "mean"]
        assert (one["n"], one["failed"]) == (2, 0)
        for file in ("index.html", "table.md", "table.csv"):
            assert (place / one["run"] / file).is_file()
    assert costs == (["truth", "mean"] if name == "full" else [])
    if name == "full":
        assert {"lpips_alex", "fid_tf"} <= facts["runs"][0]["skipped"].keys()
        assert "tdanet_l1" in facts["runs"][0]["methods"]["mean"]
        assert [(place / one["run"] / "cost.json").exists() for one in runs] == [True, False, False, False]


def test_suites_are_listed(zoo: Run) -> None:
    assert {fact["name"] for fact in json.loads(zoo("list", "suites", "--json").out)} == set(RUNS)
    out = zoo("list", "suites").out
    assert all(len(line) <= 130 for line in out.splitlines())
    assert all(name in out for name in RUNS)


def test_a_suite_names_what_it_would_like_and_the_user_what_must_be_there() -> None:
    def options(*words: str) -> dict[str, object]:
        return asked_runs(benchmark_parser().parse_all(["--suite", "text", *words]))[0].options

    assert options()["leave_out"] is True
    assert "ecdm" in options()["models"]  # type: ignore[operator]
    assert "leave_out" not in options("--models", "ecdm")
    assert "leave_out" not in options("--preset", "paper")


def test_runs_that_come_to_the_same_are_one_and_folders_lie_in_out(zoo: Run, place: Path) -> None:
    words = ("benchmark", "--models", "mean", "--limit", 2, "--size", 32)
    done = zoo(*words, "--suite", "classic", "--mask", "center", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["run"].startswith("runs/shapes-center-")
    done = zoo(*words, "--suite", "classic", "--out", "both")
    assert done.code == 0, done.err
    assert sorted(path.name.rpartition("-")[0] for path in (place / "both").iterdir()) == [
        "shapes-center", "shapes-freeform"
    ]  # fmt: skip
    assert done.out.count("run: ") == 2


def test_a_run_that_cannot_be_is_left_out(zoo: Run, place: Path) -> None:
    words = ("--mask", "center", "--models", "mean", "--limit", 2, "--size", 32, "--json")
    done = zoo("benchmark", "--suite", "text", *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["run"].startswith("runs/shapes-center-")
    assert done.err.count("a run of the suite is left out: captions are edited only under object masks") == 3
    assert zoo("benchmark", "--captions", "deranged", *words).code == 2


def test_data_without_objects_have_the_runs_that_need_none(zoo: Run, place: Path, costs: list[str]) -> None:
    words = ("--dataset", "tests.fakes_benchmark:Dots", "--models", "mean", "--limit", 2, "--size", 24)
    done = zoo("benchmark", "--suite", "full", *words)
    assert done.code == 0, done.err
    assert "a run of the suite is left out: none of the first 2 images of 'dots' has an object" in done.err
    assert {path.name.split("-")[1] for path in (place / "runs").iterdir()} == {"freeform", "center"}
    alone = zoo("benchmark", *words)
    assert alone.code == 2
    assert "left out" not in alone.err


def test_the_cost_is_added_to_a_run_that_is_there(zoo: Run, place: Path, costs: list[str]) -> None:
    words = ("benchmark", "--models", "mean,telea", "--limit", 2, "--size", 32, "--out", "run")
    assert zoo(*words).code == 0
    rows = {path: path.read_bytes() for path in (place / "run" / "rows").iterdir()}
    plan = (place / "run" / "plan.json").read_bytes()
    done = zoo(*words, "--cost")
    assert done.code == 5
    assert "the cost of telea is not measured: it is broken" in done.err
    assert costs == ["mean", "telea"]
    assert {path: path.read_bytes() for path in (place / "run" / "rows").iterdir()} == rows
    assert (place / "run" / "plan.json").read_bytes() == plan
    page = (place / "run" / "index.html").read_text()
    assert "1,234,567" in page
    assert "Not measured: telea" in page
    assert zoo("report", "run").code == 0
    assert "1,234,567" in (place / "run" / "index.html").read_text()


def test_the_cost_waits_for_all_rows(zoo: Run, place: Path, costs: list[str]) -> None:
    words = ("benchmark", "--models", "mean", "--limit", 4, "--size", 32, "--batch-size", 2, "--out", "run", "--cost")
    first = zoo(*words, "--shard", "1/2")
    assert "the cost is measured once all rows are there" in first.err
    assert costs == []
    assert zoo(*words, "--shard", "2/2").code == 0
    assert costs == ["mean"]


def test_a_run_without_images_has_its_report_all_the_same(zoo: Run, place: Path) -> None:
    words = ("--dataset", "tests.fakes_benchmark:Dots", "--mask", "center", "--models", "mean", "--limit", 2)
    done = zoo("benchmark", *words, "--option", "broken=0,1", "--cost", "--out", "run")
    assert done.code == 5, done.err
    assert "no image of the run can be read" in done.err
    assert (place / "run" / "index.html").is_file()
