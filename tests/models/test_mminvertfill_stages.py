"""The recipes and stages of MMInvertFill: parameter counts, weights between stages, checkpoints, two processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from tests import mminvertfill_ddp
from tests.fakes_cma import changed, logged, states, trainer
from tests.fakes_mminvertfill import TERMS, Seeded, arguments_of, count, enliven, fit, guided, make
from tests.processes import call_apart
from zoo.batch import Batch
from zoo.cli.fit import _load_predecessors
from zoo.errors import WeightsError
from zoo.models import recipe, resolve
from zoo.models.mminvertfill import MMInvertFill
from zoo.weights import load_weights, read_header, save_weights

ROOT = Path(__file__).resolve().parents[2]
GOLDEN: dict[str, dict[str, int]] = json.loads((ROOT / "tests" / "golden" / "mminvertfill_counts.json").read_text())
STAGES = pytest.mark.parametrize("stage", MMInvertFill.stages)

# --- recipes ----------------------------------------------------------------------------------------------------------


def counted(preset: str, **changes: Any) -> dict[str, int]:
    """The parameters of each part of a recipe; nothing is allocated."""
    options = {**arguments_of(preset), "hrf": "none", "perc": "none", **changes}
    with torch.device("meta"):
        module, first = MMInvertFill(**options), MMInvertFill(**options, stage="generator")
    net = module.inverter
    parts = {
        "generator": module.generator, "backbone": net.encoder.backbone, "bottleneck": net.encoder.bottleneck,
        "auxiliary": net.encoder.decoder.auxiliary, "fusions": net.encoder.decoder.fusions, "encoder": net.encoder,
        "map2style": net.map2style, "map2structure": net.map2structure, "premodulation": net.premodulation,
        "branch": net.branch, "critic": module.critic, "style_critic": first.style_critic,
    }  # fmt: skip
    found = {name: count(part) for name, part in parts.items()}
    found["mge"] = count(net) - found["branch"]
    assert count(first.generator) == found["generator"]
    return found


@pytest.mark.parametrize("preset", list(GOLDEN))
def test_recipes_have_the_parameters_they_had(preset: str) -> None:
    assert counted(preset) == GOLDEN[preset]


def test_nano_has_the_specifications_parameters() -> None:
    """Of five classes, where the recipe has the nine of the scenes; its branch is wider and sees the guidance."""
    found = counted("nano", classes=5, branch_input="image", branch_widths=[16, 16, 12, 8], branch_dense=8)
    assert {name: found[name] for name in ("generator", "mge", "branch", "critic", "style_critic")} == {
        "generator": 172_184, "mge": 1_286_750, "branch": 29_188, "critic": 175_104, "style_critic": 178_113
    }  # fmt: skip
    assert sum(found[name] for name in ("generator", "mge", "branch", "critic")) == 1_663_226
    thousands = {"bottleneck": 226, "map2style": 236, "map2structure": 206, "premodulation": 141, "fusions": 111}
    assert {name: round(found[name] / 1000) for name in thousands} == thousands
    assert round(found["backbone"] / 1000) == 75
    heads = 9 * (24 + 24 + 16) * (1 + 5) + 3 * (1 + 5)  # it does not count them among the 179,000
    assert found["auxiliary"] - heads == 178_816


def test_the_papers_sizes_are_the_specifications() -> None:
    """Its counts are of fifteen classes, map networks of constant width and transposed convolutions."""
    found = counted("paper", classes=15, map_width="const", dec_up="convT")
    assert (found["generator"], found["critic"]) == (30_034_338, 2_764_800)
    millions = {
        "mge": 134.0, "bottleneck": 25.7, "map2style": 38.3, "map2structure": 36.4, "premodulation": 22.1,
        "fusions": 2.6, "backbone": 1.7, "branch": 2.2, "auxiliary": 4.6,
    }  # fmt: skip
    assert {name: round(found[name] / 1e6, 1) for name in millions} == millions
    grown = counted("paper", classes=15)
    assert {n: round(grown[n] / 1e6, 1) for n in ("map2style", "map2structure")} == {
        "map2style": 27.0, "map2structure": 19.6
    }  # fmt: skip


def test_recipes_name_the_method_and_agree_with_themselves() -> None:
    for preset in ("nano", "paper", "paper512"):
        content = recipe("mminvertfill", preset)
        arguments = content["model"]["init_args"]
        assert resolve(content["model"]["class_path"]) is MMInvertFill
        assert content["data"]["size"] == arguments["size"]
        assert content["trainer"]["max_steps"] > arguments.get("adv_start", 0)
        assert arguments["hrf"] == ("random" if preset == "nano" else "ade20k")


def test_both_stages_of_the_nano_recipe_take_steps() -> None:
    batch = guided(3, 64, 64)
    first = MMInvertFill(**arguments_of("nano", stage="generator", pl=2.0))
    before = states(first)
    assert set(logged(fit(first, batch))) == {"l_d", "l_g", "R1", "pl"}
    assert changed(first, before) == {"generator", "style_critic"}
    module = MMInvertFill(**arguments_of("nano", adv_start=0))
    before = states(module)
    assert set(logged(fit(module, batch))) == TERMS | {"l_l1", "l_l1_hole"}
    assert all(p.isfinite().all() for p in module.parameters())
    assert changed(module, before) == {"inverter", "critic"}
    assert module.complete(batch, guidance=("edge", "segmentation")).image.shape == (3, 3, 64, 64)


@pytest.mark.slow
@STAGES
def test_the_paper_recipe_takes_a_full_step(stage: str) -> None:
    """A minute of a core each."""
    module, batch = MMInvertFill(**arguments_of("paper", stage=stage, hrf="random", perc="none")), guided(1, 256, 256)
    before = states(module)
    values = logged(fit(module, batch))
    assert set(values) == ({"l_d", "l_g", "R1", "pl"} if stage == "generator" else TERMS)
    assert all(torch.tensor(value).isfinite() for value in values.values())
    assert changed(module, before) == (
        {"generator", "style_critic"} if stage == "generator" else {"inverter", "critic"}
    )
    if stage == "inpaint":
        assert module.complete(batch).image.isfinite().all()


# --- stages and weights -----------------------------------------------------------------------------------------------


def test_a_generator_completes_nothing(tmp_path: Path) -> None:
    module = make(stage="generator")
    assert not module.completes
    assert make().completes
    assert {name for name, _ in module.named_children()} == {"generator", "style_critic"}
    with pytest.raises(WeightsError, match="stage 'generator' of MMInvertFill does not complete images"):
        module.complete(guided())
    path = save_weights(module, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"does not complete images[\s\S]*--model mminvertfill --stage inpaint"):
        load_weights(path)


def test_the_second_stage_takes_over_the_generator_and_draws_its_mean(tmp_path: Path) -> None:
    first = enliven(make(stage="generator"))
    fit(first, max_steps=2)
    path = save_weights(first, tmp_path / "generator" / "weights.safetensors")
    state = load_file(path)
    assert {name.split(".")[0] for name in state} == {"generator"}  # the second stage has another discriminator
    again = load_weights(path, any_stage=True)
    torch.testing.assert_close(again.exported_state(), first.exported_state(), atol=0.0, rtol=0.0)
    for f4 in ("add", "replace"):
        second = make(f4=f4)
        before = states(second)
        _load_predecessors(second, tmp_path, ("generator",))
        assert changed(second, before) == {"generator"}
        torch.testing.assert_close(second.generator.state_dict(), first.generator.state_dict(), atol=0.0, rtol=0.0)
        assert not second.mean.online.any()
        expected = second.codes(50).mean(0)
        second.mean.tau = 0.0
        fit(second)
        torch.testing.assert_close(second.mean.online, expected)
        torch.testing.assert_close(second.generator.state_dict(), first.generator.state_dict(), atol=0.0, rtol=0.0)
        if f4 == "replace":
            torch.testing.assert_close(second.inverter.branch.constant, first.generator.constant, atol=0.01, rtol=0.0)


def test_weights_hold_what_completing_needs(tmp_path: Path) -> None:
    module = make(gma_gate="post", fusion="gma+spade", noise="random", hrf_file="nowhere.pth")
    fit(module, max_steps=2)
    path = save_weights(module, tmp_path / "weights.safetensors", preset="mine")
    header = read_header(path)
    assert (header.config["gma_gate"], header.config["stage"], header.method) == ("post", "", "mminvertfill")
    assert not {"hrf_file", "perc_file", "mmt_file"} & set(header.config)
    assert {name.split(".")[0] for name in load_file(path)} == {"generator", "inverter", "mean"}
    again = load_weights(path, expect="mminvertfill")
    assert isinstance(again, MMInvertFill)
    assert torch.equal(again.mean.online, module.mean.online)
    assert again.mean.draws == 2
    for guidance in ((), ("edge", "segmentation")):
        completed = module.complete(guided(), 4, guidance).raw
        torch.testing.assert_close(again.complete(guided(), 4, guidance).raw, completed, atol=1e-6, rtol=0.0)
    assert module.exported_state().keys() == again.exported_state().keys()
    half = load_weights(save_weights(module, tmp_path / "half.safetensors", half=True))
    torch.testing.assert_close(half.complete(guided()).raw, module.complete(guided()).raw, atol=0.05, rtol=0.0)


def test_frozen_features_are_loaded_when_a_training_starts_and_are_in_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"ResNet-50[\s\S]*gone\.pth"):
        fit(make(hrf="ade20k", hrf_file=str(tmp_path / "gone.pth")))
    with pytest.raises(WeightsError, match=r"VGG-16[\s\S]*no file is named"):
        fit(make(perc="vgg16"))
    module = make(perc="hrf")
    assert module.psi is module.phi
    made = fit(module)
    assert not any("phi" in name or "psi" in name for name in module.exported_state())
    made.save_checkpoint(tmp_path / "last.ckpt")
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in held} == {"generator", "inverter", "mean", "critic"}
    assert make(hrf="ade20k", perc="vgg16").complete(guided()).raw.isfinite().all()  # without either file


# --- checkpoints ------------------------------------------------------------------------------------------------------


def fit_on(module: MMInvertFill, checkpoint: Path, batch: Batch | None = None, **settings: Any) -> Trainer:
    """Goes on from a checkpoint, on the same batch."""
    made, loader = trainer(**settings), DataLoader([batch or guided()], batch_size=None)  # type: ignore[arg-type]
    made.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return made


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


@pytest.mark.parametrize(
    "changes",
    [
        {"decay": "linear", "adv_start": 1, "tau": 0.3, "mean_eps": 0.5},
        {"accumulate": 2, "train_generator": True, "f4": "replace"},
        {"stage": "generator", "r1_every": 3, "pl_every": 2},
    ],
    ids=str,
)
def test_9_a_stopped_training_goes_on_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    """Weights, means and running mean, spectral norms, optimizers."""
    options = make(**changes).hparams
    straight, stopped = (Seeded(**options) for _ in range(2))
    stopped.load_state_dict(straight.state_dict())
    whole = fit(straight, max_steps=4)
    half = fit(stopped, max_steps=4, callbacks=[StopAt(2)])
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(7)
    resumed = Seeded(**options)
    made = fit_on(resumed, tmp_path / "last.ckpt", max_steps=4)
    assert made.global_step == whole.global_step == 4
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), atol=0.0, rtol=0.0)
    for name, optimizer in straight.by_name.items():
        torch.testing.assert_close(resumed.by_name[name].state_dict(), optimizer.state_dict(), atol=0.0, rtol=0.0)
    if "tau" in changes:
        assert straight.mean.draws > stopped.mean.draws > 1  # means were drawn before and after
    if "pl_every" in changes:
        assert straight.path_mean != stopped.path_mean != 0


@STAGES
def test_checkpoints_load_without_pickle(stage: str, tmp_path: Path) -> None:
    module = make(stage=stage)
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    again = MMInvertFill.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    assert dict(again.hparams) == dict(module.hparams)


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights after two steps of one process with batches of 4, and of two processes with 2; run apart: DDP forks."""
    folder = tmp_path_factory.mktemp("ddp")
    call_apart(mminvertfill_ddp.one_and_two, folder)
    return folder


@pytest.mark.parametrize(
    ("stage", "learning"),
    [("generator", {"generator", "style_critic"}), ("inpaint", {"inverter", "critic"})],
    ids=["generator", "inpaint"],
)
def test_two_processes_equal_one(stage: str, learning: set[str], trained: Path) -> None:
    one, two = (torch.load(trained / f"{stage}-{devices}.pt", weights_only=True) for devices in (1, 2))
    start: dict[str, Tensor] = one["start"]
    assert one["state"].keys() == two["state"].keys() >= start.keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, atol=5e-6, rtol=1e-4, msg=name)
    moved = {n for n, p in start.items() if (one["state"][n] - p).abs().max() > 1e-4}  # far more than they may differ
    assert {n.split(".")[0] for n in moved} == learning
    if stage == "inpaint":
        means = [torch.load(trained / f"mean-{k}.pt", weights_only=True) for k in ("1-0", "2-0", "2-1")]
        assert torch.equal(means[0], means[1])
        assert torch.equal(means[0], means[2])
        assert one["state"]["mean.draws"] == 4  # two to begin with, and a new target after each step


# --- validation -------------------------------------------------------------------------------------------------------


def test_a_generator_is_validated_by_what_its_discriminator_says() -> None:
    module, batch = enliven(make(stage="generator")).eval(), guided(4)
    with torch.no_grad():
        found = module.validate_batch(batch)
        assert found["score_real"] == pytest.approx(module.style_critic(batch["image"] * 2 - 1).tolist())
    assert found.keys() == {"score_real", "score_made"}
    assert len(found["score_made"]) == 4
    assert len(set(found["score_made"])) > 1


def test_validation_runs_in_both_stages_in_the_second_with_guidance_too() -> None:
    for stage, names in (
        ("generator", {"val/score_real", "val/score_made"}),
        ("inpaint", {"val/psnr", "val/l1", "val/l1_hole", "val/guided_l1_hole"}),
    ):
        loader: Any = DataLoader([guided(), guided(2)], batch_size=None)  # type: ignore[arg-type]
        values = trainer().validate(make(lively=True, stage=stage), loader, verbose=False)[0]
        assert names <= set(values)
        assert "val/guided_psnr" not in values
        assert all(torch.tensor(value).isfinite() for value in values.values())
    assert values["val/guided_l1_hole"] != values["val/l1_hole"]
