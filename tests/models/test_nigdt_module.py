"""NIGDT as a method of the zoo: construction, completion, recipes, weights, checkpoints, two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tests.fakes_cma import WORDS, changed, logged, scenes, some, states, trainer
from tests.fakes_inception import inception_state
from tests.fakes_nigdt import TINY, arguments_of, count, enliven, fit, know_noise, make, parts
from zoo.batch import Batch
from zoo.cli.fit import _load_predecessors
from zoo.errors import DataError, UsageError, WeightsError
from zoo.keyed import Noise
from zoo.models import recipe, resolve
from zoo.models.nigdt import NIGDT
from zoo.models.nigdt import module as implementation
from zoo.models.nigdt.match import InceptionTrunk
from zoo.models.nigdt.projection import Gaussian
from zoo.weights import load_weights, read_header, save_weights

ROOT = Path(__file__).resolve().parents[2]
COMPLETING = {"text", "encoder", "attention", "prior", "generator"}

# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(implementation.CHOICES))
def test_other_choices_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be 'nonsense'") as caught:
        make(**{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in implementation.CHOICES[name])


@pytest.mark.parametrize("name", list(implementation.CHOICES))
def test_every_choice_that_is_offered_can_be_built(name: str) -> None:
    for choice in implementation.CHOICES[name]:
        assert make(**{name: choice}).options[name] == choice


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"legacy_swap": True, "paths": "one"}, "legacy_swap takes the text of the complement"),
        ({"stage": "first"}, "NIGDT has no stage 'first'"),
        ({"vocabulary": []}, "needs a vocabulary"),
        ({"vocabulary": ["red", "red"]}, "twice"),
        ({"text_length": 0}, "no room for a word"),
        ({"words": 5}, "width 5 cannot be halved"),
        ({"halvings": 4}, "3 stages cannot halve an image 4 times"),
        ({"halvings": 0}, "cannot halve an image 0 times"),
        ({"low": 4}, "low must be from 1 to 3"),
        ({"blocks": 0}, "at least one residual layer"),
        ({"kept": 3}, "kept must be below 3"),
        ({"outputs": 3}, "outputs must be from 1 to 2"),
        ({"attention_at": 0}, "attention_at must be from 1 to 3"),
        ({"attention_at": 3}, "v_l with 8 channels, beside 6"),
        ({"critic_attention": 3}, "after 0 to 2 layers"),
        ({"critic_halvings": 3}, "2 stages cannot halve an image 3 times"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make(**change)


def test_sizes_and_readings_reach_their_parts() -> None:
    module = make(
        cell="lstm", dropout=0.25, prior_before=2, longterm_mixed=True, mask_skip=True, norm_dim=0, critic_attention=0,
        attention_softmax="area", invalid_as_zero=True, clip_norm=0.5, accumulate=3, k=0.5, cell_rule="strict",
    )  # fmt: skip
    assert (type(module.text.rnn), module.text.dropout.p) == (torch.nn.LSTM, 0.25)
    assert (len(module.prior.before), len(module.posterior.before)) == (2, 0)
    assert module.generator.attention.mixed
    assert len(module.generator.mask_skips) == 4
    assert (module.attention.softmax, module.attention.pool, module.attention.invalid_as_zero) == ("area", True, True)
    assert (module.clip_norm, module.accumulate, module.k, module.multiple, module.size) == (0.5, 3, 0.5, 4, 32)
    assert not any("gamma" in name for name, _ in module.critics.named_parameters())
    assert [make().critics[name](torch.zeros(1, 3, 32, 32)).shape for name in ("d1", "d2")] == [(1, 1, 6, 6)] * 2
    one = make(bidirectional=False)
    assert (one.text.rnn.bidirectional, one.text.rnn.hidden_size) == (False, 6)
    rows = {dim: make(norm_dim=dim).state_dict() for dim in (0, 1)}
    name = "generator.layers.1.shortcut.0.parametrizations.weight.0._u"
    assert {dim: len(state[name]) for dim, state in rows.items()} == {0: 10, 1: 8}


def test_the_cell_rule_reaches_the_cells() -> None:
    M = torch.zeros(1, 1, 32, 32)
    M[..., 1:9, 0:7] = 1
    for rule, known, hole in (("majority", 60, 4), ("strict", 58, 1)):
        cells = make(cell_rule=rule)._cells(M, torch.zeros(1, 9, 8, 8))
        assert (int(cells.known.sum()), int(cells.hole.sum())) == (known, hole)


def test_the_papers_settings_are_the_defaults() -> None:
    sizes = {"encoder": [4] * 7, "up": [4] * 5, "critic": [4] * 6, "width": 4, "latent": 2, "words": 4, "embedding": 4}
    options = NIGDT(vocabulary=WORDS, trunk="small", **sizes).options  # type: ignore[arg-type]
    names = ("l1", "d1", "adv", "kl", "match", "lr", "critic_lr", "betas", "clip_norm", "adv_start", "l1_hole", "k")
    assert [options[name] for name in names] == [20.0, 1.0, 1.0, 20.0, 0.5, 1e-4, 1e-4, [0.0, 0.999], 0.0, 0, 0.0, 0.0]
    assert (options["kl_per_output"], options["kl_direction"], options["free_bits"]) == (True, "forward", 0.0)
    assert (options["gammas"], options["match_gamma1"], options["match_lr"]) == ([5.0, 5.0, 10.0], 4.0, 2e-3)
    assert (options["cell"], options["cell_rule"], options["pool"], options["paths"]) == (
        "gru", "majority", "both", "two"
    )  # fmt: skip
    assert (options["legacy_swap"], options["d2_fakes"], options["d1_feature"]) == (False, "both", "score")
    assert (options["text_length"], options["freeze_text"], options["decay"]) == (40, True, "constant")


def test_captions_are_asked_for() -> None:
    assert NIGDT.needs == {"image", "mask", "caption"}
    batch = scenes()
    del batch["caption"]
    with pytest.raises(DataError, match="no 'caption'"):
        make().complete(batch)


def test_words_come_from_captions() -> None:
    assert NIGDT.vocabulary_for({}, lambda: ["A red square.", "a blue one"]) == ["a", "blue", "one", "red", "square"]


def test_hyperparameters_are_plain_and_rebuild_the_method() -> None:
    for stage in NIGDT.stages:
        module = make(vocabulary=tuple(WORDS), encoder=(8, 10, 9), gammas=(4.0, 5.0, 10.0), stage=stage)
        again = NIGDT(**module.hparams)
        assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
        assert all(isinstance(module.hparams[name], list) for name in ("vocabulary", "encoder", "gammas", "betas"))


# --- completing an image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["majority", "strict"])
def test_nothing_in_the_hole_is_looked_at_and_known_pixels_stay_to_the_bit(rule: str) -> None:
    module, batch = make(lively=True, cell_rule=rule), scenes()
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
    module, batch = make(lively=True), scenes()
    raw = module.complete(batch).raw
    assert not torch.allclose(module.complete(Batch(**{**batch, "image": 1 - batch["image"]})).raw, raw, atol=1e-3)
    rolled = Batch(**{**batch, "caption": batch["caption"][1:] + batch["caption"][:1]})
    assert (module.complete(rolled).raw - raw).abs().max() > 1e-3


@pytest.mark.parametrize("k", [0.0, 0.7])
@pytest.mark.parametrize("mask_skip", [False, True])
def test_an_image_is_made_by_the_generative_path_alone(k: float, mask_skip: bool) -> None:
    """Neither posterior nor match network nor discriminator is called, and the encoder once, with the known part."""
    module, batch = make(lively=True, k=k, mask_skip=mask_skip, cell_rule="strict").eval(), scenes()
    I_m, M = (batch["image"] * 2 - 1) * (1 - batch["mask"]), batch["mask"]
    cells = torch.nn.functional.max_pool2d(M, 4) == 0
    with torch.no_grad():
        v_l, v_h = module.encoder(I_m)
        said = module.text(module.tokenizer(batch["caption"]))
        t_e = module.attention(v_h, said, cells, -1.0, True)
        h = torch.cat([v_h, t_e, said.sentence[:, :, None, None].expand(-1, -1, 8, 8)], 1)
        p = module.prior(h)
        ε = Noise(batch["id"], 3).normal("latent", (5, 8, 8))
        expected = (module.generator(h, p.mean + k * p.deviation * ε, v_l, M)[-1] + 1) / 2
    called: list[str] = []
    for name, part in module.named_children():
        part.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    for critic in module.critics.values():
        critic.register_forward_pre_hook(lambda *_: called.append("critic"))
    torch.testing.assert_close(module.complete(batch, seed=3).raw, expected)
    assert sorted(called) == sorted(COMPLETING)


@pytest.mark.parametrize("pool", ["both", "none"])
def test_an_image_does_not_depend_on_its_batch(pool: str) -> None:
    module, batch = make(lively=True, k=1.0, pool=pool), scenes(5)
    together = module.complete(batch, seed=2).raw
    for k in range(5):
        torch.testing.assert_close(module.complete(some(batch, k), 2).raw, together[k : k + 1], atol=1e-5, rtol=0.0)
    backwards = module.complete(some(batch, 4, 3, 2, 1, 0), seed=2).raw
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("rule", ["majority", "strict"])
@pytest.mark.parametrize(("height", "width"), [(96, 64), (32, 40), (61, 75), (30, 24), (24, 24), (4, 8)])
def test_any_size_is_completed(height: int, width: int, rule: str) -> None:
    batch = scenes(2, height, width)
    completed = make(lively=True, cell_rule=rule, mask_skip=True).complete(batch)
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    assert completed.image.shape == (2, 3, height, width)
    assert completed.image.isfinite().all()
    assert torch.equal(completed.image[known], batch["image"][known])


def test_an_image_of_one_cell_is_refused() -> None:
    with pytest.raises(UsageError, match="twice the encoder's step along one side"):
        make().complete(scenes(2, 4, 3))


@pytest.mark.parametrize("rule", ["majority", "strict"])
def test_no_hole_returns_the_image_and_nothing_known_still_runs(rule: str) -> None:
    module, batch = make(lively=True, cell_rule=rule), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    assert torch.equal(module.complete(batch).image, batch["image"])
    batch["mask"] = torch.ones_like(batch["mask"])
    completed = module.complete(batch).image
    assert completed.isfinite().all()
    assert not torch.equal(completed[0], completed[2])  # there is the caption still


def test_captions_of_any_length_are_read_up_to_their_limit() -> None:
    module, batch = make(lively=True), some(scenes(), 0, 0, 0, 0)
    batch["caption"] = ["", "a red square " * 30, "a red square " * 3 + "a blue ground", "☃"]
    raw = module.complete(batch).raw
    assert raw.isfinite().all()
    torch.testing.assert_close(raw[1], raw[2])  # what is cut off is not read
    torch.testing.assert_close(raw[0], raw[3])
    assert not torch.allclose(raw[0], raw[1], atol=1e-3)


def test_n8_the_mean_is_deterministic_and_samples_differ_in_the_hole_alone() -> None:
    module, batch = make(lively=True), scenes()
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    mean = module.complete(batch, seed=0).image
    assert torch.equal(module.complete(batch, seed=1).image, mean)
    with module.sampling():
        assert module.k == 1
        zero, one, again = (module.complete(batch, seed=s).image for s in (0, 1, 0))
    assert torch.equal(zero, again)
    for sample in (mean, one):
        assert torch.equal(zero[known], sample[known])
        assert (zero - sample)[~known].abs().mean() > 1e-3
    assert torch.equal(module.complete(batch, seed=1).image, mean)


def test_n8_sampling_keeps_a_k_that_is_set_and_puts_it_back_whatever_happens() -> None:
    module = make(k=0.3)
    with module.sampling():
        assert module.k == 0.3
    module.k = 0.0
    with pytest.raises(ValueError, match="stop"), module.sampling():
        raise ValueError("stop")
    assert module.k == 0.0
    assert NIGDT.stochastic


def test_n8_the_spread_grows_with_k() -> None:
    module, batch = make(lively=True), scenes()
    hole = (batch["mask"] > 0.5).expand_as(batch["image"])
    spreads = []
    for k in (0.0, 0.02, 0.1, 0.5):
        module.k = k
        samples = torch.stack([module.complete(batch, seed=s).raw[hole] for s in range(6)])
        spreads.append(float(samples.std(0).mean()))
    assert spreads[0] == 0
    assert spreads == sorted(spreads)
    assert spreads[3] > 1.5 * spreads[2] > 3 * spreads[1] > 0


def test_samples_differ_between_images_too() -> None:
    module, batch = make(lively=True, k=1.0), some(scenes(), 0, 0)
    batch["id"] = ["a", "b"]
    one, two = module.complete(batch).raw
    assert (one - two).abs().mean() > 1e-3


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
    for devices in ("1", "2"):
        command = [sys.executable, "-m", "tests.nigdt_ddp", devices, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
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
        torch.testing.assert_close(two["state"][name], value, atol=1e-6, rtol=1e-5, msg=name)
    moved = {n for n, p in start.items() if (one["state"][n] - p).abs().max() > 1e-4}  # far more than they may differ
    assert parts(moved) == learning


# --- validation -------------------------------------------------------------------------------------------------------


def test_match_networks_are_validated_by_how_often_a_caption_is_found() -> None:
    from zoo.models.nigdt import losses

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


def test_a_prior_that_is_narrow_hardly_varies() -> None:
    """The spread is that of the prior, and of nothing else."""
    module, batch = make(lively=True, k=1.0), scenes()
    prior = module.prior.forward
    module.prior.forward = lambda h: Gaussian(prior(h).mean, torch.full_like(prior(h).mean, 1e-5))  # type: ignore[method-assign]
    one, two = (module.complete(batch, seed=s).raw for s in (0, 1))
    assert (one - two).abs().max() < 1e-3
