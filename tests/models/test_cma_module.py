"""CMA as a method of the zoo: construction, completion, recipes, weights, checkpoints, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tests import cma_ddp
from tests.fakes_cma import TINY, WORDS, arguments_of, changed, fit, logged, make, scenes, some, states, trainer
from tests.processes import call_apart
from zoo.batch import Batch
from zoo.errors import DataError, UsageError
from zoo.models import recipe, resolve
from zoo.models.cma import CMA
from zoo.models.cma import module as implementation
from zoo.models.cma.encoder import RULES, masked_patches
from zoo.weights import load_weights, read_header, save_weights

ROOT = Path(__file__).resolve().parents[2]
NOTHING = dict.fromkeys(("global_adv", "local_adv", "recon", "cmad", "isd", "wpa"), False)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "##dish", "square"]


def count(*modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(implementation.CHOICES))
def test_other_choices_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be 'nonsense'") as caught:
        make(**{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in implementation.CHOICES[name])


@pytest.mark.parametrize("name", ["down", "up", "critic"])
@pytest.mark.parametrize("count", [4, 6])
def test_networks_have_five_layers(name: str, count: int) -> None:
    with pytest.raises(UsageError, match=f"{name} are the channels of five layers, not of {count}"):
        make(**{name: [4] * count})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"patch": 12}, "power of two"),
        ({"patch": 64}, "power of two"),
        ({"vocabulary": []}, "needs a vocabulary"),
        ({"vocabulary": ["red", "red"]}, "twice"),
        ({"text_length": 2}, "no room for a word"),
        ({"isd_tau": 0.0}, "isd_tau"),
        ({"tokenizer": "wordpiece"}, "no WordPiece vocabulary"),
        ({"heads": 3}, "multiple of heads"),
        ({"isd_kind": "spatial_softmax", "isd_region": "masked"}, "no divergence over some"),
        (NOTHING, "every loss of cma is off"),
        ({**NOTHING, "local_adv": True, "adv_start": 1}, "every loss of cma is off"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make(**change)


def test_sizes_and_readings_reach_their_parts() -> None:
    module = make(mask_channel=False, prior_skip="all", critic_halvings=4, local_halvings=1, init_std=0.7, table=5)
    image = torch.zeros(1, 3, 32, 32)
    assert [module.critics[name].layers(image).shape[-1] for name in ("global", "local")] == [2, 16]
    assert module.generator.down(image).shape == (1, 8, 4, 4)
    assert len(module.generator.skips) == 5
    assert module.encoder.v_mask.std() > 0.3
    assert module.encoder.vilt.embeddings.position_embeddings.shape == (1, 26, 16)
    assert (module.clip_norm, make(clip_norm=0.5, accumulate=3).clip_norm, module.multiple) == (1.0, 0.5, 8)
    assert make(accumulate=3).accumulate == 3


def test_captions_are_asked_for() -> None:
    assert CMA.needs == {"image", "mask", "caption"}
    batch = scenes()
    del batch["caption"]
    with pytest.raises(DataError, match="no 'caption'"):
        make().complete(batch)


def test_hyperparameters_are_plain_and_rebuild_the_method() -> None:
    module = make(vocabulary=tuple(WORDS), down=(4, 6, 8, 8, 8))
    again = CMA(**module.hparams)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
    assert isinstance(module.hparams["vocabulary"], list)


def test_words_come_from_captions_and_word_pieces_with_the_encoder(tmp_path: Path) -> None:
    def captions() -> list[str]:
        return ["A red square.", "a blue one"]

    def refused() -> list[str]:
        raise AssertionError("the captions are not needed")

    assert CMA.vocabulary_for({"tokenizer": "word"}, captions) == ["a", "blue", "one", "red", "square"]
    for arguments in ({}, {"tokenizer": "wordpiece", "pretrained": ""}):
        with pytest.raises(UsageError, match=r"none is named[\s\S]*vilt-b32-mlm[\s\S]*tokenizer word"):
            CMA.vocabulary_for(arguments, refused)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    make(**SMALL_PIECES).encoder.vilt.save_pretrained(tmp_path)
    assert CMA.vocabulary_for({"pretrained": str(tmp_path)}, refused) == PIECES


SMALL_PIECES: dict[str, Any] = {"tokenizer": "wordpiece", "vocabulary": PIECES}


# --- completing an image ----------------------------------------------------------------------------------------------


def test_c5_nothing_in_the_hole_is_looked_at_and_known_pixels_stay_to_the_bit() -> None:
    for rule in RULES:
        module, batch = make(patch_rule=rule), scenes()
        completed = module.complete(batch)
        hole = (batch["mask"] > 0.5).expand_as(batch["image"])
        assert torch.equal(completed.image[~hole], batch["image"][~hole])
        assert torch.equal(completed.image[hole], completed.raw[hole])
        assert 0 <= completed.raw.min() < completed.raw.max() <= 1
        for other in (torch.nan, 0.0, torch.rand_like(batch["image"])[hole]):
            blind = scenes()
            blind["image"][hole] = other
            again = module.complete(blind)
            assert torch.equal(again.raw, completed.raw)
            assert torch.equal(again.image[hole], completed.image[hole])


def test_the_image_is_seen_and_the_caption_is_read() -> None:
    module, batch = make(), scenes()
    raw = module.complete(batch).raw
    assert torch.equal(module.complete(batch, seed=7).raw, raw)  # there is no noise
    assert not torch.allclose(module.complete(Batch(**{**batch, "image": 1 - batch["image"]})).raw, raw, atol=1e-3)
    rolled = Batch(**{**batch, "caption": batch["caption"][1:] + batch["caption"][:1]})
    assert (module.complete(rolled).raw - raw).abs().max() > 1e-4


@pytest.mark.parametrize("rule", RULES)
def test_an_image_is_made_of_the_corrupted_pixels_and_the_encoders_patches(rule: str) -> None:
    module, batch = make(patch_rule=rule).eval(), scenes()
    x_m, M = (batch["image"] * 2 - 1) * (1 - batch["mask"]), batch["mask"]
    with torch.no_grad():
        V = module.encoder(x_m, masked_patches(M, 8, rule), module._tokens(batch["caption"])).patches
        expected = (module.generator(x_m, M, V) + 1) / 2
    torch.testing.assert_close(module.complete(batch).raw, expected)


def test_an_image_does_not_depend_on_its_batch() -> None:
    module, batch = make(), scenes(5)
    together = module.complete(batch).raw
    for k in range(5):
        torch.testing.assert_close(module.complete(some(batch, k)).raw, together[k : k + 1], atol=1e-5, rtol=0.0)
    backwards = module.complete(some(batch, 4, 3, 2, 1, 0)).raw
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(("height", "width"), [(96, 64), (32, 40), (61, 75), (30, 24), (24, 24)])
def test_any_size_is_completed(height: int, width: int) -> None:
    batch = scenes(2, height, width)
    completed = make().complete(batch)
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    assert completed.image.shape == (2, 3, height, width)
    assert completed.image.isfinite().all()
    assert torch.equal(completed.image[known], batch["image"][known])


def test_an_image_of_one_patch_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 16 pixels along one side"):
        make().complete(scenes(2, 8, 7))


def test_no_hole_returns_the_image_and_nothing_known_still_runs() -> None:
    module, batch = make(), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    assert torch.equal(module.complete(batch).image, batch["image"])
    batch["mask"] = torch.ones_like(batch["mask"])
    assert module.complete(batch).image.isfinite().all()


@pytest.mark.parametrize("pieces", [False, True])
def test_captions_of_any_length_are_forty_tokens(pieces: bool) -> None:
    module, batch = make(**(SMALL_PIECES if pieces else {})), some(scenes(), 0, 0, 0, 0)
    batch["caption"] = ["", "a red square " * 30, "a red square " * 30 + "square red a", "☃"]
    tokens = module._tokens(batch["caption"])
    assert tokens.ids.shape == (4, 40)
    assert tokens.known.sum(1).tolist() == [3, 40, 40, 3]
    assert tokens.words.sum(1).tolist() == [1, 38, 38, 1]
    raw = module.complete(batch).raw
    assert raw.isfinite().all()
    assert torch.equal(raw[1], raw[2])  # what is cut off is not read
    torch.testing.assert_close(raw[0], raw[3])
    assert not torch.equal(raw[0], raw[1])
    assert all(torch.tensor(value).isfinite() for value in logged(fit(module, batch)).values())


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_name_the_method_and_agree_with_themselves() -> None:
    for preset in ("nano", "paper"):
        content = recipe("cma", preset)
        arguments = content["model"]["init_args"]
        assert resolve(content["model"]["class_path"]) is CMA
        assert content["data"]["size"] == arguments["size"]
        assert arguments["size"] % arguments.get("patch", 32) == 0
        assert content["trainer"]["max_steps"] > arguments["warmup"]


def test_the_nano_recipe_is_small_and_takes_steps() -> None:
    words = [f"word{k}" for k in range(2044)]
    module = CMA(**{**arguments_of("nano"), "vocabulary": words, "adv_start": 1})
    assert 1.5e6 < count(module) < 3e6
    assert len(module.tokenizer) == 2048
    batch, before = scenes(2, 64, 64), states(module)
    values = logged(fit(module, batch, max_steps=2))
    assert {"l_cmad", "l_isd", "l_wpa", "l_1", "l_g_global", "l_g_local", "l_d_global", "l_d_local"} <= set(values)
    assert all(p.isfinite().all() for p in module.parameters())
    assert changed(module, before) == {"encoder", "generator", "critics"}
    assert module.complete(batch).image.shape == (2, 3, 64, 64)


def test_the_paper_recipe_has_the_papers_sizes_and_takes_a_step() -> None:
    """111.0 M in the encoder (ViLT-B/32 and [Vmask]), 134.6 M with the generator, 7.5 M in each critic."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"piece{k}" for k in range(30_518))]
    module = CMA(**{**arguments_of("paper"), "vocabulary": pieces, "pretrained": "", "decay": "constant"})
    generator = module.generator
    assert count(module.encoder.vilt) == 111_004_416
    assert count(module.encoder) == 111_005_184
    assert count(generator.down) == 7_518_592
    assert count(generator.up, generator.head) == 15_723_075
    assert count(generator.skip) == 393_728
    assert count(module.encoder, generator) == 134_640_579
    assert [count(critic) for critic in module.critics.values()] == [7_518_465] * 2
    assert module.teacher is None
    batch = scenes(1, 256, 256)
    batch["mask"][:] = 0
    batch["mask"][..., 64:192, 64:192] = 1
    before = states(module)
    values = logged(fit(module, batch))
    assert len(values) == 8 + 2
    assert all(torch.tensor(value).isfinite() for value in values.values())
    assert changed(module, before) == {"encoder", "generator", "critics"}
    assert module.complete(batch).image.isfinite().all()


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_travel_with_their_words_and_without_critics_and_teacher(tmp_path: Path) -> None:
    module = make(teacher="ema", down_input="both", wpa_margin=0.3)
    fit(module)
    path = save_weights(module, tmp_path / "weights.safetensors", preset="mine")
    header = read_header(path)
    assert header.vocabulary == WORDS
    assert "vocabulary" not in header.config
    assert header.config["wpa_margin"] == 0.3
    assert {name.split(".")[0] for name in module.exported_state()} == {"encoder", "generator"}
    again = load_weights(path, expect="zoo.models.cma.CMA")
    assert isinstance(again, CMA)
    assert torch.equal(again.complete(scenes()).raw, module.complete(scenes()).raw)
    assert module.exported_state().keys() == again.exported_state().keys()


def test_the_pretrained_encoder_is_loaded_when_a_training_starts_and_never_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = CMA(**TINY).encoder.vilt
    source.save_pretrained(tmp_path / "vilt")
    module = make(pretrained=str(tmp_path / "vilt"), teacher="frozen", lr=0.0)
    before = states(module)
    made = fit(module)
    assert changed(module, before, 2) == {"encoder.vilt", "teacher.vilt"}
    torch.testing.assert_close(module.encoder.vilt.state_dict(), source.state_dict(), atol=0.0, rtol=0.0)
    assert module.teacher is not None
    torch.testing.assert_close(module.teacher.state_dict(), module.encoder.state_dict(), atol=0.0, rtol=0.0)
    assert logged(made)["l_1"] > 0
    module = make(pretrained=str(tmp_path / "vilt"), lr=1e-2)
    made = fit(module)
    made.save_checkpoint(tmp_path / "last.ckpt")
    path = save_weights(module, tmp_path / "weights.safetensors")
    assert "pretrained" not in read_header(path).config
    (tmp_path / "vilt").rename(tmp_path / "gone")
    resumed = make(pretrained=str(tmp_path / "vilt"), lr=0.0)
    again = fit_on(resumed, tmp_path / "last.ckpt", max_steps=1)
    assert again.global_step == 1
    torch.testing.assert_close(resumed.encoder.state_dict(), module.encoder.state_dict(), atol=0.0, rtol=0.0)
    assert load_weights(path).complete(scenes()).image.isfinite().all()


# --- checkpoints ------------------------------------------------------------------------------------------------------


def fit_on(module: CMA, checkpoint: Path, **settings: Any) -> Trainer:
    """Goes on from a checkpoint, on the same batch."""
    made, loader = trainer(**settings), DataLoader([scenes()], batch_size=None)  # type: ignore[arg-type]
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
        {"decay": "linear", "warmup": 3},
        {"teacher": "ema", "wpa_mode": "contrastive", "adv_start": 1},
        {"teacher": "frozen", "optimizer": "adam", "accumulate": 2},
    ],
    ids=str,
)
def test_a_stopped_training_goes_on_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    straight, stopped = make(**changes), make(**changes)
    whole = fit(straight, max_steps=4)
    half = fit(stopped, max_steps=4, callbacks=[StopAt(2)])
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(7)
    resumed = CMA(**{**TINY, **changes})
    made = fit_on(resumed, tmp_path / "last.ckpt", max_steps=4)
    assert made.global_step == whole.global_step == 4
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), atol=0.0, rtol=0.0)
    for name, optimizer in straight.by_name.items():
        torch.testing.assert_close(resumed.by_name[name].state_dict(), optimizer.state_dict(), atol=0.0, rtol=0.0)


def test_a_finished_training_can_be_made_longer(tmp_path: Path) -> None:
    """The learning rate had fallen to zero; it must not stay there."""
    first = fit(make(decay="linear"), max_steps=2)
    first.save_checkpoint(tmp_path / "last.ckpt")
    module = make(decay="linear")
    rates: list[float] = []

    class Watching(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"] / TINY["lr"])

    fit_on(module, tmp_path / "last.ckpt", max_steps=6, callbacks=[Watching()])
    assert rates[1:] == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_a_rate_that_falls_needs_an_end() -> None:
    with pytest.raises(UsageError, match=r"max_steps N[\s\S]*decay constant"):
        fit(make(decay="linear"), max_steps=-1)


def test_checkpoints_load_without_pickle(tmp_path: Path) -> None:
    module = make(teacher="ema")
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    again = CMA.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    assert dict(again.hparams) == dict(module.hparams)


# --- two processes ----------------------------------------------------------------------------------------------------


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Two processes of 2 samples take the steps of one of 4; run apart, since DDP forks.

    With the paper's word-patch alignment, whose terms are of each sample alone. Contrastive alignment compares samples
    of one process: there two processes have other pairs than one.
    """
    call_apart(cma_ddp.one_and_two, tmp_path)
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    start: dict[str, Tensor] = one["start"]
    assert len(one["state"]) == len(start)
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, atol=2e-6, rtol=1e-4, msg=name)
    for part in ("encoder", "generator", "critics.global", "critics.local"):
        moved = [(one["state"][n] - p).abs().max() for n, p in start.items() if n.startswith(part)]
        assert max(moved) > 1e-3  # far more than the two may differ by
