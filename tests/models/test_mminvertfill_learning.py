"""How MMInvertFill learns: its optimizers and schedules, and a few scenes by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fakes_mminvertfill import MMInvertFill, arguments_of, fit, guided, make
from zoo.batch import Batch
from zoo.cli.fit import _load_predecessors
from zoo.errors import UsageError
from zoo.layers.muon import Muon
from zoo.weights import save_weights

BOTH = ("edge", "segmentation")

# --- optimizing -------------------------------------------------------------------------------------------------------


class Watching(MMInvertFill):
    """Notes the learning rates, and the norms of the gradients, of each step."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        name = next(n for n, o in self.by_name.items() if o is optimizer)
        self.rates.setdefault(name, []).append(optimizer.param_groups[0]["lr"])
        grads = [p.grad.norm() for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        self.norms[name] = float(torch.stack(grads).norm())


def watched(**changes: Any) -> Watching:
    module = Watching(**make(**changes).hparams)
    module.rates, module.norms = {}, {}
    return module


def owners(module: MMInvertFill, optimizer: torch.optim.Optimizer) -> set[str]:
    names = {id(p): n.split(".")[0] for n, p in module.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}


def test_optimizers_have_the_settings_they_are_given() -> None:
    for train in (False, True):
        module = make(betas=[0.3, 0.99], lr=2e-4, critic_lr=3e-4, train_generator=train)
        made = module.optimizers_by_name()
        assert list(made) == ["inverter", "critic"]
        for optimizer, lr in zip(made.values(), (2e-4, 3e-4), strict=True):
            assert type(optimizer) is torch.optim.Adam
            (group,) = optimizer.param_groups
            assert (group["lr"], group["betas"], group["weight_decay"]) == (lr, (0.3, 0.99), 0)
        assert owners(module, made["inverter"]) == {"inverter"} | ({"generator"} if train else set())
        assert owners(module, made["critic"]) == {"critic"}
        held = {id(p) for group in made["inverter"].param_groups for p in group["params"]}
        assert held >= {id(p) for p in module.inverter.parameters()}


@pytest.mark.parametrize(
    ("changes", "generator", "critic"),
    [
        ({}, 4 / 5, 16 / 17),
        ({"r1_every": 4, "pl_every": 1}, 1 / 2, 4 / 5),
        ({"pl": 0.0}, 1, 16 / 17),
        ({"r1": 0.0}, 4 / 5, 1),
    ],
    ids=str,
)
def test_where_a_regulariser_is_lazy_the_steps_between_are_a_little_shorter(
    changes: dict[str, Any], generator: float, critic: float
) -> None:
    """c = k/(k+1) scales the rate and is the exponent of the betas (Karras et al. 2020, Sec. 3.1)."""
    module = make(stage="generator", style_lr=0.5, style_betas=[0.2, 0.99], **changes)
    made = module.optimizers_by_name()
    assert list(made) == ["generator", "style_critic"]
    for name, c in (("generator", generator), ("style_critic", critic)):
        (group,) = made[name].param_groups
        assert group["lr"] == pytest.approx(0.5 * c)
        assert group["betas"] == pytest.approx((0.2**c, 0.99**c))
        assert owners(module, made[name]) == {name}
        assert len(group["params"]) == len(list(getattr(module, name).parameters()))


def test_muon_takes_the_matrices_of_the_inverter_and_steps_with_the_rest_of_it() -> None:
    module = watched(muon_lr=0.5, lr=0.25, decay="linear", train_generator=True)
    made = module.optimizers_by_name()
    assert [type(optimizer) for optimizer in made.values()] == [torch.optim.Adam, Muon, torch.optim.Adam]
    owned = [id(p) for name in ("inverter", "matrices") for g in made[name].param_groups for p in g["params"]]
    trained = [p for net in (module.inverter, module.generator) for p in net.parameters()]
    assert sorted(owned) == sorted(id(p) for p in trained)
    names = {id(p): name for name, p in module.inverter.named_parameters()}
    taken = {names[id(p)] for p in made["matrices"].param_groups[0]["params"]}
    assert "branch.dense.weight" in taken
    assert not any(name.startswith("premodulation.first") or name.endswith("bias") for name in taken)
    before = {name: p.clone() for name, p in module.inverter.named_parameters()}
    fit(module, max_steps=2)
    assert module.rates["matrices"] == [0.5, 0.25]
    assert {name for name, p in module.inverter.named_parameters() if not torch.equal(p, before[name])} >= taken


def test_the_rate_of_the_encoder_alone_stays_or_falls_to_zero() -> None:
    module = watched(decay="linear", lr=0.5, critic_lr=0.25)
    fit(module, max_steps=4)
    assert module.rates == {"inverter": pytest.approx([0.5, 0.375, 0.25, 0.125]), "critic": [0.25] * 4}
    module = watched(lr=0.5)
    fit(module, max_steps=3)
    assert module.rates["inverter"] == [0.5] * 3
    with pytest.raises(UsageError, match=r"max_steps N[\s\S]*decay constant"):
        fit(make(decay="linear"), max_steps=-1)
    first = watched(stage="generator", decay="linear", style_lr=0.5, pl=0.0)
    fit(first, max_steps=3)
    assert first.rates["generator"] == [0.5] * 3


def test_gradients_are_clipped_in_the_second_stage_alone() -> None:
    module = watched(clip_norm=1e-3)
    fit(module)
    assert module.norms == pytest.approx({"inverter": 1e-3, "critic": 1e-3}, rel=1e-3)
    for changes in ({}, {"stage": "generator", "clip_norm": 1e-3}):
        free = watched(**changes)
        fit(free)
        assert min(free.norms.values()) > 2e-3


# --- learning ---------------------------------------------------------------------------------------------------------


def hole_error(module: MMInvertFill, batch: Batch, *guidance: str) -> float:
    hole = (batch["mask"] > 0.5).expand_as(batch["image"])
    raw = module.complete(batch, guidance=guidance).raw
    return float((raw - batch["image"])[hole].abs().mean())


def blind_error(batch: Batch) -> float:
    """Of the mean colour of what is known."""
    errors = []
    for image, mask in zip(batch["image"], batch["mask"][:, 0] > 0.5, strict=True):
        mean = image[:, ~mask].mean(1, keepdim=True)
        errors.append((image[:, mask] - mean).abs().mean())
    return float(torch.stack(errors).mean())


LEARNING: dict[str, Any] = {
    "w_adv": 0.0, "w_hrf": 0.0, "w_l1": 1.0, "w_l1_hole": 4.0, "msr": 0.2, "lr": 3e-3, "widths": [12, 16, 16], "w": 16,
    "generator_channels": [16, 16, 12, 8], "branch_widths": [12, 12, 8], "clip_norm": 5.0,
}  # fmt: skip


def test_a_few_scenes_are_learned() -> None:
    """To half the error of the mean colour, which the network begins at twice of; the generator has learned nothing."""
    module, batch = make(**LEARNING), guided()
    blind, before = blind_error(batch), hole_error(module, batch)
    fit(module, batch, max_steps=100)
    after = hole_error(module, batch), hole_error(module, batch, *BOTH)
    assert before > 2 * blind
    assert max(after) < blind / 2, (before, blind, after)


def test_colours_that_classes_alone_tell_are_learned() -> None:
    """Scenes that differ in the hole alone: with the segmentation shown the class's colour is painted, and no other."""
    batch = guided(4)
    batch["image"] = torch.full_like(batch["image"], 0.5)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]])
    mask = guided(1)["mask"]
    batch["mask"] = mask.expand(4, -1, -1, -1).contiguous()
    S = torch.tensor([1, 2, 3, 1])[:, None, None].expand(-1, 32, 32)
    batch["segmentation"] = torch.where(mask[0] > 0.5, S, 0)
    for k in range(4):
        batch["image"][k] = torch.where(mask[0] > 0.5, colours[S[k, 0, 0] - 1].view(3, 1, 1), 0.5)
    module = make(**LEARNING, shares=[0.0, 0.0], whole=1.0, edge=False)
    fit(module, batch, max_steps=80)
    shown = hole_error(module, batch, "segmentation")
    swapped = Batch(**{**batch, "segmentation": batch["segmentation"].roll(1, 0)})
    assert shown < 0.1, shown
    assert hole_error(module, swapped, "segmentation") > 3 * shown


def test_a_generator_learns_the_colour_of_its_images() -> None:
    module, batch = make(stage="generator", style_lr=4e-3, pl=0.0, r1=1.0), guided(8)
    batch["image"] = 0.2 * torch.rand_like(batch["image"]) + torch.tensor([0.8, 0.1, 0.3]).view(3, 1, 1)

    def distance() -> float:
        with torch.no_grad():
            made: Tensor | None = module.sheet()
        assert made is not None
        return float((made.mean((0, 2, 3)) - batch["image"].mean((0, 2, 3))).abs().mean())

    before = distance()
    fit(module, batch, max_steps=50)
    assert distance() < before / 2, (before, distance())


def scenes_of_shapes(count: int) -> Batch:
    """The first scenes of the built-in data with their edges and classes."""
    from zoo.batch import finish_batch
    from zoo.data import open_dataset
    from zoo.data.masked import EvaluationSet, collate

    dataset: Any = open_dataset("shapes", split="train", size=64)
    masked = EvaluationSet(dataset, "object")
    return finish_batch(collate([masked[k] for k in range(count)]))


@pytest.mark.slow
def test_the_nano_recipe_learns_a_few_scenes(tmp_path: Path) -> None:
    batch = scenes_of_shapes(8)
    torch.manual_seed(0)
    first = MMInvertFill(**arguments_of("nano", stage="generator"))
    fit(first, batch, max_steps=200)
    save_weights(first, tmp_path / "generator" / "weights.safetensors")
    module = MMInvertFill(**arguments_of("nano", decay="constant", adv_start=300))
    _load_predecessors(module, tmp_path, ("generator",))
    fit(module, batch, max_steps=400)
    blind = blind_error(batch)
    assert hole_error(module, batch) < 0.7 * blind
    assert hole_error(module, batch, *(set(BOTH) & set(batch))) < 0.7 * blind
