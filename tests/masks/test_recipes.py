"""The mixtures that recipes train with: each is one, and a paper's is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zoo.masks import parse_mixture
from zoo.masks.mixtures import MIXTURES

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {path.relative_to(ROOT / "configs/model").as_posix(): path for path in ROOT.glob("configs/model/*/*.yaml")}
TRAINING = {
    name: recipe["data"]["train_mask"]
    for name, path in RECIPES.items()
    if "train_mask" in (recipe := yaml.safe_load(path.read_text())).get("data", {})
}
TDANET = {"center": 0.25, "picnet:regular": 0.25, "picnet:irregular": 0.25, "object": 0.25}
STATED = {
    # A box of 96 to 128 pixels united with one to three strokes (the code of DeepFill-v2).
    "deepfill": {"deepfill": 1.0},
    # Centre, random rectangles, free-form and objects, as TDANet's notes list them; NIGDT and CMA name none.
    "tdanet": TDANET,
    "nigdt": TDANET,
    "cma": TDANET,
    # The paper names none: half strokes, a quarter rectangles, 15 % segments of objects, 10 % halves and outpainting.
    "ecdm": {
        "freeform": 0.5,
        "rectangle:5-65": 0.25,
        "instance": 0.15,
        "half": 0.05,
        "outpaint:random": 0.05,
    },
    # Lost in the paper's text: MMT's strokes and squares in equal parts, and the two larger of the tables' buckets.
    "mminvertfill": {"mmt:strokes": 0.25, "mmt:square": 0.25, "irregular:40-60": 0.25, "irregular:70-90": 0.25},
}


@pytest.mark.parametrize("name", TRAINING)
def test_every_recipe_names_a_mixture(name: str) -> None:
    mixture = parse_mixture(TRAINING[name])
    assert sum(mixture.probabilities) == pytest.approx(1)


def test_every_method_has_recipes_that_say_so() -> None:
    methods = {path.parent.name for path in RECIPES.values()}
    assert {name.split("/")[0] for name in TRAINING if "/nano.yaml" in name} == methods
    assert {name.split("/")[0] for name in TRAINING if "/paper.yaml" in name} == methods


@pytest.mark.parametrize("name", [name for name in TRAINING if "/nano" not in name])
def test_a_paper_trains_with_the_mixture_of_its_name(name: str) -> None:
    method, recipe = name.removesuffix(".yaml").split("/")
    wanted = recipe if recipe in STATED else method
    assert TRAINING[name] == f"mixture:{wanted}"
    mixture = parse_mixture(TRAINING[name])
    assert dict(zip(mixture.kinds, mixture.probabilities, strict=True)) == pytest.approx(STATED[wanted])


@pytest.mark.parametrize("name", [name for name in TRAINING if "/nano" in name])
def test_every_nano_method_trains_with_the_same_one(name: str) -> None:
    assert parse_mixture(TRAINING[name]) == parse_mixture("mixture:nano")


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_parses(name: str) -> None:
    assert parse_mixture(f"mixture:{name}").kinds
