"""Baselines of published weights in the benchmark: found before any work, built once, at a size of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes_benchmark import DATA
from tests.fakes_stable_diffusion import save_control, save_pipeline
from zoo.benchmark import make_plan, run
from zoo.benchmark.loop import load_method
from zoo.benchmark.store import failed, read_rows
from zoo.errors import UsageError, WeightsError
from zoo.models import BASELINES, load, names, recipe, resolve
from zoo.models.ecdm import baselines


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each baseline must be told to run on tiny networks on disk."""
    root = tmp_path_factory.mktemp("hub")
    plain, nine = str(save_pipeline(root / "plain")), str(save_pipeline(root / "nine", channels=9))
    small = {"steps": 2, "size": 24}
    return {
        "sd_inpaint": {"source": nine, **small},
        "controlnet_inpaint": {"source": plain, "control": str(save_control(root / "control")), **small},
        "blended_latent": {"source": plain, **small},
    }


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_baseline_runs_through_the_benchmark(
    name: str, settings: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_plan(DATA, "center", [name], settings={name: settings[name]}, limit=2)
    assert made.size == 24
    built: list[str] = []
    original = baselines.hub.load
    monkeypatch.setattr(baselines.hub, "load", lambda part, *a, **k: built.append(part) or original(part, *a, **k))  # type: ignore[func-returns-value]
    module = load_method(made.methods[0])
    assert module.hparams["steps"] == 2
    assert built.count("unet") == 1
    result = run(made, tmp_path / "run")
    assert (result.rows, result.failed) == (2, 0)
    assert not any(map(failed, read_rows(tmp_path / "run")))


@pytest.mark.parametrize("name", list(BASELINES))
def test_weights_that_are_not_here_are_one_error_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"is not here[\s\S]*hf download stable-diffusion-v1-5") as caught:
        make_plan(DATA, "center", [name])
    assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match="takes no weights"):
        make_plan(DATA, "center", [name], {name: "a.safetensors"})


def test_no_baseline_is_chosen_by_default() -> None:
    made = make_plan(DATA, "center")
    assert not {method.name for method in made.methods} & set(BASELINES)
    assert not set(made.left_out) & set(BASELINES)
    assert not set(names()) & set(BASELINES)
    with pytest.raises(UsageError, match="unknown model"):
        recipe("sd_inpaint", "nano")


def test_settings_reach_the_only_construction(settings: dict[str, dict[str, Any]]) -> None:
    module = load("blended_latent", **settings["blended_latent"])
    assert (module.size, module.hparams["steps"]) == (24, 2)
    assert load("mean").size == 64
    assert load("mean", size=32).size == 32


def test_the_size_is_their_own(settings: dict[str, dict[str, Any]]) -> None:
    options = {name: value for name, value in settings["sd_inpaint"].items() if name != "size"}
    made = make_plan("shapes", "center", ["sd_inpaint"], settings={"sd_inpaint": options}, limit=1)
    assert made.size == 512
    assert resolve("sd_inpaint").stochastic
