"""ECDM on a base and the baselines from the command line: what a base brings is not trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Run
from tests.fakes_ecdm import BASED
from tests.fakes_stable_diffusion import save_control, save_pipeline
from zoo.weights import read_header

WEIGHTS = Path("inpaint") / "weights.safetensors"


@pytest.mark.slow
def test_on_a_base_the_student_alone_is_trained_and_completes(zoo: Run, zoo_process: Run, place: Path) -> None:
    base = save_pipeline(place / "base")
    sources = {"base": base, "teacher_source": save_control(place / "canny"), "student_source": ""}
    options = [f"--model.{name}={value}" for name, value in {**BASED, **sources}.items() if name != "size"]
    command = ["--model", "ecdm", "--preset", "paper", "--data", "shapes", "--size", "32", "--out", "run", *options]
    brief = ["--data.batch_size", "2", "--data.val_count", "2", "--trainer.max_steps", "1", "--data.train_count", "8"]
    done = zoo_process("fit", *command, *brief)
    assert done.code == 0, done.err
    assert [path.name for path in Path("run").iterdir() if path.is_dir()] == ["inpaint"]
    assert {name.split(".")[0] for name in load_file(Path("run") / WEIGHTS)} == {"student"}
    assert not Path("run/vocabulary.json").exists()
    assert read_header(Path("run") / WEIGHTS).licence == "; ".join(
        f"that of the weights in '{place / name}'" for name in ("base", "canny")
    )
    asked = ["--models", f"ecdm=run/{WEIGHTS}", "--limit", "2", "--set", "ecdm.steps=2"]
    measured = zoo("benchmark", *asked, "--out", "table")
    assert measured.code == 0, measured.err
    gone = zoo("benchmark", *asked, "--set", f"ecdm.base={place / 'gone'}", "--out", "other")
    assert gone.code == 4
    assert "nano needs no such weights" in gone.err
    assert not Path("other").exists()


@pytest.mark.parametrize("verb", ["benchmark", "test", "inpaint"])
def test_a_baseline_without_its_weights_is_one_error(
    verb: str, zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "cache"))
    words = {"benchmark": ["--models", "sd_inpaint"], "test": ["--model", "sd_inpaint"]}
    if verb == "inpaint":
        import numpy as np

        from zoo.cli.files import save_png

        save_png(np.zeros((16, 16, 3), np.uint8), place / "a.png")
        save_png(np.full((16, 16), 255, np.uint8), place / "m.png")
        words["inpaint"] = [
            "--image",
            str(place / "a.png"),
            "--mask",
            str(place / "m.png"),
            *("--model", "sd_inpaint"),
            *("--out", "o"),
        ]
    done = zoo(verb, *words[verb])
    assert done.code == 4, done.err
    assert "hf download stable-diffusion-v1-5/stable-diffusion-inpainting" in done.err


def test_a_baseline_cannot_be_trained(zoo: Run) -> None:
    done = zoo("fit", "--model", "blended_latent")
    assert done.code == 2
    assert "nothing to train" in done.err
