"""`zoo benchmark --dataset coco --mask object`, as typed, on a small tree: every method whose weights are here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run

from tests.fakes import instance, picture, write_coco
from zoo.models import CONTROLS, MODELS
from zoo.weights import shipped

CAPTIONS = {
    42: "Zwei Kätzchen & a <b>tabby</b> sprawled on somebody's laptop.",
    43: "",
    44: "!!! 2 skateboarders, grinding; " + "very " * 60 + "fast",
}


def tree(root: Path) -> Path:
    """Captions of which no word is in the vocabulary of the shipped weights, one without a word, and a long one."""
    pictures = {number: picture(60, 80, number) for number in CAPTIONS}
    things = [instance(number, 17, (20, 10, 40, 40)) for number in CAPTIONS]
    return write_coco(root, "val2017", pictures, {number: [text] * 5 for number, text in CAPTIONS.items()}, things)


def test_every_method_runs_and_says_what_its_weights_were_trained_on(zoo: Run, place: Path) -> None:
    tree(place / "data" / "coco")
    words = ("benchmark", "--dataset", "coco", "--mask", "object", "--limit", 3, "--batch-size", 3)
    done = zoo(*words)
    assert done.code == 0, done.err
    there = [name for name in MODELS if shipped(name)]
    assert {"deepfill", "cma", "nigdt"} <= set(there)
    for name in there:
        assert f"zoo benchmark: {name}: preset nano, trained on shapes" in done.err
        assert f"{name} " in done.out
    for name in MODELS.keys() - set(there):
        assert f"zoo benchmark: {name} is left out: no 'nano' weights" in done.err
        assert f"left out: {name} (no 'nano' weights" in done.out
    assert "3 images of coco, object masks, 64 pixels" in done.err
    facts = json.loads(zoo(*words, "--json").out)
    assert list(facts["methods"]) == [*there, *CONTROLS]
    assert all(metrics["l1_hole"]["n"] == 3 for metrics in facts["methods"].values())
    assert facts["methods"]["truth"]["l1"]["mean"] == 0.0
    folder = place / facts["run"]
    rows = [json.loads(line) for path in (folder / "rows").iterdir() for line in path.open()]
    trained = {row["method"]: (row["preset"], row["trained_on"]) for row in rows}
    assert trained == {**dict.fromkeys(there, ("nano", "shapes")), **dict.fromkeys(CONTROLS, ("-", ""))}
    assert {row["caption"] for row in rows} == set(CAPTIONS.values())
    page = (folder / "index.html").read_text()
    for text in (done.out, (folder / "table.md").read_text(), page):
        assert text.count("weights from other data: nano, trained on shapes") == len(there)
    assert "<b>tabby</b>" not in page


def test_the_tree_may_lie_elsewhere(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("benchmark", "--dataset", "coco", "--mask", "object", "--models", "mean", "--limit", 2, "--json")
    absent = zoo(*words)
    assert absent.code == 3
    assert "data/coco" in absent.err
    monkeypatch.setenv("ZOO_DATA", str(place / "elsewhere"))
    tree(place / "elsewhere" / "coco")
    done = zoo(*words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["n"] == 2
