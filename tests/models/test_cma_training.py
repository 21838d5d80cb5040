"""The training step of CMA: which loss reaches what, how they add up, critics, ablations."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from tests.fakes_cma import WORDS, changed, fit, logged, make, scenes, some, states
from zoo.batch import Batch
from zoo.models.cma import CMA, losses
from zoo.models.cma import module as implementation
from zoo.models.cma.crop import crop
from zoo.words import Tokens, WordTokenizer

OFF = {"global_adv": False, "local_adv": False, "recon": False, "cmad": False, "isd": False, "wpa": False}
KEYS = {
    "global_adv": {"l_d_global", "l_g_global"}, "local_adv": {"l_d_local", "l_g_local"}, "recon": {"l_1"},
    "cmad": {"l_cmad"}, "isd": {"l_isd"}, "wpa": {"l_wpa"},
}  # fmt: skip
MONITOR = {"cosine_patches", "cosine_text"}
ONCE: dict[str, Any] = {"max_steps": -1, "max_epochs": 1}  # for steps that do not count, as nothing is stepped


def embedded(module: CMA) -> list[Tensor]:
    """What the encoder is fed from now on, a tensor per call; after a backward pass with its gradient."""
    fed: list[Tensor] = []
    embed = module.encoder.embed

    def recorded(image: Tensor, masked: Tensor) -> Tensor:
        made = embed(image, masked)
        if made.requires_grad:
            made.retain_grad()
        fed.append(made)
        return made

    module.encoder.embed = recorded  # type: ignore[method-assign]
    return fed


def gradients(module: CMA, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, set[str]], list[bool]]:
    """Names of the parameters that each turn reaches, and whether the generator's reaches each pass of the encoder."""
    reached: dict[str, set[str]] = {}
    fed = embedded(module)

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        reached[names[0]] = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    monkeypatch.setattr(module, "_minimize", record)
    fit(module, batch, **ONCE)
    assert len(fed) == 1, "one call of the encoder for all passes"
    assert fed[0].grad is not None
    return reached, [bool(g.abs().sum() > 0) for g in fed[0].grad.split(len(batch["id"]))]


def parts(names: set[str]) -> set[str]:
    """encoder, generator, critics.global, critics.local."""
    return {".".join(n.split(".")[: 2 if n.startswith("critics") else 1]) for n in names}


# --- the gradient map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "changes", "passes", "reaches", "v_mask"),
    [
        ("recon", {}, [True], {"encoder", "generator"}, True),
        ("global_adv", {}, [True], {"encoder", "generator"}, True),
        ("local_adv", {}, [True], {"encoder", "generator"}, True),
        ("cmad", {}, [True, False], {"encoder"}, True),
        ("isd", {}, [True, False], {"encoder"}, True),
        ("wpa", {}, [False, True], {"encoder"}, False),
        ("wpa", {"wpa_mode": "contrastive"}, [False, True, True], {"encoder"}, False),
        ("cmad", {"teacher": "shared_grad"}, [True, True], {"encoder"}, True),
        ("isd", {"teacher": "shared_grad"}, [True, True], {"encoder"}, True),
        ("cmad", {"teacher": "frozen"}, [True], {"encoder"}, True),
        ("isd", {"teacher": "ema"}, [True], {"encoder"}, True),
        ("recon", {"teacher": "frozen", "wpa": True, "alpha": 0.0}, [True, False], {"encoder", "generator"}, True),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_c8_each_loss_reaches_its_pass_of_the_encoder_and_its_networks(
    on: str,
    changes: dict[str, Any],
    passes: list[bool],
    reaches: set[str],
    v_mask: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passes are the corrupted image, the original one, and that with another caption; absent ones are not encoded."""
    module = make(**{**OFF, on: True, **changes})
    reached, seen = gradients(module, scenes(), monkeypatch)
    assert seen == passes
    assert parts(reached["generator"]) == reaches
    assert ("encoder.v_mask" in reached["generator"]) == v_mask
    for critic in set(reached) - {"generator"}:
        assert parts(reached[critic]) == {f"critics.{critic}"}


def test_each_turn_reaches_all_of_its_own_parameters_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    reached, _ = gradients(module, scenes(), monkeypatch)
    assert list(reached) == ["global", "local", "generator"]
    for name in ("global", "local"):
        own = {f"critics.{name}.{n}" for n, _ in module.critics[name].named_parameters()}
        # Real and fake pull at the last bias with the same force, and its slope is none.
        assert reached[name] in (own, own - {f"critics.{name}.score.bias"})
    own = {n for n, _ in module.named_parameters() if n.split(".")[0] in ("encoder", "generator")}
    assert {n for n in own - reached["generator"] if not n.endswith("key.bias")} == set()
    assert reached["generator"] <= own


def test_a_step_moves_every_network_and_leaves_its_teacher_to_the_rule() -> None:
    for teacher, parts_moved in (("shared_sg", 4), ("frozen", 4), ("ema", 5)):
        module = make(teacher=teacher)
        before = states(module)
        fit(module)
        moved = parts({n for n, p in module.named_parameters() if not torch.equal(p.detach(), before[n])})
        assert len(moved) == parts_moved
        assert ("teacher" in moved) == (teacher == "ema")


# --- C1, C2, C8: the passes of the encoder ----------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", ["shared_sg", "frozen"])
def test_c1_without_a_hole_there_is_nothing_to_distil(teacher: str) -> None:
    module, batch = make(teacher=teacher), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    x, tokens = batch["image"] * 2 - 1, module._tokens(batch["caption"])
    for mode in (True, False):
        encoded = module.train(mode)._encode(x, x, batch["mask"], tokens)
        other = encoded["o" if teacher == "shared_sg" else "t"]
        M_r, M_o = losses.correlation(*encoded["r"]), losses.correlation(*other)
        torch.testing.assert_close(M_r, M_o, atol=1e-6, rtol=0.0)
        assert losses.cmad(M_r, M_o, tokens.words) <= 1e-6
        assert losses.isd(other.patches, encoded["r"].patches) <= 1e-6
    values = logged(fit(module, batch))
    assert values["l_cmad"] <= 1e-6
    assert values["l_isd"] <= 1e-6
    assert values["l_d_local"] == values["l_g_local"] == 0  # there is nothing local to look at
    assert values["l_1"] > 0.1


class Garbled(WordTokenizer):
    """Puts any words where captions have ended, without saying so."""

    def __call__(self, captions: Any) -> Tokens:
        tokens = super().__call__(captions)
        noise = torch.randint(4, len(self), tokens.ids.shape, generator=torch.Generator().manual_seed(0))
        return tokens._replace(ids=torch.where(tokens.known, tokens.ids, noise))


def test_c2_what_stands_at_padding_changes_neither_losses_nor_images() -> None:
    plain, garbled, batch = make(), make(), scenes()
    garbled.tokenizer = Garbled(WORDS, 40)
    torch.testing.assert_close(garbled.complete(batch).raw, plain.complete(batch).raw, atol=1e-5, rtol=0.0)
    assert logged(fit(garbled, batch)) == pytest.approx(logged(fit(plain, batch)), abs=1e-5)


def test_c8_teachers_start_alike_and_then_follow_their_rules() -> None:
    first = {teacher: logged(fit(make(teacher=teacher))) for teacher in ("shared_sg", "frozen", "ema")}
    for teacher in ("frozen", "ema"):
        assert first[teacher] == pytest.approx(first["shared_sg"], abs=1e-5)
    later = {teacher: logged(fit(make(teacher=teacher, lr=1e-2), max_steps=4)) for teacher in first}
    assert len({round(values["l_isd"], 5) for values in later.values()}) == 3


def test_c8_the_teacher_is_frozen_or_a_moving_average() -> None:
    frozen = make(teacher="frozen")
    start = {n: p.clone() for n, p in frozen.encoder.state_dict().items()}
    fit(frozen, max_steps=3)
    assert frozen.teacher is not None
    torch.testing.assert_close(frozen.teacher.state_dict(), start, atol=0.0, rtol=0.0)
    ema = make(teacher="ema", ema_decay=0.75)
    fit(ema)
    assert ema.teacher is not None
    expected = {n: 0.75 * start[n] + 0.25 * p for n, p in ema.encoder.state_dict().items()}
    torch.testing.assert_close(ema.teacher.state_dict(), expected)
    assert not any(p.requires_grad for p in ema.teacher.parameters())


def test_the_teacher_follows_once_per_step_and_not_per_batch() -> None:
    changes = {"teacher": "ema", "ema_decay": 0.75, "accumulate": 2, "lr": 1e-2}
    after = [make(**changes) for _ in range(3)]
    for steps, module in enumerate(after):
        fit(module, max_steps=steps)
    start, one, two = (module.encoder.state_dict() for module in after)
    assert after[2].teacher is not None
    expected = {n: 0.75 * (0.75 * start[n] + 0.25 * one[n]) + 0.25 * two[n] for n in start}
    torch.testing.assert_close(after[2].teacher.state_dict(), expected)


# --- Eq. 17 and 18, and what they are made of -------------------------------------------------------------------------

WEIGHTS = {"lam": 2.0, "alpha": 3.0, "beta": 5.0, "gamma": 0.7}


@pytest.mark.parametrize("changes", [{}, {"wpa_mode": "contrastive"}, {"recon_hole": 2.0, "teacher": "ema"}], ids=str)
def test_eq_17_and_18_what_is_minimized_is_the_weighted_sum(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, seen = make(**WEIGHTS, **changes), {}
    monkeypatch.setattr(module, "_minimize", lambda names, loss: seen.update({names[0]: loss.item()}))
    terms = logged(fit(module, **ONCE))
    assert set(terms) == set().union(*KEYS.values()) | MONITOR
    assert all(terms[name] != 0 for name in terms)
    weight = {"l_cmad": 2.0, "l_isd": 2.0, "l_wpa": 3.0, "l_1": 5.0, "l_g_global": 0.7, "l_g_local": 0.7}
    assert seen["generator"] == pytest.approx(sum(w * terms[name] for name, w in weight.items()), rel=1e-5)
    assert seen["global"] == pytest.approx(0.7 * terms["l_d_global"], rel=1e-5)
    assert seen["local"] == pytest.approx(0.7 * terms["l_d_local"], rel=1e-5)
    assert list(seen) == ["global", "local", "generator"]


def test_the_papers_weights_are_the_defaults() -> None:
    options = CMA(vocabulary=WORDS, tokenizer="word", hidden=8, heads=1, layers=1, down=[4] * 5, up=[4] * 5,
                  critic=[4] * 5, intermediate=8).options  # fmt: skip
    names = ("lam", "alpha", "beta", "gamma", "lr", "weight_decay", "warmup", "clip_norm", "text_length", "patch")
    assert [options[name] for name in names] == [2.0, 1.0, 1.0, 0.1, 1e-4, 0.01, 2000, 1.0, 40, 32]
    assert (options["wpa_mode"], options["teacher"], options["adv_start"]) == ("positive", "shared_sg", 0)
    assert (options["adv_input"], options["recon_hole"], options["align_special"]) == ("raw", 0.0, False)


def plain_step(module: CMA, batch: Batch) -> dict[str, Tensor]:
    """Every term of a step, each pass by itself and each sample by itself where it can be."""
    options = module.options
    I_gt, M = batch["image"] * 2 - 1, batch["mask"]
    x_m, masked = I_gt * (1 - M), torch.nn.functional.max_pool2d(M, 8).flatten(1)
    tokens = module.tokenizer(batch["caption"])
    words = tokens.known if options["align_special"] else tokens.known & ~tokens.special
    r, o = module.encoder(x_m, masked, tokens), module.encoder(I_gt, torch.zeros_like(masked), tokens)
    I_r = module.generator(x_m, M, r.patches)
    per_sample: dict[str, list[Tensor]] = {"l_cmad": [], "l_isd": [], "l_wpa": []}
    for k, said in enumerate(words):
        M_r, M_o = (losses.correlation(e.text[k : k + 1, said], e.patches[k : k + 1]) for e in (r, o))
        per_sample["l_cmad"].append((M_r - M_o).square().mean())
        log_o, log_r = (e.patches[k].log_softmax(1) for e in (o, r))
        per_sample["l_isd"].append((log_o.exp() * (log_o - log_r)).sum(1).mean())
        every = torch.ones(1, int(said.sum()), dtype=torch.bool)
        per_sample["l_wpa"].append(
            losses.wpa(o.patches[k : k + 1], o.text[k : k + 1, said], every, options["wpa_solver"])[0]
        )
    terms = {name: torch.stack(values).mean() for name, values in per_sample.items()}
    holes = [(I_r - I_gt).abs()[k][M[k].expand(3, -1, -1) > 0.5].mean() for k in range(len(M))]
    terms["l_1"] = (I_r - I_gt).abs().mean() + options["recon_hole"] * torch.stack(holes).mean()
    seen = I_r if options["adv_input"] == "raw" else I_r * M + I_gt * (1 - M)
    boxes = [(int(m.amax(2).argmax()), int(m.amax(1).argmax())) for m in M]
    for name, D in module.critics.items():
        real, fake = I_gt, seen
        if name == "local":  # the holes are 18 high and 16 wide, and their squares 18
            real, fake = (
                torch.cat([crop(x[k : k + 1], torch.tensor([[y, max(0, left - 1), 18]]), 16)
                           for k, (y, left) in enumerate(boxes)]) for x in (real, fake)
            )  # fmt: skip
        both = D(torch.cat([real, fake]))
        terms[f"l_d_{name}"] = (1 - both[:3]).relu().mean() + (1 + both[3:]).relu().mean()
    for name, D in module.critics.items():
        fake = seen
        if name == "local":
            fake = torch.cat([crop(seen[k : k + 1], torch.tensor([[y, max(0, left - 1), 18]]), 16)
                              for k, (y, left) in enumerate(boxes)])  # fmt: skip
        terms[f"l_g_{name}"] = -D(fake).mean()
    return terms


@pytest.mark.parametrize(
    "changes",
    [{}, {"align_special": True}, {"adv_input": "composite", "recon_hole": 2.0}, {"wpa_solver": "pot"}],
    ids=str,
)
def test_a_step_is_what_the_equations_say(changes: dict[str, Any]) -> None:
    """At a learning rate of 0, so that the critics that score are those that have learned."""
    module, batch = make(lr=0.0, **changes), scenes()
    with torch.no_grad():
        expected = plain_step(copy.deepcopy(module), batch)
    made = logged(fit(module, batch))
    for name, value in expected.items():
        assert made[name] == pytest.approx(value.item(), abs=2e-5), name
    assert set(made) == set(expected) | MONITOR


def test_special_tokens_take_part_only_where_they_are_asked_to() -> None:
    without, with_them = (logged(fit(make(lr=0.0, align_special=flag))) for flag in (False, True))
    for name in ("l_cmad", "l_wpa"):
        assert abs(without[name] - with_them[name]) > 1e-5
    for name in ("l_isd", "l_1", "l_d_global"):
        assert without[name] == pytest.approx(with_them[name], abs=1e-6)


@pytest.mark.parametrize("kind", ["channel_softmax", "mse", "cosine"])
def test_isd_has_the_kind_the_temperature_and_the_patches_it_is_given(kind: str) -> None:
    module, batch = make(isd_region="masked", isd_kind=kind, isd_tau=3.0, lr=0.0), scenes()
    made = logged(fit(module, batch))["l_isd"]
    tokens, I_gt, M = module._tokens(batch["caption"]), batch["image"] * 2 - 1, batch["mask"]
    masked = torch.nn.functional.max_pool2d(M, 8).flatten(1)
    with torch.no_grad():
        r, o = module.encoder(I_gt * (1 - M), masked, tokens), module.encoder(I_gt, 0 * masked, tokens)
    assert made == pytest.approx(losses.isd(o.patches, r.patches, kind, 3.0, masked).item(), rel=1e-4)
    everywhere, swapped = losses.isd(o.patches, r.patches, kind, 3.0), losses.isd(r.patches, o.patches, kind, 3.0)
    assert made != pytest.approx(everywhere.item(), rel=1e-3)
    if kind == "channel_softmax":
        assert made != pytest.approx(losses.isd(o.patches, r.patches, kind, 1.0, masked).item(), rel=1e-3)
        assert everywhere.item() != pytest.approx(swapped.item(), rel=1e-4)


def test_contrastive_alignment_compares_with_the_caption_before() -> None:
    module, batch = make(wpa_mode="contrastive", lr=0.0, wpa_margin=0.4), scenes()
    batch["id"] = ["a", "b", "b"]  # the third image is the second one again, and its caption no other
    made = logged(fit(module, batch))["l_wpa"]
    I_gt, masked = batch["image"] * 2 - 1, torch.zeros(3, 16)

    def distance(captions: list[str]) -> Tensor:
        tokens = module._tokens(captions)
        with torch.no_grad():
            o = module.encoder(I_gt, masked, tokens)
        return losses.wpa(o.patches, o.text, tokens.words, "ipot")

    own, other = distance(batch["caption"]), distance([batch["caption"][k] for k in (2, 0, 1)])
    assert made == pytest.approx((0.4 + own - other).relu()[:2].mean().item(), abs=1e-5)
    with pytest.warns(UserWarning, match="a batch of one has none"):
        assert logged(fit(module, some(batch, 0)))["l_wpa"] == 0


# --- the critics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adv_input", ["raw", "composite"])
def test_critics_see_truth_and_what_was_made(adv_input: str) -> None:
    module, batch, fed = make(adv_input=adv_input, lr=0.0), scenes(), []
    module.critics["global"].register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    fit(module, batch)
    (real, fake), again = fed[0].chunk(2), fed[1]
    known = (batch["mask"] < 0.5).expand_as(real)
    assert len(fed) == 2
    assert torch.equal(real, batch["image"] * 2 - 1)
    assert torch.equal(fake, again)
    assert torch.equal(fake[known], real[known]) == (adv_input == "composite")
    assert not torch.equal(fake[~known], real[~known])


@pytest.mark.parametrize("local_crop", ["box_resize", "mask_multiply"])
def test_c10_the_local_critic_sees_the_hole_of_each_sample(local_crop: str) -> None:
    module, batch, fed = make(local_crop=local_crop, lr=0.0), scenes(), []
    batch["mask"][1] = 0
    module.critics["local"].register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    values = logged(fit(module, batch))
    real, truth = fed[0].chunk(2)[0], batch["image"] * 2 - 1
    if local_crop == "mask_multiply":
        assert torch.equal(real, truth * batch["mask"])
    else:
        squares = implementation.hole_squares(batch["mask"], 8)
        assert torch.equal(real, crop(truth, squares, 16))
        assert fed[1].shape == (3, 3, 16, 16)
    with torch.no_grad():
        scores = module.critics["local"].eval()(fed[1])
    assert values["l_g_local"] == pytest.approx(-(scores[0] + scores[2]).item() / 2, abs=1e-3)  # not the second


def test_c10_a_batch_without_any_hole_is_stepped_over() -> None:
    module, batch = make(), scenes()
    batch["mask"] = torch.zeros_like(batch["mask"])
    before = states(module)
    fit(module, batch, max_steps=2)
    assert all(p.isfinite().all() for p in module.parameters())
    assert "critics.global" in changed(module, before, 2)


def test_the_adversarial_game_begins_when_it_is_told_to() -> None:
    module = make(adv_start=2)
    before = states(module)
    values = logged(fit(module, max_steps=2))
    assert not any(name.startswith(("l_d", "l_g")) for name in values)
    assert changed(module, before) == {"encoder", "generator"}
    module = make(adv_start=2)
    values = logged(fit(module, max_steps=3))
    assert KEYS["global_adv"] | KEYS["local_adv"] <= set(values)
    assert "critics" in changed(module, before)


# --- ablations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", list(KEYS))
def test_c11_a_loss_that_is_off_is_not_logged_and_has_no_networks(off: str) -> None:
    module = make(**{off: False})
    values = logged(fit(module, max_steps=2))
    expected = set().union(*(keys for name, keys in KEYS.items() if name != off)) | MONITOR
    assert set(values) == expected
    critics = {"global", "local"} - {off.removesuffix("_adv")}
    assert set(module.critics) == critics
    assert list(module.by_name) == ["generator", *sorted(critics)]
    assert {n.split(".")[1] for n, _ in module.named_parameters() if n.startswith("critics")} == critics


def test_c11_without_either_adversarial_loss_there_are_no_critics() -> None:
    module = make(global_adv=False, local_adv=False)
    assert parts({n for n, _ in module.named_parameters()}) == {"encoder", "generator"}
    fit(module)
    assert list(module.by_name) == ["generator"]


@pytest.mark.parametrize(
    ("changes", "passes", "teacher"),
    [
        ({}, 2, 0),
        ({"wpa_mode": "contrastive"}, 3, 0),
        ({"cmad": False, "isd": False, "wpa": False}, 1, 0),
        ({"cmad": False, "isd": False, "wpa": False, "teacher": "ema", "wpa_mode": "contrastive"}, 1, 0),
        ({"cmad": False, "isd": False}, 2, 0),
        ({"isd": False, "wpa": False}, 2, 0),
        ({"cmad": False, "wpa": False, "teacher": "frozen"}, 1, 1),
        ({"teacher": "frozen"}, 2, 1),
        ({"teacher": "ema", "wpa_mode": "contrastive"}, 3, 1),
        ({"cmad": False, "isd": False, "teacher": "frozen"}, 2, 0),
    ],
    ids=str,
)
def test_c11_the_original_image_is_encoded_only_where_it_is_needed(
    changes: dict[str, Any], passes: int, teacher: int
) -> None:
    module, calls = make(**changes), []
    assert (module.teacher is not None) == bool(teacher)
    fed = embedded(module)
    if module.teacher is not None:
        module.teacher.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    fit(module, max_steps=2)
    assert [len(x) for x in fed] == [3 * passes] * 2  # three samples
    assert calls == [3] * 2 * teacher


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_rule": "all"}, {"patch_rule": "majority"}, {"patch_rule": "soft"}, {"down_input": "prior_image"},
        {"down_input": "both", "prior_skip": "all"}, {"down_input": "tokens"}, {"mask_channel": False},
        {"teacher": "shared_grad"}, {"isd_kind": "spatial_softmax", "isd_tau": 2.0}, {"isd_kind": "cosine"},
        {"wpa_solver": "pot"}, {"optimizer": "adam"}, {"decay": "linear", "warmup": 2}, {"accumulate": 2},
    ],
    ids=str,
)  # fmt: skip
def test_every_choice_takes_finite_steps(changes: dict[str, Any]) -> None:
    module = make(**changes)
    before = states(module)
    made = fit(module, max_steps=3)
    assert made.global_step == 3
    assert all(value.isfinite() for value in made.logged_metrics.values())
    assert all(p.isfinite().all() for p in module.parameters())
    assert changed(module, before) == {"encoder", "generator", "critics"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains(precision: Any) -> None:
    module = make(wpa_mode="contrastive")
    exact = logged(fit(make(wpa_mode="contrastive", lr=0.0)))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if precision == "16-mixed" else None
    values = logged(fit(module, plugins=[MixedPrecision(precision, "cpu", scaler)]))
    assert values == pytest.approx(exact, abs=0.1)
    fit(module, max_steps=2, plugins=[MixedPrecision(precision, "cpu", scaler)])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


def test_features_that_collapse_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    monkeypatch.setattr(module, "_minimize", lambda names, loss: None)  # so that it stays at iteration 0
    signs: list[tuple[float, float]] = [(0.96, 0.97), (0.96, 0.94), (0.94, 0.99)]
    found = []
    for pair in signs:
        monkeypatch.setattr(losses, "collapse", lambda *_, pair=pair: tuple(map(torch.tensor, pair)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(module, **ONCE)
        found.append(any("captions no longer matter" in str(warning.message) for warning in caught))
    assert found == [True, False, False]  # both must be near 1


def test_the_monitor_is_of_the_corrupted_image(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    monkeypatch.setattr(module, "_minimize", lambda names, loss: None)
    values = logged(fit(module, **ONCE))
    tokens = module._tokens(scenes()["caption"])
    with torch.no_grad():
        encoded = module._encode(*(scenes()["image"] * 2 - 1 for _ in range(2)), 0 * scenes()["mask"], tokens)
    assert set(values) >= MONITOR
    assert -1 <= values["cosine_patches"] <= 1
    assert losses.collapse(*encoded["r"], tokens.words)[0].item() != pytest.approx(values["cosine_patches"], abs=1e-6)
