"""Discriminators and ablations of NIGDT: what each sees, what is left out, and that every choice trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from tests.fakes_cma import changed, logged, scenes, states
from tests.fakes_nigdt import KEYS, NETWORKS, enliven, fed, fit, know_noise, make, own
from zoo.batch import Batch
from zoo.models.nigdt import NIGDT

# --- the discriminators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fakes"),
    [
        ({}, {"d1": "r", "d2": "gr"}),
        ({"d2_fakes": "reconstructive"}, {"d1": "r", "d2": "r"}),
        ({"d2_fakes": "generative"}, {"d1": "r", "d2": "g"}),
        ({"d2_fakes": "reconstructive", "paths": "one"}, {"d1": "g", "d2": "g"}),
    ],
    ids=str,
)
def test_discriminators_see_truth_and_what_their_paths_made(
    changes: dict[str, Any], fakes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = make(lively=True, lr=0.0, **changes), scenes()
    given = {name: fed(critic) for name, critic in module.critics.items()}
    matched = fed(module.match)
    fit(module, batch)
    made = dict(zip("gr", matched, strict=False))  # the match network sees the last output of either path, raw
    assert len(matched) == (1 if "paths" in changes else 2)
    for name, paths in fakes.items():
        truth, *others = given[name][0].split(3)
        assert torch.equal(truth, batch["image"] * 2 - 1)
        assert len(others) == len(paths)
        for path, seen in zip(paths, others, strict=True):
            assert torch.equal(seen, made[path])
    known = (batch["mask"] < 0.5).expand_as(batch["image"])
    assert not torch.allclose(made["g"][known], (batch["image"] * 2 - 1)[known], atol=0.1)


def test_the_adversarial_game_begins_when_it_is_told_to() -> None:
    module = make(lively=True, adv_start=2)
    before = states(module)
    values = logged(fit(module, max_steps=2))
    assert set(values) == {"KL_r", "KL_g", "l_1_g", "l_1_r", "l_T_g", "l_T_r"}
    assert changed(module, before) == NETWORKS
    module = make(lively=True, adv_start=2)
    assert set(logged(fit(module, max_steps=3))) == KEYS
    assert "critics" in changed(module, before)


@pytest.mark.parametrize(("off", "left"), [("d1", "d2"), ("adv", "d1")])
def test_a_discriminator_without_weight_is_not_built(off: str, left: str) -> None:
    module = make(lively=True, **{off: 0.0})
    values = logged(fit(module))
    gone = {"l_d1", "l_D1_g", "l_D1_r"} if off == "d1" else {"l_d2", "l_D2_g", "l_D2_r"}
    assert set(values) == KEYS - gone
    assert set(module.critics) == {left}
    module = make(d1=0.0, adv=0.0)
    assert set(logged(fit(module))) == KEYS - {n for n in KEYS if n[:3] in ("l_d", "l_D")}
    assert list(module.by_name) == ["generator"]
    assert not own(module, "critics")


# --- ablations --------------------------------------------------------------------------------------------------------


def h_of(module: NIGDT, batch: Batch) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """v_h, t_e and t_sent as prior and posterior are given them in a step."""
    given = {name: fed(getattr(module, name)) for name in ("prior", "posterior") if hasattr(module, name)}
    fit(module, batch)
    return {name: tuple(h[0].split([9, 6, 6], 1)) for name, h in given.items()}  # type: ignore[misc]


def test_without_text_both_texts_are_zero_and_widths_stay() -> None:
    module, batch = make(lively=True, use_text=False), scenes()
    plain = make(use_match=False)  # L_T of no text would be a constant
    assert {n: p.shape for n, p in module.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    raw = module.complete(batch).raw
    assert not torch.allclose(make(lively=True).complete(batch).raw, raw, atol=1e-3)
    other = Batch(**{**batch, "caption": ["yellow", "", "the blue ground"]})
    assert torch.equal(module.complete(other).raw, raw)
    for _, t_e, t_sent in h_of(module, batch).values():
        assert not t_e.any()
        assert not t_sent.any()


@pytest.mark.parametrize(
    ("pool", "pooled"), [("both", ["prior", "posterior"]), ("negative", ["prior"]), ("none", [])], ids=str
)
def test_without_max_pooling_each_valid_cell_has_its_own_text(pool: str, pooled: list[str]) -> None:
    module, batch = make(lively=True, pool=pool), scenes()
    hole = F.avg_pool2d(batch["mask"], 4) >= 0.5
    for name, (_, t_e, _) in h_of(module, batch).items():
        one = t_e[:, :, :1, :1].expand_as(t_e)
        assert torch.equal(t_e, one) == (name in pooled)
        if name not in pooled:
            invalid = (hole if name == "prior" else ~hole).expand_as(t_e)
            assert not t_e[invalid].any()
            assert t_e[~invalid].all()
    assert torch.allclose(make(lively=True).complete(batch).raw, make(lively=True, pool=pool).complete(batch).raw) == (
        pool != "none"
    )


def test_without_attention_the_text_is_the_mean_of_the_words() -> None:
    module, batch = make(lively=True, use_attention=False), scenes()
    assert not own(module, "attention")
    said = module._describe(batch["caption"])
    mean = torch.stack([w[:, known].mean(1) for w, known in zip(said.words, said.known, strict=True)])
    for _, t_e, t_sent in h_of(module, batch).values():
        torch.testing.assert_close(t_e, mean[:, :, None, None].expand_as(t_e))
        torch.testing.assert_close(t_sent, said.sentence[:, :, None, None].expand_as(t_sent))


def test_without_matching_there_is_no_match_network() -> None:
    module = make(lively=True, use_match=False)
    assert not own(module, "match")
    assert not hasattr(module, "match")
    assert set(logged(fit(module))) == {n for n in KEYS if not n.startswith("l_T")}
    assert own(make(use_match=False, stage="match"), "match")  # the text encoder needs it there


def test_with_one_path_there_is_no_posterior_and_the_complement_is_not_encoded() -> None:
    module, batch = make(lively=True, paths="one"), scenes()
    assert not own(module, "posterior")
    seen = fed(module.encoder)
    values = logged(fit(module, batch))
    assert set(values) == {n for n in KEYS if not n.endswith("_r")}
    assert [len(x) for x in seen] == [3]
    assert values["KL_g"] > 0


def test_ablations_change_the_loss_and_only_what_they_should() -> None:
    """A network that is left out moves random numbers, so that weights are taken from the whole model."""
    whole = make(lively=True)

    def ablated(**changes: Any) -> dict[str, float]:
        module = make(lr=0.0, critic_lr=0.0, **changes)
        module.load_state_dict({n: t for n, t in whole.state_dict().items() if n in module.state_dict()})
        with pytest.MonkeyPatch.context() as monkeypatch:
            know_noise(monkeypatch, paths=1 if "paths" in changes else 2)
            return logged(fit(module))

    plain = ablated()
    for changes in ({"use_text": False}, {"use_attention": False}, {"pool": "none"}):
        made = ablated(**changes)
        for name, rel in (("KL_r", 1e-3), ("KL_g", 1e-3), ("l_1_g", 1e-6), ("l_1_r", 1e-6)):
            assert made[name] != pytest.approx(plain[name], rel=rel), (name, changes)
    without = ablated(use_match=False)
    assert without == pytest.approx({n: v for n, v in plain.items() if n in without}, rel=1e-5)
    one = ablated(paths="one")
    for name in ("l_1_g", "l_D1_g", "l_D2_g", "l_T_g"):
        assert one[name] == pytest.approx(plain[name], rel=1e-4)
    assert one["KL_g"] != pytest.approx(plain["KL_g"], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "lstm"}, {"bidirectional": False}, {"cell_rule": "strict", "invalid_as_zero": True},
        {"attention_softmax": "area"}, {"kl_direction": "reverse"}, {"d1_feature": "penultimate"},
        {"legacy_swap": True}, {"dynamic_sigma": True}, {"longterm_mixed": True}, {"norm_dim": 0}, {"free_bits": 0.1},
        {"decay": "linear"}, {"accumulate": 2}, {"freeze_text": False, "dropout": 0.5}, {"clip_norm": 0.1},
        {"use_text": False}, {"use_attention": False}, {"paths": "one"}, {"use_match": False},
    ],
    ids=str,
)  # fmt: skip
def test_every_choice_takes_finite_steps(changes: dict[str, Any]) -> None:
    module = make(lively=True, **changes)
    before = states(module)
    made = fit(module, max_steps=3)
    assert made.global_step == 3
    assert all(value.isfinite() for value in made.logged_metrics.values())
    assert all(p.isfinite().all() for p in module.parameters())
    moved = {n.split(".")[0] for n in before} - {"match"} - ({"text"} if module.options["freeze_text"] else set())
    assert changed(module, before) == moved - ({"attention"} if changes.get("use_text") is False else set())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("stage", NIGDT.stages)
def test_mixed_precision_trains(precision: Any, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    know_noise(monkeypatch)
    changes = {"stage": stage, "lr": 0.0, "critic_lr": 0.0, "match_lr": 0.0}
    exact = logged(fit(enliven(make(**changes))))

    def plugin() -> MixedPrecision:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if precision == "16-mixed" else None
        return MixedPrecision(precision, "cpu", scaler)

    values = logged(fit(enliven(make(**changes)), plugins=[plugin()]))
    assert values == pytest.approx(exact, abs=0.1, rel=0.05)
    module = make(lively=True, stage=stage)
    before = states(module)
    fit(module, max_steps=3, plugins=[plugin()])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())
    assert changed(module, before)
    if stage == "inpaint":
        with torch.autocast("cpu", torch.bfloat16):
            completed = module.complete(scenes())
        assert completed.raw.isfinite().all()
        torch.testing.assert_close(completed.raw, module.complete(scenes()).raw, atol=0.1, rtol=0.0)
