"""`zoo.load`: which weights, and with which settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.fakes_benchmark import Fake, TrainedDrawing
from zoo.errors import UsageError, WeightsError
from zoo.models import changed, load
from zoo.module import InpaintingModule
from zoo.weights import load_weights, save_weights

NAME = "tests.fakes_benchmark.TrainedDrawing"


class Wide(InpaintingModule):
    """A network whose shape is a setting."""

    def __init__(self, size: int = 24, width: int = 4) -> None:
        super().__init__(size=size, multiple=4)
        self.save_hyperparameters()
        self.network = torch.nn.Conv2d(4, width, 3)


class Open(Fake):
    """Takes whatever it is given."""

    def __init__(self, size: int = 24, **more: int) -> None:
        super().__init__(size)
        self.more = more


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    module = TrainedDrawing(size=24, strength=3.0)
    with torch.no_grad():
        module.network[0].weight.fill_(0.125)
    return save_weights(module, tmp_path / "a.safetensors", preset="nano")


def test_settings_change_a_method_that_has_weights(weights: Path) -> None:
    plain, drawn = load(NAME, weights=weights), load(NAME, weights=weights, k=0.5, size=32)
    assert isinstance(plain, TrainedDrawing)
    assert isinstance(drawn, TrainedDrawing)
    assert (plain.k, plain.strength, plain.size) == (0.0, 3.0, 24)
    assert (drawn.k, drawn.strength, drawn.size) == (0.5, 3.0, 32)
    assert not drawn.training
    assert drawn.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[name]), name


def test_shipped_weights_take_settings() -> None:
    assert load("ecdm", steps=3).hparams["steps"] == 3
    assert load("ecdm").hparams["steps"] != 3


@pytest.mark.parametrize(
    ("name", "setting", "near"), [("ecdm", "stpes", "steps"), (NAME, "strenght", "strength"), ("telea", "siez", "size")]
)
def test_settings_that_a_method_does_not_have_are_refused(name: str, setting: str, near: str, weights: Path) -> None:
    words = f"unknown setting of '{name}' '{setting}'"
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        load(name, weights=weights if name == NAME else None, **{setting: 3})
    assert f"did you mean '{near}'?" in caught.value.remedy


def test_a_method_that_takes_anything_is_given_it() -> None:
    module = load(f"{__name__}.Open", colour=3)
    assert isinstance(module, Open)
    assert module.more == {"colour": 3}


def test_settings_that_the_weights_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = save_weights(Wide(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="the tensors do not fit"):
        load(f"{__name__}.Wide", weights=path, width=8)


def test_nothing_to_change_builds_nothing(weights: Path) -> None:
    module = load_weights(weights)
    assert changed(module, {}) is module


def test_a_run_of_the_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    with pytest.raises(WeightsError, match="no 'nano' weights"):
        load(NAME)
    places = (f"home/weights/{NAME}-nano.safetensors", f"runs/{NAME}-nano/inpaint/weights.safetensors")
    for strength, place in enumerate(places, 2):
        save_weights(TrainedDrawing(strength=strength), Path(place), preset="nano")
        assert load(NAME).hparams["strength"] == strength
