"""NIGDT as a method of the zoo: construction and completion."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.fakes_cma import WORDS, scenes, some
from tests.fakes_nigdt import COMPLETING, make
from zoo.batch import Batch
from zoo.errors import DataError, UsageError
from zoo.keyed import Noise
from zoo.models.nigdt import NIGDT
from zoo.models.nigdt import module as implementation
from zoo.models.nigdt.projection import Gaussian

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
    with pytest.raises(UsageError, match="at least 8 pixels along one side"):
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


def test_a_prior_that_is_narrow_hardly_varies() -> None:
    """The spread is that of the prior, and of nothing else."""
    module, batch = make(lively=True, k=1.0), scenes()
    prior = module.prior.forward
    module.prior.forward = lambda h: Gaussian(prior(h).mean, torch.full_like(prior(h).mean, 1e-5))  # type: ignore[method-assign]
    one, two = (module.complete(batch, seed=s).raw for s in (0, 1))
    assert (one - two).abs().max() < 1e-3
