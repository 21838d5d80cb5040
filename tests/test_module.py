"""The base module, on a toy method with two networks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import MixedPrecision

from tests.processes import call_apart
from tests.toys import Coder, Toy, loader
from zoo.batch import Batch
from zoo.errors import UsageError, WeightsError
from zoo.module import hide_truth, pad_batch

ROOT = Path(__file__).resolve().parents[1]


def trainer(tmp_path: Path, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": tmp_path, "max_epochs": 100,
    }  # fmt: skip
    return Trainer(**(defaults | settings))


def make(seed: int = 0, **arguments: Any) -> Toy:
    seed_everything(seed, verbose=False)
    return Toy(**arguments)


def batch(size: int = 16) -> Batch:
    return next(iter(loader(size=size)))  # type: ignore[return-value]


def test_a_method_is_not_stochastic_and_samples_as_it_completes_unless_it_says_so() -> None:
    toy = make(noisy=True)
    with toy.sampling():
        inside = toy.complete(batch(), seed=1).image
    assert torch.equal(inside, toy.complete(batch(), seed=1).image)
    assert not Toy.stochastic


@pytest.mark.parametrize("training", [True, False])
def test_a_completion_evaluates_every_network_and_gives_the_mode_back(training: bool) -> None:
    toy = make().train(training)
    toy.generator.train()  # somebody forgot it
    seen: list[bool] = []
    toy.generator.register_forward_hook(lambda network, *_: seen.append(network.training))
    toy.complete(batch())
    assert seen
    assert not any(seen)
    assert toy.training is training
    assert toy.generator.training is training


def test_max_steps_counts_iterations_not_optimizer_steps(tmp_path: Path) -> None:
    toy, fit = make(), trainer(tmp_path, max_steps=6)
    fit.fit(toy, loader())
    assert (fit.global_step, toy.iteration, fit.fit_loop.total_batch_idx + 1) == (6, 6, 6)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    # Only the generator: two half batches of hinge losses are not one batch once the critic has moved.
    whole, halves = make(), make(accumulate=2)
    trainer(tmp_path, max_steps=1).fit(whole, loader(count=8, batch_size=8))
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(halves, loader(count=8, batch_size=4))
    assert fit.fit_loop.total_batch_idx + 1 == 2
    assert torch.allclose(whole.discriminator.bias, halves.discriminator.bias, atol=1e-6)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    toy = make(lr=1.0, clip_norm=1e-3)
    before = toy.generator.weight.detach().clone(), toy.generator.bias.detach().clone()
    trainer(tmp_path, max_steps=1).fit(toy, loader())
    moved = torch.cat([(toy.generator.weight - before[0]).flatten(), toy.generator.bias - before[1]])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_each_turn_gives_gradients_to_its_own_network_only(tmp_path: Path) -> None:
    seen: list[tuple[str, bool, bool]] = []

    class Watching(Toy):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            name = next(n for n, o in self.by_name.items() if o is optimizer)
            other = "generator" if name == "discriminator" else "discriminator"
            seen.append((name, _graded(getattr(self, name)), _graded(getattr(self, other))))

    watched = Watching()
    trainer(tmp_path, max_steps=2).fit(watched, loader())
    assert seen == [("discriminator", True, False), ("generator", True, False)] * 2
    assert all(p.requires_grad for n, p in watched.named_parameters() if not n.startswith("perceptual"))
    assert not any(p.requires_grad for p in watched.perceptual.parameters())


def _graded(network: torch.nn.Module) -> bool:
    return all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    toy = make(clip_norm=1.0)
    before = toy.generator.weight.detach().clone()
    # Given as a plugin: the name alone would turn fp16 into bf16 on the CPU, and the scaler would go untested.
    scaler = torch.amp.GradScaler("cpu") if precision == "16-mixed" else None
    plugin = MixedPrecision(precision, "cpu", scaler)  # type: ignore[arg-type]
    trainer(tmp_path, max_steps=3, plugins=[plugin]).fit(toy, loader())
    assert toy.generator.weight.isfinite().all()
    assert not torch.equal(before, toy.generator.weight)


def test_clipping_is_of_unscaled_gradients(tmp_path: Path) -> None:
    toy = make(lr=1.0, clip_norm=1e-3)
    before = toy.generator.bias.detach().clone(), toy.generator.weight.detach().clone()
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    trainer(tmp_path, max_steps=1, plugins=[plugin]).fit(toy, loader())
    moved = torch.cat([toy.generator.bias - before[0], (toy.generator.weight - before[1]).flatten()])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The gradient of two processes of 4 images is that of one process of 8; run apart, since DDP forks."""
    from tests import toy_ddp  # which imports this module

    call_apart(toy_ddp.one_and_two, tmp_path)
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    for name, value in one["state"].items():
        if "generator" in name or name.endswith(("bias", "original")):
            assert torch.allclose(value, two["state"][name], atol=1e-5), name
    assert one["values"] == pytest.approx(two["values"], abs=1e-4)


def test_average_of_weights_is_lightnings_callback(tmp_path: Path) -> None:
    toy, plain = make(), make()
    average = EMAWeightAveraging(decay=0.9, use_buffers=False)
    trainer(tmp_path, max_steps=5, callbacks=[average]).fit(toy, loader())
    trainer(tmp_path, max_steps=5).fit(plain, loader())
    assert not torch.equal(toy.generator.weight, plain.generator.weight)
    assert (toy.generator.weight - plain.generator.weight).abs().max() < 0.5


def test_frozen_networks_stay_out_of_checkpoints(tmp_path: Path) -> None:
    toy, fit = make(), trainer(tmp_path, max_steps=1)
    fit.fit(toy, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert saved
    assert not [k for k in saved if k.startswith("perceptual")]
    again = Toy.load_from_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(again.generator.weight, toy.generator.weight)
    with pytest.raises(WeightsError, match="1 missing"):
        again.load_state_dict({k: v for k, v in saved.items() if k != "generator.bias"})
    with pytest.raises(WeightsError, match="do not fit"):
        again.load_state_dict({**saved, "generator.bias": torch.zeros(7)})


def test_truth_in_the_hole_is_invisible_and_known_pixels_are_exact() -> None:
    toy, clean = make().eval(), batch()
    blind = clean | {"image": clean["image"].masked_fill(clean["mask"] > 0.5, float("nan"))}
    seen, unseen = toy.complete(clean), toy.complete(blind)  # type: ignore[arg-type]
    assert torch.equal(seen.raw, unseen.raw)
    assert unseen.image.isfinite().all()
    known = clean["mask"].expand_as(clean["image"]) < 0.5
    assert torch.equal(seen.image[known], clean["image"][known])


@pytest.mark.parametrize("size", [16, 18, 5])
def test_any_size_completes(size: int) -> None:
    made = make().complete(batch(size))
    assert made.image.shape == (4, 3, size, size)


def test_no_hole_returns_the_image_and_all_hole_runs() -> None:
    toy, full = make(), batch()
    nothing = toy.complete(full | {"mask": torch.zeros_like(full["mask"])})  # type: ignore[arg-type]
    assert torch.equal(nothing.image, full["image"])
    everything = toy.complete(full | {"mask": torch.ones_like(full["mask"])})  # type: ignore[arg-type]
    assert torch.equal(everything.image, everything.raw)


def test_a_sample_is_the_same_alone_and_in_a_batch() -> None:
    toy, full = make(noisy=True), batch()
    alone = {k: v[1:2] for k, v in full.items()}
    together = toy.complete(full, seed=3).raw
    assert torch.allclose(together[1:2], toy.complete(alone, seed=3).raw, atol=1e-6)  # type: ignore[arg-type]
    assert not torch.allclose(together, toy.complete(full, seed=4).raw, atol=1e-3)


def test_guidance_is_hidden_unless_asked_for() -> None:
    full = batch()
    full["edge"] = torch.ones_like(full["mask"])
    full["segmentation"] = torch.full((4, 16, 16), 3)
    hidden = hide_truth(full)
    assert hidden["edge"].sum() == 0
    assert hidden["edge_mask"].min() == 1
    assert (hidden["segmentation"][full["mask"][:, 0] > 0.5] == 255).all()
    assert torch.equal(hidden["segmentation_mask"], full["mask"])
    shown = hide_truth(full, ("edge", "segmentation"))
    assert torch.equal(shown["edge"], full["edge"])
    assert shown["edge_mask"].max() == 0
    assert torch.equal(shown["segmentation"], full["segmentation"])
    assert shown["segmentation_mask"].max() == 0
    assert pad_batch(hidden, 5)["segmentation"].shape == (4, 20, 20)
    assert full["edge"].min() == 1, "the caller's batch must not change"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="no stage"):
        super(Toy, make()).__init__(size=16, stage="nothing")
    with pytest.raises(UsageError, match="accumulate"):
        Toy(accumulate=0)


def test_validation_logs_metrics_over_images(tmp_path: Path) -> None:
    values = trainer(tmp_path).validate(make(), loader(count=6), verbose=False)[0]
    assert {"val/l1_hole", "val/psnr", "val/ssim"} <= set(values)


def test_a_stage_that_cannot_complete_is_validated_by_its_own_figures(tmp_path: Path) -> None:
    values = trainer(tmp_path).validate(Coder(), loader(count=6), verbose=False)[0]
    assert values == {"val/even": 2.0, "val/number": 2.5}, "means over the samples that have a value"
    last = trainer(tmp_path).validate(Coder(stage="inpaint"), loader(count=6), verbose=False)[0]
    assert "val/l1_hole" in last
    assert "val/number" not in last
    with pytest.raises(NotImplementedError, match=r"Toy must define validate_batch\(batch\) for stage 'inpaint'"):
        make().validate_batch(batch())


def test_a_stage_that_cannot_complete_says_so() -> None:
    assert make().completes
    with pytest.raises(WeightsError, match="stage 'code' of Coder does not complete images") as found:
        Coder().complete(batch())
    assert "zoo fit --model Coder --stage inpaint" in found.value.remedy
    with pytest.raises(WeightsError, match=r"of coder\.Coder does not") as found:
        Coder().check_completes("a.safetensors", "coder.Coder")
    assert found.value.where == "a.safetensors"
    Coder(stage="inpaint").complete(batch())


def test_weights_of_an_earlier_stage_leave_out_only_what_is_frozen() -> None:
    early, last = (Coder(stage=stage).exported_state() for stage in Coder.stages)
    assert set(last) == {"generator.weight", "generator.bias"}
    everything = set(Coder().state_dict())
    assert set(early) == {name for name in everything if not name.startswith("perceptual")}
    assert any(name.startswith("discriminator") for name in early)


def test_each_process_of_a_distributed_training_draws_numbers_of_its_own() -> None:
    drawn = []
    for rank in (0, 1, 0):
        toy = make()
        toy._trainer = SimpleNamespace(world_size=2, global_rank=rank, global_step=3)  # type: ignore[assignment]
        torch.manual_seed(0)  # as Lightning leaves every process
        toy.on_train_start()
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
