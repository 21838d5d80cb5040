"""What belongs to a plan, and what is refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.fakes_benchmark import DATA, Fake, Trained, TrainedDrawing
from zoo.benchmark import Plan, load_suite, make_plan, suites
from zoo.benchmark.loop import load_method
from zoo.benchmark.plan import MethodPlan, differences
from zoo.errors import UsageError, WeightsError
from zoo.weights import save_weights

FAKE = "tests.fakes_benchmark."


def plan(*models: str, mask: str = "center", **options: Any) -> Plan:
    return make_plan(DATA, mask, [FAKE + m if m[0].isupper() else m for m in models or ("mean",)], **options)


def fixed() -> Plan:
    return Plan(
        "shapes", "test", None, {}, 512, 64, "00", "object", 0, "",
        (MethodPlan("a", "a", "b.A", "nano", "shapes", "11"),),
        0, (), 16, "32-true", "cpu", 1, {"metrics": "1"}, "0.1.0",
    )  # fmt: skip


def test_the_hash_is_stable() -> None:
    # Written down: a hash that moves by itself orphans every run folder.
    assert fixed().name == "shapes-object-" + fixed().hash[:8]
    assert fixed().hash == "cdaf4c00203482e295ebae81c6f889c3eeaaee52b554eb750d0d8b386168d97b"


@pytest.mark.parametrize(
    "change",
    [
        {"mask": "center"}, {"mask_seed": 1}, {"seed": 1}, {"count": 511}, {"size": 32}, {"batch_size": 8},
        {"precision": "bf16-mixed"}, {"accelerator": "cuda"}, {"threads": 2}, {"manifest_sha256": "22"},
        {"metrics": {"metrics": "2"}}, {"guidance": ("edge",)}, {"root": "/data"}, {"data_options": {"mask_root": "x"}},
        {"captions": "deranged"}, {"captions": "recoloured"}, {"samples": 1}, {"samples": 4},
        {"methods": (MethodPlan("a", "a", "b.A", "nano", "shapes", "12"),)},
        {"methods": (MethodPlan("a", "a", "b.A", "nano", "shapes", "11", {"steps": 50}),)},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_a_number_changes_the_hash(change: dict[str, Any]) -> None:
    changed = replace(fixed(), **change)
    assert changed.hash != fixed().hash
    assert differences(fixed(), changed) == list(change)


def test_places_do_not_change_the_hash() -> None:
    method = replace(fixed().methods[0], weights="/elsewhere/a.safetensors")
    moved = replace(fixed(), methods=(method,), manifest="/elsewhere", left_out={"cma": "no weights"})
    assert moved.hash == fixed().hash


def test_a_plan_reads_back_as_it_was(tmp_path: Path) -> None:
    made = plan("mean", f"{__name__}.Guided", guidance=("edge",), limit=5)
    (tmp_path / "plan.json").write_text(made.to_json())
    again = Plan.read(tmp_path)
    assert again == made
    assert again.hash == made.hash == plan("mean", f"{__name__}.Guided", guidance=("edge",), limit=5).hash
    assert (made.count, made.size, made.dataset) == (5, 64, DATA)
    assert made.name.startswith("Dots-center-")


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (("telia",), {}, "unknown model 'telia'"),
        (("mean", "mean"), {}, "there twice"),
        (("mean@",), {}, "not NAME"),
        (("mean@x y=a",), {}, "not NAME"),
        (("mean@x",), {}, "same as 'mean'"),
        (("mean",), {"weights": {"cma": "x"}}, "not compared"),
        (("mean",), {"settings": {"cma": {"steps": 1}}}, "not compared"),
        (("mean",), {"settings": {"maen": {"size": 32}}}, "did you mean 'mean'"),
        (("Fake",), {"settings": {FAKE + "Fake": {"strength": "two"}}}, 'strength\' takes a number, got "two"'),
        (("Fake",), {"settings": {FAKE + "Fake": {"strength": True}}}, "takes a number, got true"),
        (("Mixing", "mean"), {"samples": 4}, "none of these methods is stochastic"),
        (("Drawing",), {"samples": -1}, "at least 0"),
        (("Fake",), {"settings": {FAKE + "Fake": {"stength": 1}}}, "did you mean 'strength'"),
        (("mean",), {"guidance": ("edges",)}, "unknown guidance"),
        (("mean",), {"guidance": ("edge",)}, "no method here has edge as optional guidance"),
        (("mean",), {"mask": "object"}, "none of the first 21 images of 'dots' has an object: masks 'object' would be"),
        (("mean",), {"mask": "center,9*object"}, "masks 'object' would be the centre's"),
        (("mean",), {"precision": "16"}, "unknown precision"),
        (("mean",), {"precision": "16-mixed"}, "needs a GPU"),
        (("mean",), {"batch_size": 0}, "batch size must be at least 1"),
        (("mean",), {"accelerator": "tpu"}, "unknown accelerator"),
        (("Reader",), {"data_options": {"silent": True}}, "needs caption"),
        (("mean",), {"data_options": {"colour": 1}}, "no option"),
    ],
)
def test_refusals(models: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(*models, **options)
    assert message in str(caught.value)


class Guided(Fake):
    """Can be shown edges."""

    uses: ClassVar[frozenset[str]] = frozenset({"edge"})


class Choosy(Fake):
    """Arguments of several kinds."""

    def __init__(
        self, size: int = 24, radius: int | str = 4, scale: float | None = 1.0, steps: int | tuple[int, ...] = 3
    ) -> None:
        super().__init__(size)
        self.save_hyperparameters()


@pytest.mark.parametrize(
    "settings", [{"radius": "official"}, {"radius": 7}, {"steps": [1, 2]}, {"scale": None}, {"scale": 2}], ids=str
)
def test_a_setting_may_be_of_any_kind_that_its_annotation_names(settings: dict[str, Any]) -> None:
    name = f"{__name__}.Choosy"
    assert make_plan(DATA, "center", [name], settings={name: settings}).methods[0].settings == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"radius": True}, "takes a number or a text, got true"), ({"scale": "two"}, 'takes a number, got "two"')],
    ids=str,
)
def test_a_setting_of_no_kind_that_its_annotation_names_is_refused(settings: dict[str, Any], message: str) -> None:
    name = f"{__name__}.Choosy"
    with pytest.raises(UsageError, match=message):
        make_plan(DATA, "center", [name], settings={name: settings})


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(UsageError, match="centre"):
        make_plan(DATA, "centre", ["mean"])


def test_weights_are_named_by_their_hash(tmp_path: Path) -> None:
    file = save_weights(
        Trained(size=24), tmp_path / "a.safetensors", preset="nano", provenance={"data": {"name": "coco"}}
    )
    copy = tmp_path / "b.safetensors"
    copy.write_bytes(file.read_bytes())
    name = FAKE + "Trained"
    first, second = plan(f"Trained@own={file}"), plan(f"Trained@own={copy}")
    assert first.hash == second.hash
    assert first.methods[0].label == f"{name}@own"
    assert (first.methods[0].preset, first.methods[0].trained_on, first.size) == ("nano", "coco", 24)
    assert plan("Trained", weights={name: file}).methods[0].weights == str(file)
    with pytest.raises(WeightsError, match="not of 'deepfill'"):
        plan("deepfill", weights={"deepfill": file})
    with pytest.raises(WeightsError, match="are here"):
        plan("Trained")
    with pytest.raises(UsageError, match="takes no weights"):
        plan("mean", weights={"mean": file})


def test_settings_are_part_of_the_plan_and_reach_the_method_that_is_built_from_weights(tmp_path: Path) -> None:
    name = FAKE + "TrainedDrawing"
    file = save_weights(TrainedDrawing(size=24, strength=3.0), tmp_path / "a.safetensors")
    models = (f"TrainedDrawing={file}", f"TrainedDrawing@drawn={file}")
    plain, other = (plan(*models, settings={f"{name}@drawn": {"k": k}}) for k in (0.5, 1))
    assert [method.settings for method in plain.methods] == [{}, {"k": 0.5}]
    assert differences(plain, other) == ["methods"]
    same, changed = map(load_method, plain.methods)
    assert [(m.k, m.strength, m.training) for m in (same, changed)] == [(0.0, 3.0, False), (0.5, 3.0, False)]
    for key, value in same.state_dict().items():
        assert torch.equal(value, changed.state_dict()[key])
    everywhere = plan(*models, settings={name: {"k": 2, "size": 32}, f"{name}@drawn": {"k": 3}})
    assert [method.settings for method in everywhere.methods] == [{"k": 2, "size": 32}, {"k": 3, "size": 32}]
    assert everywhere.size == 32


def test_the_default_is_what_can_run_and_says_what_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.models.MODELS", {"blind": FAKE + "Trained"})
    monkeypatch.setattr("zoo.models.CONTROLS", {"mean": "zoo.models.controls.Mean", "reader": FAKE + "Reader"})
    made = make_plan(DATA, "center", data_options={"silent": True})
    assert [method.label for method in made.methods] == ["mean"]
    assert "weights" in made.left_out["blind"]
    assert "caption" in made.left_out["reader"]
    with pytest.raises(WeightsError):
        make_plan(DATA, "center", preset="paper")


def test_methods_that_were_named_are_left_out_where_that_is_allowed() -> None:
    models = ["mean", FAKE + "Trained", FAKE + "Reader"]
    made = make_plan(DATA, "center", models, leave_out=True, data_options={"silent": True})
    assert [method.label for method in made.methods] == ["mean"]
    assert "weights" in made.left_out[FAKE + "Trained"]
    assert "caption" in made.left_out[FAKE + "Reader"]
    assert made.hash == make_plan(DATA, "center", ["mean"], data_options={"silent": True}).hash
    with pytest.raises(WeightsError, match="no 'nano' weights"):
        make_plan(DATA, "center", models[1:2], leave_out=True)


def test_suites_are_runs_of_arguments_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert {name: len(load_suite(name)) for name in suites()} == {
        **dict.fromkeys(("center", "freeform", "object", "quick"), 1), "classic": 2, "full": 4, "text": 4
    }  # fmt: skip
    for name, what in suites().items():
        assert what
        made = []
        for options in load_suite(name):
            options.pop("cost", None)
            made.append(make_plan(**{**options, "models": ["mean"], "limit": 2}))
            assert (made[-1].dataset, made[-1].mask) == ("shapes", options["mask"])
        assert len({one.name for one in made}) == len(made), "each run has a folder of its own"
    full = load_suite("full")[0]
    assert full["cost"] is True
    assert full["metrics"] == ["all"]
    with pytest.raises(UsageError, match="unknown suite"):
        load_suite("objekt")
    own = tmp_path / "own.yaml"
    for text, message in {
        "dataset: shapes\nmaks: object\n": "unknown suite option 'maks'",
        "runs: [{mask: object}, {maks: center}]\n": "unknown suite option 'maks'",
        "runs: []\n": "one entry a run",
        "runs: center\n": "one entry a run",
        "dataset: [\n": "YAML",
    }.items():
        own.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_suite(own)
    own.write_text("dataset: shapes\nmask: center\nruns: [{limit: 3}, {mask: object}]\n")
    shared = {"dataset": "shapes", "mask": "center"}
    assert load_suite(own) == [{**shared, "limit": 3}, {**shared, "mask": "object"}]
