"""`zoo list`, `zoo doctor`, `zoo data`: facts for people and for programs."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from zoo.benchmark.protocols import load_protocol, protocol_names
from zoo.cli import doctor
from zoo.data import DATASETS
from zoo.models import BASELINES, CONTROLS, MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("what", ["models", "datasets", "masks", "metrics", "suites", "protocols"])
def test_lists_agree_with_their_json(what: str, zoo: Run) -> None:
    text, data = zoo("list", what), zoo("list", what, "--json")
    assert text.code == data.code == 0
    facts = json.loads(data.out)
    assert facts
    assert len(text.out.splitlines()) == len(facts) + 1
    for fact in facts:
        assert fact["name"] in text.out
        assert fact["what"]


def test_lists_are_complete(zoo: Run) -> None:
    models = {fact["name"]: fact for fact in json.loads(zoo("list", "models", "--json").out)}
    assert set(models) == {*MODELS, *CONTROLS, *BASELINES}
    assert models["telea"]["kind"] == "control"
    assert {models[name]["kind"] for name in BASELINES} == {"baseline"}
    assert models["nigdt"]["presets"] == ["nano", "paper", "tdanet"]
    assert models["mminvertfill"]["presets"] == ["nano", "paper", "paper512"]
    assert models["ecdm"]["presets"] == ["nano", "paper"]  # recipes of single stages are no presets
    assert models["telea"]["presets"] == []
    assert all(set(model["weights"]) <= set(model["presets"]) for model in models.values())
    assert {fact["name"] for fact in json.loads(zoo("list", "datasets", "--json").out)} == set(DATASETS)
    metrics = {fact["name"] for fact in json.loads(zoo("list", "metrics", "--json").out)}
    assert {"l1", "l1_hole", "psnr", "ssim", "tv", "raw_known_l1", "colour_fidelity", "shape_fidelity"} <= metrics


def test_protocols_are_listed_with_their_masks(zoo: Run) -> None:
    facts = json.loads(zoo("list", "protocols", "--json").out)
    assert facts[0]["name"] == "zoo"  # the default, which leaves open what the others fix
    assert (facts[0]["dataset"], facts[0]["size"], facts[0]["masks"]) == ("any", None, [])
    found = {(fact["name"], fact["dataset"]): fact for fact in facts}
    assert found["tdanet", "coco"]["masks"] == ["center", "object"]
    assert found["tdanet", "coco"]["size"] == 256
    for name in protocol_names():
        listed = [fact["dataset"] for fact in facts if fact["name"] == name]
        assert listed == list(load_protocol(name).datasets or ["any"])
    line = next(line for line in zoo("list", "protocols").out.splitlines() if line.startswith("tdanet  "))
    assert "256" in line
    assert "center,object" in line


def test_doctor_names_what_it_finds(zoo: Run) -> None:
    done = zoo("doctor", "--json")
    facts = json.loads(done.out)
    assert done.code == (0 if facts["ok"] else 2)
    found = {check["name"]: check for check in facts["checks"]}
    for name in ("python", "torch", "lightning", "accelerator", "threads", "torchvision", "disk here", "runs folder"):
        assert found[name]["value"]
    text = zoo("doctor").out
    assert all(name in text for name in found)


def test_doctor_detects_a_mixed_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "_version", lambda name: {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}.get(name))
    monkeypatch.setattr("importlib.import_module", broken)
    check = doctor._torchvision()
    assert not check.ok
    assert "does not fit torch 2.13.0+cpu" in check.value
    assert "pip uninstall torchvision" in check.remedy


def test_doctor_looks_at_every_dependency(zoo: Run) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["metrics"], *extras["parquet"]]
    wanted = [re.split(r"[^\w-]", line)[0] for line in lines]
    assert {"diffusers", "fsspec", "pot", "pyarrow", "scikit-learn", "simplejpeg"} <= set(wanted)
    checks = [check["name"] for check in json.loads(zoo("doctor", "--json").out)["checks"]]
    assert set(wanted) <= set(checks)
    assert len(checks) == len(set(checks))


def test_doctor_says_what_is_missing(zoo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2", "no-such-package[some]<2,>=1"])
    done = zoo("doctor")
    assert done.code == 2
    assert "BAD  no-such-package " in done.out
    assert "remedy: pip install" in done.out


def test_doctor_says_what_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = ["pyarrow>=17; extra == 'parquet'", 'open-clip-torch<4,>=3.3; extra == "metrics"']
    lines = ["torch>=2", *optional, "mypy>=1.14; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "_version", lambda name: "2.0" if name == "torch" else None)
    found = {check.name: check for check in (*doctor._packages(), doctor._torchvision())}
    assert set(found) == {"torch", "open-clip-torch", "pyarrow", "torchvision"}
    assert all(check.ok for check in found.values())
    assert found["open-clip-torch"].value == 'absent: no clip_score (pip install ".[metrics]" in the checkout)'
    assert found["torchvision"].value == 'absent: no lpips and dists (pip install ".[metrics]" in the checkout)'
    assert found["pyarrow"].value == 'absent: no zoo report --parquet (pip install ".[parquet]" in the checkout)'


def test_doctor_says_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", absent)
    (check,) = doctor._packages()
    assert not check.ok
    assert "inpainting-zoo is not installed" in check.value
    assert check.remedy == "pip install . in the checkout"


def test_data_info_of_what_is_drawn(zoo: Run) -> None:
    facts = json.loads(zoo("data", "info", "shapes", "--json").out)
    assert facts["splits"]["test"]["count"] == 512
    assert "caption" in facts["splits"]["test"]["provides"]
    assert "test: 512 images" in zoo("data", "info", "shapes").out
    assert zoo("data", "prepare", "shapes").out.startswith("shapes needs no preparation")
    done = zoo("data", "verify", "shapes", "--limit", 3)
    assert done.out == "3 of 3 samples can be read\n"


def test_data_of_a_folder(zoo: Run, place: Path) -> None:
    (place / "pictures").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(place / "pictures" / f"{name}.png")
    words = ("folder", "--data.root", "pictures")
    assert "test: 2 images" in zoo("data", "info", *words).out
    assert zoo("data", "verify", *words).code == 0
    (place / "pictures/a.png").write_bytes(b"broken")
    done = zoo("data", "verify", *words, "--json")
    assert done.code == 3
    assert [bad["id"] for bad in json.loads(done.out)["damaged"]] == ["folder/all/a"]


def test_data_that_is_not_here_says_what_to_put_where(zoo: Run, place: Path) -> None:
    done = zoo("data", "prepare", "coco", "--data.root", "nowhere")
    assert done.code == 3
    assert "captions" in done.out
    assert "nothing is downloaded" in done.out
    info = zoo("data", "info", "coco", "--data.root", "nowhere")
    assert info.code == 0
    assert info.out.count("cannot be used") == 3
    assert zoo("data", "verify", "coco", "--data.root", "nowhere").code == 3
