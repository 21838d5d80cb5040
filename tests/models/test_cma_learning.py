"""How CMA learns: its optimizers and schedules, and captions from a few scenes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.fakes_cma import arguments_of, fit, make, scenes
from zoo.batch import Batch, finish_batch
from zoo.layers.muon import Muon
from zoo.models.cma import CMA
from zoo.words import vocabulary

# --- optimizing -------------------------------------------------------------------------------------------------------


def test_the_learning_rates_warm_up_and_only_the_generators_falls_to_zero() -> None:
    class Watching(CMA):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            name = next(n for n, o in self.by_name.items() if o is optimizer)
            rates.setdefault(name, []).append(optimizer.param_groups[0]["lr"] / self.options["lr"])

    rates: dict[str, list[float]] = {}
    module = Watching(**make(warmup=2, decay="linear").hparams)
    fit(module, max_steps=6)
    assert rates["generator"] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert rates["global"] == rates["local"] == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert module.by_name["generator"].param_groups[0]["lr"] == 0
    rates.clear()
    fit(Watching(**make(warmup=2, decay="cooldown").hparams), max_steps=10)
    assert rates["generator"] == pytest.approx([0.5, *[1.0] * 8, 0.5])
    assert module.by_name["generator"].param_groups[0]["lr"] == 0
    rates.clear()
    fit(Watching(**make(warmup=2).hparams), max_steps=6)
    assert rates["generator"] == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(("epochs", "steps", "rates"), [(3, -1, [1, 2 / 3, 1 / 3]), (3, 2, [1, 1 / 2])])
def test_the_end_of_the_rates_knows_of_epochs_and_of_accumulation(epochs: int, steps: int, rates: list[float]) -> None:
    seen: list[float] = []

    class Watching(CMA):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            if optimizer is self.by_name["generator"]:
                seen.append(optimizer.param_groups[0]["lr"] / self.options["lr"])

    fit(Watching(**make(decay="linear", accumulate=2).hparams), *[scenes()] * 2, max_epochs=epochs, max_steps=steps)
    assert seen == pytest.approx(rates)


def test_optimizers_are_of_the_kind_with_the_settings_they_are_given() -> None:
    module = make(betas=[0.8, 0.99], critic_betas=[0.4, 0.9], weight_decay=0.03, lr=2e-4)
    made = module.optimizers_by_name()
    assert list(made) == ["generator", "global", "local"]
    for name, optimizer in made.items():
        assert type(optimizer) is torch.optim.AdamW
        assert [g["weight_decay"] for g in optimizer.param_groups] == [0.03, 0.0]
        assert {(g["lr"], g["betas"]) for g in optimizer.param_groups} == {
            (2e-4, (0.8, 0.99) if name == "generator" else (0.4, 0.9))
        }
    assert type(make(optimizer="adam").optimizers_by_name()["global"]) is torch.optim.Adam


def test_muon_takes_the_matrices_of_the_encoders_layers_and_the_generators_kernels() -> None:
    module = make(optimizer="muon", muon_lr=3e-3, weight_decay=0.03)
    made = module.optimizers_by_name()
    assert [type(optimizer) for optimizer in made.values()] == [
        torch.optim.AdamW,
        Muon,
        *[torch.optim.AdamW] * 2,
    ]
    names = {id(p): n for n, p in module.named_parameters()}
    owned = [names[id(p)] for optimizer in made.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(names.values())
    (group,) = made["matrices"].param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.03)
    taken = {names[id(p)] for p in group["params"]}
    matrices = {
        n
        for n, p in module.named_parameters()
        if n.startswith("encoder.vilt.encoder.layer.") and n.endswith(".weight") and p.ndim == 2
    }
    kernels = {n for n, p in module.generator.named_parameters(prefix="generator") if p.ndim == 4}
    ends = {n for n in kernels if n.startswith(("generator.masks.", "generator.head."))}
    assert taken == matrices | (kernels - ends)
    assert len(matrices) == 6 * module.options["layers"]
    assert ends


def test_with_muon_all_of_encoder_and_generator_step_together_and_count_once() -> None:
    module = CMA(**make(optimizer="muon", accumulate=2).hparams)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    counted: list[int] = []

    class Counting(CMA):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            counted.append(list(self.by_name.values()).index(optimizer))

    learnt = Counting(**module.hparams)
    learnt.load_state_dict(module.state_dict())
    fit(learnt, *[scenes()] * 4, max_epochs=1, max_steps=-1)
    assert counted == [2, 3, 0, 1] * 2
    assert learnt.trainer.global_step == 2
    still = {n for n, p in learnt.named_parameters() if torch.equal(p, before[n])}
    assert not {n for n in still if n.startswith("encoder.vilt.encoder.layer.")}


def test_biases_norms_embeddings_and_the_mask_token_do_not_decay() -> None:
    module = make()
    names = {id(p): n for n, p in module.named_parameters()}
    groups = [group for optimizer in module.optimizers_by_name().values() for group in optimizer.param_groups]
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    exempt = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed | exempt == set(names.values())
    assert not decayed & exempt
    embeddings = "encoder.vilt.embeddings."
    for name in (
        "encoder.v_mask", f"{embeddings}cls_token", f"{embeddings}position_embeddings",
        f"{embeddings}token_type_embeddings.weight", f"{embeddings}text_embeddings.word_embeddings.weight",
        f"{embeddings}text_embeddings.LayerNorm.weight", "encoder.vilt.layernorm.weight",
        "generator.up.4.main.0.weight", "generator.skip.bias", "critics.local.score.bias",
    ):  # fmt: skip
        assert name in exempt
    for name in (
        f"{embeddings}patch_embeddings.projection.weight", "encoder.vilt.encoder.layer.0.intermediate.dense.weight",
        "generator.skip.parametrizations.weight.original", "critics.global.score.parametrizations.weight.original",
    ):  # fmt: skip
        assert name in decayed


def test_each_optimizer_is_clipped_by_itself() -> None:
    norms: dict[str, float] = {}

    class Watching(CMA):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            name = next(n for n, o in self.by_name.items() if o is optimizer)
            grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            norms[name] = torch.stack([g.norm() for g in grads]).norm().item()

    fit(Watching(**make(clip_norm=1e-3).hparams))
    assert norms == pytest.approx({"generator": 1e-3, "global": 1e-3, "local": 1e-3}, rel=1e-3)


# --- learning ---------------------------------------------------------------------------------------------------------


def recoloured(size: int) -> Batch:
    """Two scenes of `shapes` under their object masks, each in three colours that the captions alone tell apart."""
    from zoo.data import open_dataset
    from zoo.data.masked import EvaluationSet, collate
    from zoo.data.shapes.captions import captions
    from zoo.data.shapes.draw import draw

    dataset: Any = open_dataset("shapes", split="train", size=size)
    masked, items = EvaluationSet(dataset, "object"), []
    large = [k for k in range(200) if [(o.size, o.fill) for o in dataset.scene(k).objects] == [("large", "solid")]]
    for index in large[:2]:
        for colour in ("red", "green", "blue"):
            scene = dataset.scene(index)
            scene = replace(scene, objects=(replace(scene.objects[0], colour=colour),))
            image = torch.from_numpy(draw(scene, size)[0]).permute(2, 0, 1).contiguous()
            item = {
                **masked[index],
                "image": image,
                "caption": min(captions(scene), key=len),
                "id": f"{index}/{colour}",
            }
            items.append({key: item[key] for key in ("id", "image", "mask", "caption")})
    return finish_batch(collate(items))


def hole_error(module: CMA, batch: Batch, captions: list[str]) -> float:
    """The mean error within the holes when the captions are these."""
    hole = batch["mask"].expand_as(batch["image"]) > 0.5
    made = module.complete(Batch(**{**batch, "caption": captions})).image
    return float((made - batch["image"])[hole].abs().mean())


def learns(module: CMA, batch: Batch, steps: int) -> None:
    """Holes of trained scenes come closer to the truth than any caption-blind method can, and only with their caption.

    A method that does not read captions can at best paint the median of the three colours.
    """
    hole = batch["mask"].expand_as(batch["image"]) > 0.5
    known = torch.where(hole, 0.0, batch["image"])
    assert torch.equal(known[0], known[1])  # the rest of the picture gives nothing away
    median = batch["image"].unflatten(0, (2, 3)).median(1).values.repeat_interleave(3, 0)
    blind = float((median - batch["image"])[hole].abs().mean())
    own = batch["caption"]
    swapped = [own[k] for k in (1, 2, 0, 4, 5, 3)]
    fit(module, batch, max_steps=steps)
    after, other = hole_error(module, batch, own), hole_error(module, batch, swapped)
    assert after < 0.6 * blind
    assert other > 1.5 * blind


def test_a_few_scenes_and_their_captions_are_learned() -> None:
    batch = recoloured(32)
    module = make(
        vocabulary=vocabulary(batch["caption"]), hidden=32, layers=2, heads=4, intermediate=64, init_std=0.3, lr=4e-3,
        down=[8, 12, 16, 16, 16], up=[16, 16, 16, 12, 12], prior_skip="all", wpa_mode="contrastive", recon_hole=4.0,
        global_adv=False, local_adv=False,
    )  # fmt: skip
    learns(module, batch, steps=150)


@pytest.mark.slow
def test_the_nano_recipe_learns_a_few_scenes_and_their_captions() -> None:
    batch = recoloured(64)
    changes = {"vocabulary": vocabulary(batch["caption"]), "warmup": 50, "adv_start": 300, "decay": "constant"}
    torch.manual_seed(0)
    module = CMA(**{**arguments_of("nano"), **changes})
    learns(module, batch, steps=400)
