"""The recipes and stages of NIGDT: weights between them, checkpoints, two processes, validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tests import nigdt_ddp
from tests.fakes_cma import WORDS, changed, logged, scenes, some, states, trainer
from tests.fakes_inception import inception_state
from tests.fakes_nigdt import COMPLETING, TINY, arguments_of, count, enliven, fit, know_noise, make, parts
from tests.processes import call_apart
from zoo.batch import Batch
from zoo.cli.fit import _load_predecessors
from zoo.errors import WeightsError
from zoo.models import recipe, resolve
from zoo.models.nigdt import NIGDT, losses
from zoo.models.nigdt.match import InceptionTrunk
from zoo.weights import load_weights, read_header, save_weights

ROOT = Path(__file__).resolve().parents[2]

# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_name_the_method_and_agree_with_themselves() -> None:
    for preset in ("nano", "paper", "tdanet"):
        content = recipe("nigdt", preset)
        arguments = content["model"]["init_args"]
        assert resolve(content["model"]["class_path"]) is NIGDT
        assert content["data"]["size"] == arguments["size"]
        assert arguments["size"] % 2 ** arguments.get("halvings", 5) == 0
        assert content["trainer"]["max_steps"] > arguments.get("adv_start", 0)


def test_the_nano_recipe_is_small_and_both_of_its_stages_take_steps() -> None:
    batch = scenes(3, 64, 64)
    first = NIGDT(**arguments_of("nano", stage="match"))
    assert count(first) == 276_288
    before = states(first)
    assert set(logged(fit(first, batch, max_steps=2))) == {"l_word", "l_sentence"}
    assert changed(first, before) == {"text", "match"}
    module = NIGDT(**arguments_of("nano", adv_start=1))
    assert count(module) == 1_705_957
    assert len(module.tokenizer) == 2048
    before = states(module)
    values = logged(fit(module, batch, max_steps=2))
    assert set(values) == {"KL_r", "KL_g", "l_d1", "l_d2"} | {
        f"l_{t}_{p}" for t in ("1", "D1", "D2", "T") for p in "gr"
    }
    assert all(p.isfinite().all() for p in module.parameters())
    assert changed(module, before) == {"encoder", "attention", "prior", "posterior", "generator", "critics"}
    assert module.complete(batch).image.shape == (3, 3, 64, 64)


def has_the_papers_sizes(module: NIGDT) -> None:
    """5.5 M in the encoder, 8.2 M in prior and posterior each, 10.3 M in the generator, 1.1 M in a discriminator."""
    assert count(module.encoder) == 5_520_320
    assert count(module.attention) == 65_536
    assert count(module.prior) == count(module.posterior) == 8_196_352
    assert count(module.generator) == 10_257_696
    assert [count(critic) for critic in module.critics.values()] == [1_099_554] * 2
    assert count(module.match.trunk) == 21_785_568
    assert (module.text.embedding.weight.shape, type(module.text.rnn)) == ((2048, 300), torch.nn.GRU)


def test_the_tdanet_recipe_has_the_published_sizes() -> None:
    module = NIGDT(**arguments_of("tdanet"))
    assert count(module.encoder, module.attention, module.prior, module.posterior) == 23_155_648
    assert count(module.generator) == 10_257_696
    assert type(module.text.rnn) is torch.nn.LSTM
    options = module.options
    assert (options["cell_rule"], options["kl_direction"], options["d2_fakes"]) == (
        "strict", "reverse", "reconstructive"
    )  # fmt: skip
    assert (options["match"], options["kl"], options["kl_per_output"], options["text_length"]) == (0.1, 20.0, True, 128)
    assert module.attention.invalid_as_zero


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of the published weights of Inception-v3."""
    path = tmp_path_factory.mktemp("inception") / "inception_v3.pth"
    torch.save(inception_state(), path)
    return path


def test_the_paper_recipe_has_the_papers_sizes_and_takes_a_step_in_both_stages(inception: Path, tmp_path: Path) -> None:
    batch = scenes(2, 256, 256)
    batch["mask"][:] = 0
    batch["mask"][..., 64:192, 64:192] = 1
    first = NIGDT(**arguments_of("paper", stage="match", inception=str(inception)))
    before = states(first)
    values = logged(fit(first, batch))
    assert values["l_word"] > 0
    assert values["l_sentence"] > 0
    assert changed(first, before, 2) == {
        "text.embedding", "text.rnn", "match.to_regions", "match.to_image", "match.trunk"
    }  # fmt: skip
    assert changed(first.match.trunk, inception_state()) == set()  # loaded, and not trained
    save_weights(first, tmp_path / "match" / "weights.safetensors")
    module = NIGDT(**arguments_of("paper"))
    has_the_papers_sizes(module)
    _load_predecessors(module, tmp_path, ("match",))
    before = states(module)
    values = logged(fit(module, batch))
    assert len(values) == 2 + 2 + 2 * 4
    assert all(torch.tensor(value).isfinite() for value in values.values())
    assert values["l_T_g"] > 0
    assert all(p.isfinite().all() for p in module.parameters())
    assert parts({n for n, p in module.named_parameters() if not torch.equal(p.detach(), before[n])}) == {
        "encoder", "attention", "prior", "posterior", "generator", "critics.d1", "critics.d2"
    }  # fmt: skip
    assert module.complete(batch).image.isfinite().all()


# --- stages and weights -----------------------------------------------------------------------------------------------


def test_match_networks_complete_nothing() -> None:
    module = make(stage="match")
    assert not module.completes
    assert make().completes
    assert {name for name, _ in module.named_children()} == {"text", "match"}
    with pytest.raises(WeightsError, match=r"stage 'match' of NIGDT does not complete images"):
        module.complete(scenes())


def test_the_second_stage_takes_over_text_and_match_networks(tmp_path: Path) -> None:
    first = enliven(make(stage="match"))
    fit(first, max_steps=2)
    save_weights(first, tmp_path / "match" / "weights.safetensors")
    assert {name.split(".")[0] for name in first.exported_state()} == {"text", "match"}
    second = make()
    assert not torch.equal(second.text.embedding.weight, first.text.embedding.weight)
    before = states(second)
    _load_predecessors(second, tmp_path, ("match",))
    assert changed(second, before) == {"text", "match"}
    for name in ("text", "match"):
        theirs, ours = (getattr(module, name).state_dict() for module in (first, second))
        torch.testing.assert_close(ours, theirs, atol=0.0, rtol=0.0)
    without = make(use_match=False)
    _load_predecessors(without, tmp_path, ("match",))
    torch.testing.assert_close(without.text.state_dict(), first.text.state_dict(), atol=0.0, rtol=0.0)


def test_weights_hold_what_completing_needs_and_travel_with_their_words(tmp_path: Path) -> None:
    module = make(prior_before=1, mask_skip=True, k=0.5)
    fit(module)
    path = save_weights(module, tmp_path / "weights.safetensors", preset="mine")
    header = read_header(path)
    assert header.vocabulary == WORDS
    assert "vocabulary" not in header.config
    assert (header.config["prior_before"], header.config["k"], header.method) == (1, 0.5, "nigdt")
    assert "inception" not in header.config  # where a training took its trunk from is nobody else's business
    assert {name.split(".")[0] for name in module.exported_state()} == COMPLETING
    again = load_weights(path, expect="nigdt")
    assert isinstance(again, NIGDT)
    assert torch.equal(again.complete(scenes(), seed=4).raw, module.complete(scenes(), seed=4).raw)
    assert module.exported_state().keys() == again.exported_state().keys()
    half = load_weights(save_weights(module, tmp_path / "half.safetensors", half=True))
    torch.testing.assert_close(half.complete(scenes()).raw, module.complete(scenes()).raw, atol=0.02, rtol=0.0)


def test_inception_is_loaded_when_match_networks_begin_to_be_trained_and_never_again(
    inception: Path, tmp_path: Path
) -> None:
    changes = {"trunk": "inception", "stage": "match", "inception": str(inception)}
    batch, module = some(scenes(), 0, 1), make(**changes)
    assert isinstance(module.match.trunk, InceptionTrunk)
    assert not module.match.trunk.loaded
    made = fit(module, batch)
    assert changed(module.match.trunk, inception_state()) == set()
    made.save_checkpoint(tmp_path / "last.ckpt")
    resumed = make(**{**changes, "inception": str(tmp_path / "gone.pth")})
    fit_on(resumed, tmp_path / "last.ckpt", batch, max_steps=2)
    assert changed(resumed.match.trunk, inception_state()) == set()
    with pytest.raises(WeightsError, match=r"no such file[\s\S]*gone\.pth[\s\S]*nano needs none"):
        fit(make(**{**changes, "inception": str(tmp_path / "gone.pth")}), batch)
    with pytest.raises(WeightsError, match="no file is named"):
        fit(make(**{**changes, "inception": ""}), batch)
    with pytest.raises(WeightsError, match="weights of Inception-v3; none are loaded"):
        fit(make(trunk="inception"), batch)  # without the stage before


# --- checkpoints ------------------------------------------------------------------------------------------------------


def fit_on(module: NIGDT, checkpoint: Path, batch: Batch | None = None, **settings: Any) -> Trainer:
    """Goes on from a checkpoint, on the same batch."""
    made, loader = trainer(**settings), DataLoader([batch or scenes()], batch_size=None)  # type: ignore[arg-type]
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
        {"decay": "linear", "adv_start": 1},
        {"accumulate": 2, "freeze_text": False},
        {"paths": "one", "use_match": False},
        {"stage": "match"},
    ],
    ids=str,
)
def test_a_stopped_training_goes_on_to_the_bit(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_noise(monkeypatch, paths=1 if "paths" in changes else 2)
    straight, stopped = make(**changes), make(**changes)
    whole = fit(straight, max_steps=4)
    half = fit(stopped, max_steps=4, callbacks=[StopAt(2)])
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(7)
    resumed = NIGDT(**{**TINY, **changes})
    made = fit_on(resumed, tmp_path / "last.ckpt", max_steps=4)
    assert made.global_step == whole.global_step == 4
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), atol=0.0, rtol=0.0)
    for name, optimizer in straight.by_name.items():
        torch.testing.assert_close(resumed.by_name[name].state_dict(), optimizer.state_dict(), atol=0.0, rtol=0.0)


def test_checkpoints_load_without_pickle(tmp_path: Path) -> None:
    for stage in NIGDT.stages:
        module = make(stage=stage)
        fit(module).save_checkpoint(tmp_path / "last.ckpt")
        again = NIGDT.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
        torch.testing.assert_close(again.state_dict(), module.state_dict())
        assert dict(again.hparams) == dict(module.hparams)


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights after two steps of one process with batches of 4, and of two processes with 2; run apart: DDP forks."""
    folder = tmp_path_factory.mktemp("ddp")
    call_apart(nigdt_ddp.one_and_two, folder)
    return folder


@pytest.mark.parametrize(
    ("stage", "learning"),
    [("match", {"text", "match"}), ("inpaint", (COMPLETING - {"text"}) | {"posterior", "critics.d1", "critics.d2"})],
    ids=["match", "inpaint"],
)
def test_two_processes_equal_one(stage: str, learning: set[str], trained: Path) -> None:
    """The match loss has the captions of both as negatives, and knows which of them are of the same image."""
    one, two = (torch.load(trained / f"{stage}-{devices}.pt", weights_only=True) for devices in (1, 2))
    start: dict[str, Tensor] = one["start"]
    assert one["state"].keys() == two["state"].keys() == start.keys()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, atol=2e-6, rtol=1e-4, msg=name)
    moved = {n for n, p in start.items() if (one["state"][n] - p).abs().max() > 1e-4}  # far more than they may differ
    assert parts(moved) == learning


# --- validation -------------------------------------------------------------------------------------------------------


def test_match_networks_are_validated_by_how_often_a_caption_is_found() -> None:
    module, batch = enliven(make(stage="match")).eval(), scenes(8)
    with torch.no_grad():
        found = module.validate_batch(batch)
        said, seen = module.text(module.tokenizer(batch["caption"])), module.match(batch["image"] * 2 - 1)
        words = losses.word_scores(seen.regions, said.words, said.known, 5.0, 5.0)
        whole = losses.sentence_scores(seen.image, said.sentence)
    for name, scores in (("match_words", words), ("match_sentence", whole)):
        assert found[name] == [float(int(row.argmax()) == k) for k, row in enumerate(scores)]
    assert found.keys() == {"match_words", "match_sentence"}
    assert 0 < sum(found["match_words"] + found["match_sentence"]) < 16  # neither all nor none


def test_validation_runs_in_both_stages() -> None:
    for stage, names in (("match", {"val/match_words", "val/match_sentence"}), ("inpaint", {"val/psnr", "val/l1"})):
        made = trainer()
        loader: Any = DataLoader([scenes(), scenes(2)], batch_size=None)  # type: ignore[arg-type]
        values = made.validate(make(stage=stage), loader, verbose=False)[0]
        assert names <= set(values)
        assert all(torch.tensor(value).isfinite() for value in values.values())
