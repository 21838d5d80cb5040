"""`zoo validate`, `zoo test` and `zoo predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Run
from PIL import Image

DATA = ("--size", "32", "--data.val_count", "6", "--data.test_count", "6", "--data.batch_size", "4")


def _values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in text.splitlines())}


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_control_needs_no_weights(verb: str, zoo: Run) -> None:
    done = zoo(verb, "--model", "truth", *DATA)
    assert done.code == 0, done.err
    assert _values(done.out)["l1"] == 0.0
    assert _values(done.out)["psnr"] == 100.0


def test_masks_change_what_is_scored(zoo: Run) -> None:
    first, second = (
        _values(zoo("test", "--model", "mean", "--mask", kind, *DATA).out) for kind in ("object", "center")
    )
    assert first["l1_hole"] != second["l1_hole"]


def test_the_weights_of_the_run_are_found(zoo: Run, place: Path) -> None:
    assert zoo("fit", "--model", "toymethod.Toy", *SMALL).code == 0
    data = (*DATA, "--seed", "1")
    own = zoo("test", "--model", "toymethod.Toy", *data)
    assert own.code == 0, own.err
    weights = "runs/toymethod.Toy-nano/inpaint/weights.safetensors"
    assert weights in own.err
    for given in (weights, f"toymethod.Toy={weights}"):
        assert zoo("test", "--model", "toymethod.Toy", *data, "--weights", given).out == own.out
    resumed = zoo("test", "--model", "toymethod.Toy", *data, "--resume", "auto")
    assert resumed.out == own.out
    other = zoo("test", "--model", "toymethod.Toy", *data, "--weights", f"telea={weights}")
    assert other.code == 2


def test_without_weights_the_error_says_how_to_get_them(zoo: Run) -> None:
    done = zoo("test", "--model", "deepfill", "--preset", "paper", *DATA)
    assert done.code == 4
    assert "zoo fit --model deepfill" in done.err
    assert zoo("test", "--model", "deepfill", "--weights", "nowhere.safetensors", *DATA).code == 4


def test_predict_writes_every_image(zoo: Run, place: Path) -> None:
    done = zoo("predict", "--model", "truth", *DATA, "--out", "run")
    assert done.code == 0, done.err
    files = sorted((place / "run" / "predictions").rglob("*.png"))
    assert len(files) == 6
    from zoo.data import open_dataset

    truth = open_dataset("shapes", split="test", size=32, count=6)
    for index, file in enumerate(files):
        assert np.array_equal(np.asarray(Image.open(file)), truth.sample(index).image)
