"""The training steps of NIGDT: which loss reaches what, and how they add up."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.fakes_cma import logged, scenes, some, states
from tests.fakes_nigdt import KEYS, NETWORKS, drawn, fed, fit, know_noise, make, own, parts
from zoo.batch import Batch
from zoo.models.nigdt import NIGDT, losses
from zoo.models.nigdt.projection import Gaussian, Projection

ONCE: dict[str, Any] = {"max_steps": -1, "max_epochs": 1}  # for steps that do not count, as nothing is stepped
QUIET: dict[str, Any] = {"l1": 0.0, "d1": 0.0, "adv": 0.0, "kl": 0.0, "use_match": False}


def gradients(module: NIGDT, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the parameters that each turn reaches."""
    reached: dict[str, set[str]] = {}

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        reached[names[0]] = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    monkeypatch.setattr(module, "_minimize", record)
    fit(module, batch, **ONCE)
    return reached


# --- the gradient map -------------------------------------------------------------------------------------------------


def test_each_turn_reaches_all_of_its_own_parameters_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True)
    reached = gradients(module, scenes(), monkeypatch)
    assert list(reached) == ["critics", "generator"]
    assert reached["critics"] == own(module, "critics")
    assert reached["generator"] == own(module, *NETWORKS)
    assert "attention.query.weight" in reached["generator"]


def test_a_text_encoder_that_is_not_frozen_learns_but_not_to_match(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, freeze_text=False)
    assert gradients(module, scenes(), monkeypatch)["generator"] == own(module, "text", *NETWORKS)
    # The match loss alone reaches it through the images alone: with these fixed it does not.
    blind = make(lively=True, freeze_text=False, **{**QUIET, "use_match": True}).requires_grad_(False)
    blind.text.requires_grad_(True)
    described = blind._describe(scenes()["caption"])
    assert described.words.requires_grad
    monkeypatch.setattr(blind, "_paths", lambda x, M, _: (normal(x), normal(x), {"g": [fixed(x)], "r": [fixed(x)]}))
    assert gradients(blind, scenes(), monkeypatch)["generator"] == set()


def normal(x: Tensor) -> Gaussian:
    """N(0, 1) for as many samples."""
    return Gaussian(torch.zeros(len(x), 5, 8, 8), torch.ones(len(x), 5, 8, 8))


def fixed(x: Tensor) -> Tensor:
    """An image that nothing made."""
    return (x * 0.5).requires_grad_(True)


def test_the_first_stage_reaches_text_and_match_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, stage="match")
    reached = gradients(module, scenes(), monkeypatch)
    assert reached == {"match": own(module, "text", "match")}


@pytest.mark.parametrize(
    ("on", "reaches"),
    [
        ({"kl": 1.0}, NETWORKS - {"generator"}),
        ({"l1": 1.0}, NETWORKS),
        ({"d1": 1.0}, NETWORKS),
        ({"adv": 1.0}, NETWORKS),
        ({"use_match": True}, NETWORKS),
        ({"kl": 1.0, "paths": "one"}, {"encoder", "attention", "prior"}),
        ({"l1": 1.0, "paths": "one"}, NETWORKS - {"posterior"}),
        ({"l1": 1.0, "use_attention": False}, NETWORKS - {"attention"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_each_loss_reaches_its_networks(on: dict[str, Any], reaches: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, **{**QUIET, **on})
    reached = gradients(module, scenes(), monkeypatch)
    assert parts(reached["generator"]) == reaches
    assert set(reached) == ({"generator", "critics"} if {"d1", "adv"} & set(on) else {"generator"})


def test_n7_eq_18_draws_the_prior_and_leaves_the_posterior() -> None:
    for name, reaches in (("KL_g", {"prior"}), ("KL_r", {"posterior"})):
        module, batch = make(lively=True), scenes()
        described = module._describe(batch["caption"])
        p, q, _ = module._paths(batch["image"] * 2 - 1, batch["mask"], described)
        module._distribution_terms(p, q, batch["mask"], 2)[name][1].backward()
        got = {n for n, x in module.named_parameters() if x.grad is not None and x.grad.abs().sum() > 0}
        assert got & own(module, "prior", "posterior") == own(module, *reaches)


def test_a_step_moves_every_network_but_those_that_are_frozen() -> None:
    for changes, moved in (
        ({}, NETWORKS | {"critics.d1", "critics.d2"}),
        ({"freeze_text": False}, NETWORKS | {"critics.d1", "critics.d2", "text"}),
        ({"stage": "match"}, {"text", "match"}),
    ):
        module = make(lively=True, **changes)
        before = states(module)
        fit(module)
        names = {n for n, p in module.named_parameters() if not torch.equal(p.detach(), before[n])}
        assert parts(names) == moved


@pytest.mark.parametrize("freeze", [True, False])
def test_text_and_match_networks_are_in_the_mode_of_their_stage(freeze: bool) -> None:
    for stage, text, match in (("match", True, True), ("inpaint", not freeze, False)):
        module, seen = make(stage=stage, freeze_text=freeze, dropout=0.5), {}
        for name in ("text", "match"):
            part = getattr(module, name)
            part.register_forward_pre_hook(lambda m, _, name=name, seen=seen: seen.update({name: m.training}))
        fit(module)
        assert seen == {"text": text, "match": match}
        assert {p.requires_grad for p in module.text.parameters()} == {text}
        assert {p.requires_grad for p in module.match.parameters()} == {match}
        assert not module.eval().text.training
        assert module.train().text.training == text


def test_words_are_dropped_only_while_they_are_learned() -> None:
    def losses_of(stage: str, **changes: Any) -> list[dict[str, float]]:
        return [logged(fit(make(stage=stage, dropout=d, **changes))) for d in (0.0, 0.5)]

    plain, dropped = losses_of("match")
    assert plain["l_word"] != pytest.approx(dropped["l_word"], rel=1e-4)


# --- N4, N5, N6: the two paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["majority", "strict"])
@pytest.mark.parametrize("full", [0.0, 1.0])
@pytest.mark.parametrize("pool", ["both", "none"])
def test_n4_a_hole_everywhere_or_nowhere_has_finite_losses_and_gradients(
    rule: str, full: float, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = make(lively=True, cell_rule=rule, l1_hole=1.0, pool=pool, dynamic_sigma=True), scenes()
    batch["mask"] = torch.full_like(batch["mask"], full)
    batch["mask"][0] = scenes()["mask"][0]  # beside an ordinary one
    made: list[Tensor] = []

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        made.extend([loss.detach(), *(p.grad for p in module.parameters() if p.grad is not None)])

    monkeypatch.setattr(module, "_minimize", record)
    values = logged(fit(module, batch, **ONCE))
    assert all(torch.tensor(value).isfinite() for value in values.values())
    assert len(made) > 60
    assert all(tensor.isfinite().all() for tensor in made)


def two_paths(module: NIGDT, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, dict[str, list[Tensor]]]:
    """Prior, posterior and outputs of a training step, by a copy, with known noise."""
    module = copy.deepcopy(module).train()
    know_noise(monkeypatch)
    with torch.no_grad():
        return module._paths(batch["image"] * 2 - 1, batch["mask"], module._describe(batch["caption"]))


def elsewhere(batch: Batch, inside: bool) -> Batch:
    """The batch with other pixels, inside of the holes or outside of them."""
    there = (batch["mask"] > 0.5) == inside
    return Batch(**{**batch, "image": torch.where(there, 1 - batch["image"], batch["image"])})


@pytest.mark.parametrize("swap", [False, True])
def test_n5_the_generative_path_never_reads_the_complement(swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make(lively=True, legacy_swap=swap), scenes()
    p, q, outputs = two_paths(module, batch, monkeypatch)
    p_other, q_other, other = two_paths(module, elsewhere(batch, inside=True), monkeypatch)
    assert torch.equal(p.mean, p_other.mean)
    assert torch.equal(p.deviation, p_other.deviation)
    assert not torch.allclose(q.mean, q_other.mean, atol=1e-3)
    for made, again in zip(outputs["g"], other["g"], strict=True):
        assert torch.equal(made, again) != swap  # the published networks were trained with the leak
    assert not torch.allclose(outputs["r"][-1], other["r"][-1], atol=1e-3)


@pytest.mark.parametrize("swap", [False, True])
def test_n6_both_residuals_are_of_the_corrupted_image(swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the complement the reconstructive path has z alone: with z fixed its output is too."""
    module, batch = make(lively=True, legacy_swap=swap), scenes()
    monkeypatch.setattr(Projection, "forward", lambda _, h: normal(h))
    _, _, outputs = two_paths(module, batch, monkeypatch)
    _, _, other = two_paths(module, elsewhere(batch, inside=True), monkeypatch)
    for made, again in zip(outputs["r"], other["r"], strict=True):
        assert torch.equal(made, again)
    _, _, other = two_paths(module, elsewhere(batch, inside=False), monkeypatch)
    assert not torch.allclose(outputs["r"][-1], other["r"][-1], atol=1e-3)


def test_n10_both_paths_make_every_scale_in_one_pass_of_encoder_and_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = make(lively=True), scenes()
    seen, combined = fed(module.encoder), fed(module.generator)
    fit(module, batch)
    I, M = batch["image"] * 2 - 1, batch["mask"]  # noqa: E741
    assert len(seen) == len(combined) == 1
    assert torch.equal(seen[0], torch.cat([I * (1 - M), I * M]))
    assert torch.equal(combined[0][:3], combined[0][3:])  # h of the corrupted image twice
    _, _, outputs = two_paths(module, batch, monkeypatch)
    for path in "gr":
        assert [tuple(x.shape) for x in outputs[path]] == [(3, 3, 16, 16), (3, 3, 32, 32)]


def test_paths_differ_in_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """z of the generative path is the prior's, that of the reconstructive one the posterior's."""
    module = make(lively=True)
    given: list[Tensor] = []
    module.generator.project_z.register_forward_pre_hook(lambda _, x: given.append(x[0].detach()))
    monkeypatch.setattr(copy, "deepcopy", lambda m: m)
    p, q, _ = two_paths(module, scenes(), monkeypatch)
    shape = torch.Size((3, 5, 8, 8))
    torch.testing.assert_close(given[0][:3], p.mean + p.deviation * drawn(0, shape))
    torch.testing.assert_close(given[0][3:], q.mean + q.deviation * drawn(1, shape))


# --- Eq. 19, and what it is made of -----------------------------------------------------------------------------------

WEIGHTS: dict[str, Any] = {"l1": 2.0, "d1": 3.0, "adv": 5.0, "kl": 7.0, "match": 11.0}


@pytest.mark.parametrize(
    ("changes", "scales"),
    [({}, 2), ({"outputs": 1}, 1), ({"kl_per_output": False}, 1), ({"paths": "one"}, 2), ({"free_bits": 0.1}, 2)],
    ids=str,
)
def test_eq_19_what_is_minimized_is_the_weighted_sum(
    changes: dict[str, Any], scales: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, seen = make(lively=True, **WEIGHTS, **changes), {}
    monkeypatch.setattr(module, "_minimize", lambda names, loss: seen.update({names[0]: loss.item()}))
    terms = logged(fit(module, **ONCE))
    assert set(terms) == (KEYS if "paths" not in changes else {n for n in KEYS if not n.endswith("_r")})
    assert all(terms[name] != 0 for name in terms)
    weight = {"KL": 7.0 * scales, "l_1": 2.0, "l_D1": 3.0, "l_D2": 5.0, "l_T": 11.0}
    expected = sum(weight[name[:-2]] * value for name, value in terms.items() if name[:-2] in weight)
    assert seen["generator"] == pytest.approx(expected, rel=1e-5)
    assert seen["critics"] == pytest.approx(terms["l_d1"] + terms["l_d2"], rel=1e-5)
    assert list(seen) == ["critics", "generator"]


def plain_text(module: NIGDT, v: Tensor, W: Tensor, valid: Tensor, sign: float, pool: bool) -> Tensor:
    """Eq. 3 to 7 of one sample without padding, place by place: v 1 c 8 8, W c T, valid 8 8."""
    assert module.attention.query is not None
    t = torch.zeros(1, len(W), 8, 8)
    for i, j in valid.nonzero().tolist():
        β = (sign * module.attention.query(v)[0, :, i, j] @ W).softmax(0)
        t[0, :, i, j] = W @ β
    return t[:, :, valid].amax(2)[:, :, None, None].expand(-1, -1, 8, 8) if pool else t


def plain_paths(module: NIGDT, batch: Batch, k: int) -> dict[str, Any]:
    """Everything that a step makes of sample k, by itself."""
    o = module.options
    I, M = batch["image"][k : k + 1] * 2 - 1, batch["mask"][k : k + 1]  # noqa: E741
    (v_l, v_m), (_, v_c) = module.encoder(I * (1 - M)), module.encoder(I * M)
    tokens = module.tokenizer(batch["caption"][k : k + 1])
    said = module.text(tokens)
    W, sentence = said.words[0][:, said.known[0]], said.sentence[:, :, None, None].expand(-1, -1, 8, 8)
    share = F.avg_pool2d(M, 4)[0, 0]
    hole, known = (share >= 0.5, share < 0.5) if o["cell_rule"] == "majority" else (share == 1, share == 0)
    negative = plain_text(module, v_m, W, known, -1.0, o["pool"] != "none")
    positive = plain_text(module, v_c, W, hole, 1.0, o["pool"] == "both")
    h_g = torch.cat([v_m, negative, sentence], 1)
    made = {"I": I, "M": M, "W": W, "sentence": said.sentence, "p": module.prior(h_g)}
    noise = [drawn(call, torch.Size((3, 5, 8, 8)))[k : k + 1] for call in (0, 1)]
    read = torch.cat([v_m, positive, sentence], 1) if o["legacy_swap"] else h_g
    made["g"] = module.generator(read, made["p"].mean + made["p"].deviation * noise[0], v_l, M)
    if o["paths"] == "two":
        made["q"] = q = module.posterior(torch.cat([v_c, positive, sentence], 1))
        made["r"] = module.generator(h_g, q.mean + q.deviation * noise[1], v_l, M)
    return made


def plain_match(module: NIGDT, images: list[Tensor], samples: list[dict[str, Any]], ids: list[str]) -> Tensor:
    """Eq. 11, pair by pair."""
    n, total = len(images), torch.zeros(())
    words, whole = torch.zeros(n, n), torch.zeros(n, n)
    for i, image in enumerate(images):
        seen = module.match(image)
        for j, sample in enumerate(samples):
            every = torch.ones(1, sample["W"].shape[1], dtype=torch.bool)
            words[i, j] = losses.word_scores(seen.regions, sample["W"][None], every, 5.0, 5.0)[0, 0]
            whole[i, j] = F.cosine_similarity(seen.image, sample["sentence"])[0]
    for scores in (words, whole):
        for table in (10 * scores, 10 * scores.T):
            for i in range(n):
                rivals = [j for j in range(n) if j == i or ids[j] != ids[i]]
                total = total - table[i, rivals].log_softmax(0)[rivals.index(i)] / n
    return total


def plain_kl(module: NIGDT, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Eq. 17 and 18 by torch's own divergence."""
    o, found = module.options, {}
    for name in ("KL_r", "KL_g"):
        values = []
        for sample in samples:
            hidden = sample["M"].mean()
            σ = 1 / (1 + torch.exp(8 * (1 - hidden - 1e-5 - 0.8))) if o["dynamic_sigma"] else torch.ones(())
            p, n = Normal(*sample["p"]), Normal(torch.zeros(1, 5, 8, 8), σ)
            if "q" not in sample:
                pair = (n, p)  # PICNet's baseline
            elif name == "KL_g":
                pair = (Normal(*sample["q"]), p)  # whatever the direction of the other
            else:
                q = Normal(*sample["q"])
                pair = (q, n) if o["kl_direction"] == "forward" else (n, q)
            values.append(kl_divergence(*pair).mean((2, 3)))
        divergence = torch.cat(values)
        found[name] = torch.where(divergence < o["free_bits"], o["free_bits"], divergence).mean()
    return found if "q" in samples[0] else {"KL_g": found["KL_g"]}


def plain_step(module: NIGDT, batch: Batch) -> dict[str, Tensor]:
    """Every term of a step, each sample by itself where it can be."""
    o = module.options
    samples = [plain_paths(module, batch, k) for k in range(3)]
    terms = plain_kl(module, samples)
    paths = [path for path in "gr" if path in samples[0]]
    D1, D2 = module.critics["d1"], module.critics["d2"]

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean()

    for path in paths:
        scales = []
        for k in range(2):
            for s in samples:
                x, size = s[path][k], 16 * 2**k
                distance = (x - F.avg_pool2d(s["I"], 32 // size)).abs()
                share = F.avg_pool2d(s["M"], 32 // size)
                scales.append(distance.mean() + o["l1_hole"] * (distance * share).sum() / (3 * share.sum()))
        terms[f"l_1_{path}"] = 2 * mean(scales)
        D = D1 if o["d1_feature"] == "score" else lambda x: F.leaky_relu(D1.layers(x), 0.1)
        terms[f"l_D1_{path}"] = mean([(D(s["I"]) - D(s[path][-1])).square().mean() for s in samples])
        terms[f"l_D2_{path}"] = mean([(D2(s[path][-1]) - 1).square().mean() for s in samples])
        terms[f"l_T_{path}"] = plain_match(module, [s[path][-1] for s in samples], samples, batch["id"])
    shown = {"both": ["g", "r"], "generative": ["g"], "reconstructive": ["r"]}[o["d2_fakes"]]
    for name, D, fakes in (("l_d1", D1, ["r"]), ("l_d2", D2, shown)):
        real = mean([(D(s["I"]) - 1).square().mean() for s in samples])
        fake = mean([D(s[path][-1]).square().mean() for s in samples for path in (fakes if len(paths) > 1 else "g")])
        terms[name] = 0.5 * real + 0.5 * fake
    return terms


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kl_direction": "reverse", "legacy_swap": True, "d2_fakes": "generative"},
        {"dynamic_sigma": True, "l1_hole": 2.0, "d2_fakes": "reconstructive", "pool": "negative"},
        {"paths": "one", "dynamic_sigma": True, "d1_feature": "penultimate", "kl_direction": "forward"},
        {"pool": "none", "cell_rule": "strict", "free_bits": 0.4, "prior_before": 1, "mask_skip": True, "cell": "lstm"},
    ],
    ids=str,
)
def test_a_step_is_what_the_equations_say(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a learning rate of 0, so that the discriminators that score are those that have learned."""
    module, batch = make(lively=True, lr=0.0, critic_lr=0.0, **changes), scenes()
    batch["id"] = ["a", "b", "b"]  # the third caption is none that the second image should not have
    with torch.no_grad():
        expected = plain_step(copy.deepcopy(module), batch)
    know_noise(monkeypatch, paths=1 if "paths" in changes else 2)
    made = logged(fit(module, batch))
    for name, value in expected.items():
        assert made[name] == pytest.approx(value.item(), rel=2e-4, abs=2e-5), name
    assert set(made) == set(expected)


def test_a_step_of_the_first_stage_is_what_the_equations_say() -> None:
    """γ1 is its own, and captions of one image are no negatives of each other."""
    module, batch = make(lively=True, stage="match", match_lr=0.0, gammas=[9.0, 3.0, 2.0]), scenes(4)
    batch["id"] = ["a", "b", "a", "c"]
    with torch.no_grad():
        said, seen = module.text(module.tokenizer(batch["caption"])), module.match(batch["image"] * 2 - 1)
        words = losses.word_scores(seen.regions, said.words, said.known, 4.0, 3.0)
        whole = losses.sentence_scores(seen.image, said.sentence)
        same = torch.tensor([[a == b for b in batch["id"]] for a in batch["id"]])
        expected = {n: losses.match_loss(x, same, 2.0).item() for n, x in (("l_word", words), ("l_sentence", whole))}
    assert logged(fit(module, batch)) == pytest.approx(expected, rel=1e-5)


def test_n9_one_image_has_nothing_to_be_matched_with() -> None:
    values = logged(fit(make(lively=True), some(scenes(), 0)))
    assert values["l_T_g"] == values["l_T_r"] == 0
    assert set(logged(fit(make(stage="match"), some(scenes(), 0))).values()) == {0.0}


def test_kl_of_equal_prior_and_posterior_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True)
    monkeypatch.setattr(Projection, "forward", lambda _, h: normal(h))
    values = logged(fit(module))
    assert values["KL_r"] == values["KL_g"] == 0
