"""How NIGDT learns: its optimizers and schedules, and captions from a few scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes_cma import scenes
from tests.fakes_nigdt import arguments_of, fit, make
from zoo.batch import Batch, finish_batch
from zoo.cli.fit import _load_predecessors
from zoo.errors import UsageError
from zoo.models.nigdt import NIGDT, losses
from zoo.weights import save_weights
from zoo.words import vocabulary

# --- optimizing -------------------------------------------------------------------------------------------------------


class Watching(NIGDT):
    """Notes the learning rates, and the norms of the gradients, of each step."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        name = next(n for n, o in self.by_name.items() if o is optimizer)
        self.rates.setdefault(name, []).append(optimizer.param_groups[0]["lr"])
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        self.norms[name] = norm(grads)
        self.rnn = norm([p.grad for p in self.text.rnn.parameters() if p.grad is not None])


def norm(grads: list[torch.Tensor]) -> float:
    return torch.stack([g.norm() for g in grads]).norm().item() if grads else 0.0


def watched(**changes: Any) -> Watching:
    module = Watching(**make(**changes).hparams)
    module.load_state_dict(make(lively=True, **changes).state_dict())
    module.rates, module.norms, module.rnn = {}, {}, 0.0
    return module


def test_optimizers_have_the_settings_they_are_given() -> None:
    module = make(betas=[0.3, 0.99], lr=2e-4, critic_lr=3e-4, freeze_text=False)
    made = module.optimizers_by_name()
    assert list(made) == ["generator", "critics"]
    owners = {id(p): n.split(".")[0] for n, p in module.named_parameters()}
    for name, optimizer, lr in zip(made, made.values(), (2e-4, 3e-4), strict=True):
        assert type(optimizer) is torch.optim.Adam
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (lr, (0.3, 0.99), 0)
        assert {owners[id(p)] for p in group["params"]} == (
            {"critics"} if name == "critics" else set(owners.values()) - {"critics", "match"}
        )
    assert len(made["critics"].param_groups[0]["params"]) == len(list(module.critics.parameters()))
    first = make(stage="match", match_lr=4e-3, betas=[0.3, 0.99])
    (group,) = first.optimizers_by_name()["match"].param_groups
    assert (group["lr"], group["betas"]) == (4e-3, (0.5, 0.999))
    assert len(group["params"]) == len(list(first.parameters()))


@pytest.mark.parametrize("settings", [{"max_epochs": 4}, {"max_steps": 7}, {"max_epochs": 9, "max_steps": 7}], ids=str)
def test_match_networks_slow_down_by_two_percent_an_epoch(settings: dict[str, Any]) -> None:
    """However the length of the training is given."""
    module = watched(stage="match", match_lr=0.5)
    fit(module, *[scenes()] * 2, **{"max_steps": -1, "max_epochs": -1, **settings})
    expected = [0.5 * 0.98**epoch for epoch in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert module.rates == {"match": pytest.approx(expected[: settings.get("max_steps", 8)])}


def test_an_epoch_of_accumulated_batches_has_fewer_steps_and_the_rate_has_a_floor() -> None:
    module = watched(stage="match", match_lr=0.5, accumulate=2)
    fit(module, *[scenes()] * 4, max_epochs=3, max_steps=-1)
    assert module.rates["match"] == pytest.approx([0.5, 0.5, 0.49, 0.49, 0.4802, 0.4802])
    schedule = module._schedulers["match"].lr_lambdas[0]
    assert [schedule(2 * epoch) for epoch in (113, 114, 115, 600)] == pytest.approx(
        [0.98**113, 0.1, 0.1, 0.1], abs=1e-4
    )


def test_the_rate_of_the_generator_alone_stays_or_falls_to_zero() -> None:
    module = watched(decay="linear", lr=0.5, critic_lr=0.25)
    fit(module, max_steps=4)
    assert module.rates == {"generator": pytest.approx([0.5, 0.375, 0.25, 0.125]), "critics": [0.25] * 4}
    assert module.by_name["generator"].param_groups[0]["lr"] == 0
    module = watched(lr=0.5)
    fit(module, max_steps=4)
    assert module.rates["generator"] == [0.5] * 4


def test_the_end_of_the_rate_knows_of_epochs_and_of_accumulation() -> None:
    module = watched(decay="linear", lr=0.5, accumulate=2)
    fit(module, *[scenes()] * 2, max_epochs=2, max_steps=-1)
    assert module.rates["generator"] == pytest.approx([0.5, 0.25])
    with pytest.raises(UsageError, match=r"max_steps N[\s\S]*decay constant"):
        fit(make(decay="linear"), max_steps=-1)


def test_gradients_are_clipped_by_optimizer_and_in_the_first_stage_those_of_the_words_alone() -> None:
    module = watched(clip_norm=1e-3)
    fit(module)
    assert module.norms == pytest.approx({"generator": 1e-3, "critics": 1e-3}, rel=1e-3)
    free = watched(freeze_text=False)
    fit(free)
    assert free.norms["generator"] > 1e-3
    first = watched(stage="match", clip_norm=1e-3)
    fit(first)
    assert first.rnn == pytest.approx(0.25, rel=1e-3)
    assert first.norms["match"] > 1.0


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
            said = {"image": image, "caption": min(captions(scene), key=len), "id": f"{index}/{colour}"}
            items.append({key: {**masked[index], **said}[key] for key in ("id", "image", "mask", "caption")})
    return finish_batch(collate(items))


def hole_error(module: NIGDT, batch: Batch, captions: list[str]) -> float:
    """The mean error within the holes when the captions are these."""
    hole = batch["mask"].expand_as(batch["image"]) > 0.5
    made = module.complete(Batch(**{**batch, "caption": captions})).image
    return float((made - batch["image"])[hole].abs().mean())


def learns(first: NIGDT, second: NIGDT, folder: Path, steps: tuple[int, int]) -> None:
    """Captions of trained images are found, then holes come closer to the truth than any caption-blind method can.

    A method that does not read captions can at best paint the median of the three colours.
    """
    batch = recoloured(first.size)
    hole = batch["mask"].expand_as(batch["image"]) > 0.5
    known = torch.where(hole, 0.0, batch["image"])
    assert torch.equal(known[0], known[1])  # the rest of the picture gives nothing away
    median = batch["image"].unflatten(0, (2, 3)).median(1).values.repeat_interleave(3, 0)
    blind = float((median - batch["image"])[hole].abs().mean())
    own = batch["caption"]
    swapped = [own[k] for k in (1, 2, 0, 4, 5, 3)]
    fit(first, batch, max_steps=steps[0])
    with torch.no_grad():
        assert {name: sum(hits) for name, hits in first.eval().validate_batch(batch).items()} == {
            "match_words": 6, "match_sentence": 6
        }  # fmt: skip
    save_weights(first, folder / "match" / "weights.safetensors")
    _load_predecessors(second, folder, ("match",))
    fit(second, batch, max_steps=steps[1])
    after, other = hole_error(second, batch, own), hole_error(second, batch, swapped)
    assert after < 0.8 * blind, (after, other, blind)
    assert other > 1.5 * blind, (after, other, blind)
    with second.sampling():
        one, two = (second.complete(batch, seed=seed).raw[hole] for seed in (0, 1))
    assert (one - two).abs().mean() > 1e-4


@pytest.mark.slow
def test_a_few_scenes_and_their_captions_are_learned(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "vocabulary": vocabulary(recoloured(32)["caption"]), "text_length": 16, "embedding": 16, "words": 16,
        "encoder": [12, 16, 16], "latent": 8, "width": 16, "up": [16, 12, 12], "match_channels": [12, 16],
        "match_lr": 5e-3, "lr": 4e-3, "l1_hole": 4.0, "d1": 0.0, "adv": 0.0, "mask_skip": True,
    }  # fmt: skip
    learns(make(stage="match", **changes), make(**changes), tmp_path, (60, 200))


@pytest.mark.slow
def test_the_nano_recipe_learns_a_few_scenes_and_their_captions(tmp_path: Path) -> None:
    changes = {"vocabulary": vocabulary(recoloured(64)["caption"]), "adv_start": 300, "decay": "constant"}
    torch.manual_seed(0)
    stages = [NIGDT(**{**arguments_of("nano"), **changes, "stage": stage}) for stage in NIGDT.stages]
    learns(stages[0], stages[1], tmp_path, (150, 450))


def test_match_networks_of_the_first_stage_are_those_that_judge_in_the_second(tmp_path: Path) -> None:
    """After the first stage a caption's own image costs less than another's."""
    first = make(stage="match", match_lr=5e-3)
    batch = scenes(4)
    fit(first, batch, max_steps=60)
    save_weights(first, tmp_path / "match" / "weights.safetensors")
    second = make()
    _load_predecessors(second, tmp_path, ("match",))
    x = batch["image"] * 2 - 1
    described = second._describe(batch["caption"])

    def cost(images: torch.Tensor) -> float:
        codes = second._codes(images, described, batch["id"])
        return float(sum(losses.match(codes, *second.options["gammas"])))

    assert cost(x) < 0.5 * cost(x.roll(1, 0))
