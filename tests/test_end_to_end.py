"""What a user does, as typed: real photographs in COCO's layout, and the installed wheel in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import instance, photograph, write_coco
from zoo.models import names
from zoo.weights import shipped as find_shipped

ROOT = Path(__file__).resolve().parents[1]

# Written by hand, on the photographs that scikit-image ships (public domain, or CC0).
PHOTOGRAPHS = {
    1: (
        "astronaut",
        ["a smiling astronaut in an orange suit before a flag"],
        (110, 0, 260, 320),
    ),
    2: ("chelsea", ["a ginger cat looks past the camera", "the face of a cat"], (60, 0, 300, 290)),
    3: ("coffee", ["a cup of coffee on a saucer with a spoon on a wooden table"], (200, 60, 270, 240)),
    4: ("rocket", ["a rocket on its launch pad"], (280, 60, 80, 300)),
}
CATEGORY = {"astronaut": 1, "chelsea": 17, "coffee": 47, "rocket": 47}


def photographs(root: Path) -> Path:
    for part in ("train2017", "val2017"):
        write_coco(
            root,
            part,
            {number: photograph(name) for number, (name, _, _) in PHOTOGRAPHS.items()},
            {number: captions for number, (_, captions, _) in PHOTOGRAPHS.items()},
            [instance(number, CATEGORY[name], box) for number, (name, _, box) in PHOTOGRAPHS.items()],
        )
    return root


def zoo(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ZOO_HOME": str(place / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "zoo", *words], capture_output=True, text=True, cwd=place, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_real_photographs_from_fit_to_benchmark_to_inpaint(tmp_path: Path) -> None:
    coco = ["--data.root", str(photographs(tmp_path / "coco"))]
    # The paper's preset, as `--data coco` implies, at its own 256 pixels; one small batch, for the time.
    limits = ["--data.batch_size", "2", "--trainer.max_steps", "1", "--data.val_count", "1"]
    zoo(["fit", "--model", "deepfill", "--data", "coco", *coco, *limits], tmp_path)
    weights = tmp_path / "runs" / "deepfill-paper" / "inpaint" / "weights.safetensors"
    assert weights.is_file()
    assert (weights.parents[1] / "samples.png").is_file()

    done = zoo(["benchmark", "--dataset", "coco", "--mask", "object", *coco, "--json"], tmp_path)
    shipped = {name for name in names() if find_shipped(name)}
    summary = json.loads(done.stdout)
    assert (summary["n"], summary["failed"]) == (4, 0)
    assert set(summary["methods"]) == {"truth", "mean", "telea", *shipped}
    assert summary["methods"]["truth"]["l1"]["mean"] == 0
    assert (Path(tmp_path / summary["run"]) / "strip.png").is_file()

    Image.fromarray(photograph("chelsea")).save(tmp_path / "cat.png")
    mask = np.zeros((300, 451), np.uint8)
    mask[100:180, 150:260] = 255
    Image.fromarray(mask).save(tmp_path / "hole.png")
    words = ["--image", "cat.png", "--mask", "hole.png", "--out", "out", "--weights", f"deepfill={weights}"]
    zoo(["inpaint", "--model", "deepfill", *words], tmp_path)
    made = np.asarray(Image.open(tmp_path / "out" / "cat.png"))
    assert made.shape == (300, 451, 3)
    assert np.array_equal(made[mask == 0], photograph("chelsea")[mask == 0])
    assert not np.array_equal(made[mask > 0], photograph("chelsea")[mask > 0])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wheel, built and unpacked: no file of the checkout is in reach."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(place / "site")], check=True)
    return str(place / "site")


THIRD_PARTY = """
import sys, torch, zoo
from zoo.cli.main import main

assert zoo.__file__.startswith(sys.argv[1])
image, mask = torch.rand(2, 3, 48, 40), torch.zeros(2, 1, 48, 40)
mask[:, :, 10:30, 10:30] = 1
done = zoo.load("deepfill").complete({"id": ["a", "b"], "image": image, "mask": mask})
assert ((done.image == image) | (mask > 0.5)).all() and not torch.equal(done.image, image)

assert main("fit --model mine.Mine --trainer.max_steps 3 --out runs/mine".split()) == 0
weights = "mine.Mine=runs/mine/inpaint/weights.safetensors"
code = main(["benchmark", "--models", "deepfill,mine.Mine", "--weights", weights, "--limit", "8", "--json"])
sys.exit(code)
"""


def test_the_wheel_completes_tensors_and_takes_a_third_partys_method(installed: str, tmp_path: Path) -> None:
    """In an empty folder, with the example of CONTRIBUTING as it stands there; one process, for the time."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "mine.py").write_text("\n".join(line.removeprefix("   ") for line in text.splitlines()))
    path = f"{installed}{os.pathsep}{tmp_path}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ZOO_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-c", THIRD_PARTY, installed]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert set(summary["methods"]) == {"deepfill", "mine.Mine"}
    assert summary["failed"] == 0
