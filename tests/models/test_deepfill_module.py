"""DeepFill as a method of the zoo: completion, training, checkpoints, weights, recipes, card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.batch import Batch
from zoo.errors import UsageError
from zoo.models import build, recipe, resolve
from zoo.models.deepfill import DeepFill, losses
from zoo.models.deepfill.discriminator import Critics, PatchDiscriminator
from zoo.weights import load_weights, read_header, save_weights

TINY: dict[str, Any] = {"size": 64, "width": 4, "dilations": [1, 2], "d_base": 4, "d_layers": 3, "lr": 1e-3}
V1: dict[str, Any] = {
    **TINY, "gated": "plain", "refine_input": "rgb_ones_mask", "output": "clamp", "gan": "wgan_gp",
    "spatial_discount": 0.99, "l1": 1.2, "coarse_l1": 1.2, "adv": 1e-3, "betas": [0.5, 0.9],
}  # fmt: skip


def scenes(count: int = 4, size: int = 64, hole: int = 20) -> Batch:
    """Stripes in colour, each of its own period, with a square hole each."""
    position = torch.arange(size) / size
    images = []
    for i in range(count):
        wave = 0.5 + 0.4 * torch.sin(2 * math.pi * (2 + i) * position + i)
        colour = torch.tensor([0.2 + 0.2 * i, 0.9 - 0.2 * i, 0.5]).view(3, 1, 1)
        images.append((wave if i % 2 else wave.view(-1, 1)).expand(3, size, size) * colour)
    mask = torch.zeros(count, 1, size, size)
    for i in range(count):
        mask[i, :, 10 + 4 * i : 10 + 4 * i + hole, 12 + i : 12 + i + hole] = 1
    image = torch.stack(images)
    return {
        "id": [f"stripes/{i}" for i in range(count)],
        "image": image,
        "mask": mask,
        "edge": (image.mean(1, keepdim=True).diff(dim=3, prepend=image.mean(1, keepdim=True)[..., :1]) > 0.1).float(),
    }


def make(**arguments: Any) -> DeepFill:
    seed_everything(0, verbose=False)
    return DeepFill(**{**TINY, **arguments})


def fit(module: DeepFill, batch: Batch, **settings: Any) -> Trainer:
    """Trains on one batch over and over."""
    trainer = Trainer(
        **{
            "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1,
            "enable_model_summary": False, "enable_checkpointing": False, "max_steps": 1, **settings,
        }
    )  # fmt: skip
    trainer.fit(module, DataLoader([batch], batch_size=None))  # type: ignore[arg-type]
    return trainer


def states(module: DeepFill) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(module: DeepFill, before: dict[str, Tensor]) -> set[str]:
    """Names of the networks of which any parameter has changed."""
    return {name.split(".")[0] for name, p in module.named_parameters() if not torch.equal(p, before[name])}


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator"), [("nano", 1_017_954, 377_064), ("paper", 4_052_478, 5_946_816)]
)
def test_presets_have_the_sizes_they_claim(preset: str, generator: int, discriminator: int) -> None:
    module = build("deepfill", preset)
    assert isinstance(module, DeepFill)
    assert sum(p.numel() for p in module.generator.parameters()) == generator
    assert isinstance(module.discriminator, PatchDiscriminator)
    assert sum(p.numel() for p in module.discriminator.parameters()) == discriminator
    content = recipe("deepfill", preset)
    assert content["data"]["size"] == content["model"]["init_args"]["size"] == module.size
    assert resolve(content["model"]["class_path"]) is DeepFill


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(UsageError, match="ca_down cannot be 'bilinear'"):
        make(ca_down="bilinear")
    with pytest.raises(UsageError, match="critic_steps"):
        make(critic_steps=0)
    with pytest.raises(UsageError, match="spatial_discount"):
        make(spatial_discount=1.5)
    with pytest.raises(UsageError, match="pretrain_coarse"):
        make(coarse=False, pretrain_coarse=3)


def test_a_balanced_start_keeps_features_alive_through_the_gates() -> None:
    sizes = {}
    for init in ("xavier", "balanced"):
        module = make(width=12, dilations=[1, 2, 4, 8], init=init)
        sizes[init] = module.generator(scenes()["image"] * 2 - 1, scenes()["mask"]).refined.std().item()
    assert sizes["xavier"] < 1e-4
    assert 0.05 < sizes["balanced"] < 0.95


# --- completing an image ----------------------------------------------------------------------------------------------


def test_completion_keeps_known_pixels_and_never_looks_into_the_hole() -> None:
    module, batch = make(), scenes()
    completed = module.complete(batch)
    hole = batch["mask"].expand(-1, 3, -1, -1) > 0.5
    assert torch.equal(completed.image[~hole], batch["image"][~hole])
    assert torch.equal(completed.image[hole], completed.raw[hole])
    assert 0 <= completed.raw.min() <= completed.raw.max() <= 1
    blind = scenes()
    blind["image"] = blind["image"].masked_fill(batch["mask"] > 0.5, torch.nan)
    again = module.complete(blind)
    assert torch.equal(again.raw, completed.raw)
    assert torch.equal(again.image[hole], completed.image[hole])


def test_an_image_does_not_depend_on_its_batch() -> None:
    module, batch = make(), scenes()
    together = module.complete(batch).raw
    for i in range(4):
        alone: Any = {key: value[i : i + 1] for key, value in batch.items()}  # type: ignore[index]
        torch.testing.assert_close(module.complete(alone).raw, together[i : i + 1], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(("height", "width"), [(61, 75), (64, 40), (9, 17)])
def test_any_size_is_completed(height: int, width: int) -> None:
    batch = scenes(2, size=80)
    cut: Any = {k: batch[k][..., :height, :width] for k in ("image", "mask")}  # type: ignore[literal-required]
    cut["mask"][..., 2:6, 3:8] = 1
    completed = make().complete({"id": batch["id"], **cut})
    assert completed.image.shape == (2, 3, height, width)
    assert completed.image.isfinite().all()


def test_no_hole_returns_the_image_and_nothing_known_still_runs() -> None:
    module, batch = make(), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    assert torch.equal(module.complete(batch).image, batch["image"])
    batch["mask"] = torch.ones_like(batch["mask"])
    assert module.complete(batch).image.isfinite().all()


def test_a_sketch_is_asked_for_and_used_when_guided() -> None:
    batch = scenes()
    assert DeepFill.needs == make().needs == {"image", "mask"}
    guided = make(guided=True)
    assert guided.needs == {"image", "mask", "edge"}
    assert DeepFill.needs == {"image", "mask"}
    with torch.no_grad():
        for parameter in guided.generator.parameters():
            parameter.mul_(2.0)
    without, shown = guided.complete(batch).raw, guided.complete(batch, guidance=("edge",)).raw
    assert not torch.allclose(without, shown)
    fit(guided, batch)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TINY, V1], ids=["v2", "v1"])
def test_each_loss_reaches_exactly_its_own_network(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(**options)
    with torch.no_grad():
        for parameter in module.generator.parameters():
            parameter.mul_(2.0)
    reached: dict[str, set[str]] = {}

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()
        moved = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        reached[names[0]] = moved
        assert all(p.grad is None for n, p in module.named_parameters() if not n.startswith(names[0]))

    monkeypatch.setattr(module, "_minimize", record)
    fit(module, scenes(), max_steps=-1, max_epochs=1)
    for name, network in (("generator", module.generator), ("discriminator", module.discriminator)):
        assert network is not None
        # The critics' last bias takes the same value from both sides of Eq. 1, and its slope is none.
        expected = {f"{name}.{n}" for n, _ in network.named_parameters()} - {
            f"discriminator.{critic}.score.bias" for critic in ("whole", "crop")
        }
        assert reached[name] == expected


def test_losses_are_taken_on_the_composite_and_put_together_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch, seen = make(), scenes(), []
    monkeypatch.setattr(module, "_minimize", lambda names, loss: seen.append((names[0], loss.item())))
    fed: list[Tensor] = []
    assert module.discriminator is not None
    module.discriminator.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    trainer = fit(module, batch, max_steps=-1, max_epochs=1)
    logged = {k.removeprefix("train/"): v.item() for k, v in trainer.logged_metrics.items()}
    assert [name for name, _ in seen] == ["discriminator", "generator"]
    assert seen[0][1] == pytest.approx(logged["l_d"])
    assert seen[1][1] == pytest.approx(logged["l_rec"] + logged["l_adv"])
    assert logged["l_rec"] == pytest.approx(logged["l_coarse"] + logged["l_refined"])
    real, fake = fed[0].chunk(2)  # one call for both
    assert len(fed) == 2
    known = batch["mask"].expand(-1, 3, -1, -1) < 0.5
    truth = batch["image"] * 2 - 1
    assert torch.equal(real, torch.cat([truth, batch["mask"]], 1))
    assert torch.equal(fake[:, :3][known], truth[known])
    assert not torch.equal(fake[:, :3], truth)
    assert torch.equal(fed[1].detach(), fake)


def test_weights_of_the_terms_count() -> None:
    module, batch = make(l1=3.0, coarse_l1=2.0, adv=0.5), scenes()
    trainer = fit(module, batch)
    logged = {k.removeprefix("train/"): v for k, v in trainer.logged_metrics.items()}
    assert logged["l_rec"] == pytest.approx(3.0 * (2.0 * logged["l_coarse"] + logged["l_refined"]))
    truth = batch["image"] * 2 - 1
    x1, x2 = truth + 0.1, truth + 0.2
    terms = make(**V1)._reconstruction_terms(truth, x1, x2, batch["mask"])
    weight = losses.discount(batch["mask"], 0.99)
    hole = [losses.discounted_l1(truth, x, batch["mask"], weight) for x in (x1, x2)]
    known = [losses.autoencoding_l1(truth, x, batch["mask"]) for x in (x1, x2)]
    assert terms["l_rec"] == pytest.approx(1.2 * (1.2 * hole[0] + hole[1]) + 1.2 * (1.2 * known[0] + known[1]))
    assert set(make(coarse_sup=False)._reconstruction_terms(truth, x1, x2, batch["mask"])) == {"l_rec", "l_refined"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gan": "none"},
        {"coarse": False},
        {"coarse_sup": False, "detach_coarse": True, "attn_branch": False},
        {"d_mask": False},
        V1,
        {**V1, "gp_mode": "per_pixel", "critic_mask": True},
        {**V1, "gp_mode": "plain", "critics": "global"},
        {**V1, "critics": "local"},
    ],
    ids=str,
)
@pytest.mark.parametrize("hole", [20, 0])
def test_every_game_takes_finite_steps(changes: dict[str, Any], hole: int) -> None:
    module, batch = make(**changes), scenes(2, hole=hole)
    before = states(module)
    trainer = fit(module, batch, max_steps=2)
    assert trainer.global_step == 2
    assert all(v.isfinite() for v in trainer.logged_metrics.values())
    assert all(p.isfinite().all() for p in module.parameters())
    if hole:
        assert changed(module, before) == {"generator"} | ({"discriminator"} if module.discriminator else set())


def test_the_critics_take_five_steps_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module, turns = make(**{**V1, "critic_steps": 5}), []
    minimize = module._minimize

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        turns.append(names[0][0])
        minimize(names, loss)

    monkeypatch.setattr(module, "_minimize", record)
    trainer = fit(module, scenes(2), max_steps=2)
    assert isinstance(module.discriminator, Critics)
    assert "".join(turns) == "dddddgdddddg"
    assert trainer.global_step == 2


def test_the_coarse_network_can_go_first() -> None:
    module = make(pretrain_coarse=2)
    before = states(module)
    fit(module, scenes(), max_steps=2)
    parts = {".".join(n.split(".")[:2]) for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert parts == {"generator.coarse"}
    fit(module, scenes(), max_steps=1)
    module = make(pretrain_coarse=1)
    before = states(module)
    fit(module, scenes(), max_steps=2)
    assert changed(module, before) == {"generator", "discriminator"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("options", [TINY, V1], ids=["v2", "v1"])
def test_mixed_precision_trains(precision: Any, options: dict[str, Any]) -> None:
    module = make(**options)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if precision == "16-mixed" else None
    trainer = fit(module, scenes(), max_steps=3, plugins=[MixedPrecision(precision, "cpu", scaler)])
    assert all(v.isfinite() for v in trainer.logged_metrics.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


def test_four_scenes_are_learned() -> None:
    seed_everything(0, verbose=False)
    module = build("deepfill", "nano", lr=1e-3, adv=0.01)
    assert isinstance(module, DeepFill)
    batch = scenes()
    hole = batch["mask"].expand(-1, 3, -1, -1) > 0.5

    def error(image: Tensor) -> float:
        return float((image - batch["image"])[hole].abs().mean())

    mean = (batch["image"] * ~hole).sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)
    before, baseline = error(module.complete(batch).image), error(mean.expand_as(batch["image"]))
    fit(module, batch, max_steps=40)
    after = error(module.complete(batch).image)
    assert after < 0.5 * before
    assert after < baseline


# --- checkpoints and weights ------------------------------------------------------------------------------------------


def test_checkpoints_load_without_pickle(tmp_path: Path) -> None:
    module = make(**V1)
    trainer = fit(module, scenes(2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = DeepFill.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    assert dict(again.hparams) == dict(module.hparams)


def test_weights_travel_without_the_discriminator(tmp_path: Path) -> None:
    module = make(ca_scale=7.0, gan="sn_patch")
    path = save_weights(module, tmp_path / "weights.safetensors", preset="mine")
    assert read_header(path).config["ca_scale"] == 7.0
    assert not any(name.startswith("discriminator") for name in module.exported_state())
    again = load_weights(path, expect="deepfill")
    assert torch.equal(again.complete(scenes()).raw, module.complete(scenes()).raw)
