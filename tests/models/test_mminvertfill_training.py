"""The training steps of MMInvertFill: which loss reaches what, how they add up, and what the networks are shown."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from tests.fakes_cma import changed, logged, states, trainer
from tests.fakes_mminvertfill import TERMS, fed, fit, guided, make, named, own, withhold, without
from zoo.batch import UNKNOWN_CLASS, Batch
from zoo.models.mminvertfill import MMInvertFill, pretraining
from zoo.models.mminvertfill import module as implementation

ONCE: dict[str, Any] = {"max_steps": -1, "max_epochs": 1}  # for steps that do not count, as nothing is stepped
QUIET: dict[str, Any] = {"hrf": "none", "w_adv": 0.0, "fid": 0.0, "w_rec": 0.0, "w_edge": 0.0, "w_seg": 0.0}
FIRST: dict[str, Any] = {"stage": "generator"}


def gradients(module: MMInvertFill, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the parameters that each turn reaches."""
    reached: dict[str, set[str]] = {}

    def record(names: tuple[str, ...], loss: Tensor) -> None:
        module.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        reached["+".join(names)] = {n for n, grad in grads.items() if grad.abs().sum() > 0}
        reached[f"all of {'+'.join(names)}"] = set(grads)

    monkeypatch.setattr(module, "_minimize", record)
    fit(module, batch, **ONCE)
    return reached


def minimized(module: MMInvertFill, monkeypatch: pytest.MonkeyPatch, batch: Batch | None = None) -> Any:
    """What each turn minimizes, and what is logged, in one step that moves nothing."""
    seen: dict[str, float] = {}
    monkeypatch.setattr(module, "_minimize", lambda names, loss: seen.update({"+".join(names): loss.item()}))
    return seen, logged(fit(module, batch or guided(), **ONCE))


# --- the gradient map -------------------------------------------------------------------------------------------------


def test_each_turn_reaches_all_of_its_own_parameters_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True)
    reached = gradients(module, guided(), monkeypatch)
    assert list(reached)[::2] == ["critic", "inverter"]
    assert reached["critic"] == own(module, "critic")
    assert reached["inverter"] == own(module, "inverter")
    assert not any(p.requires_grad for p in module.generator.parameters())


def test_12_from_the_first_step_on_every_parameter_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    reached = gradients(module, guided(), monkeypatch)
    assert reached["all of inverter"] == own(module, "inverter")
    behind = {n for n in own(module, "inverter.branch") if "projections" not in n and "last" not in n}
    attention = {n for n in own(module, "inverter.encoder.backbone.attention") if "gain" not in n}
    assert own(module, "inverter") - reached["inverter"] <= behind | attention | {  # they are multiplied by zero still
        n for n in own(module, "inverter") if "denorm" in n
    }
    assert behind <= own(module, "inverter") - reached["inverter"]


def test_a_generator_that_is_not_frozen_learns_but_not_its_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, train_generator=True)
    reached = gradients(module, guided(), monkeypatch)
    assert reached["inverter"] == own(module, "inverter", "generator") - own(module, "generator.mapping")
    assert reached["critic"] == own(module, "critic")


def test_in_the_first_stage_each_turn_reaches_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, **FIRST)
    reached = gradients(module, guided(), monkeypatch)
    assert list(reached)[::2] == ["style_critic", "generator"]
    assert reached["style_critic"] == own(module, "style_critic")
    assert reached["generator"] == own(module, "generator")


INVERTER = {"encoder", "map2style", "map2structure", "premodulation"}


@pytest.mark.parametrize(
    ("on", "reaches"),
    [
        ({"hrf": "random"}, INVERTER | {"branch"}),
        ({"w_adv": 1.0}, INVERTER | {"branch"}),
        ({"w_l1": 1.0}, INVERTER | {"branch"}),
        ({"w_l1_hole": 1.0}, INVERTER | {"branch"}),
        ({"fid": 1.0}, INVERTER),
        ({"fid": 1.0, "pm": False}, {"encoder", "map2style"}),
        ({"w_rec": 1.0}, {"encoder"}),
        ({"w_edge": 1.0}, {"encoder"}),
        ({"w_seg": 1.0}, {"encoder"}),
        ({"perc": "hrf", "hrf": "random", "w_hrf": 0.0}, {"encoder"}),
    ],
    ids=named,
)
def test_each_loss_reaches_its_networks(on: dict[str, Any], reaches: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, **{**QUIET, **on})
    reached = gradients(module, guided(), monkeypatch)
    assert {n.split(".")[1] for n in reached["inverter"]} == reaches
    assert ("critic" in reached) == ("w_adv" in on)


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({}, {"inverter", "critic"}),
        ({"train_generator": True}, {"inverter", "critic", "generator"}),
        ({"w_adv": 0.0}, {"inverter"}),
        (FIRST, {"generator", "style_critic"}),
    ],
    ids=named,
)
def test_a_step_moves_what_learns_and_nothing_else(changes: dict[str, Any], moved: set[str]) -> None:
    module = make(lively=True, **changes)
    before, all_before = states(module), {n: t.clone() for n, t in module.state_dict().items()}
    fit(module)
    assert changed(module, before) == moved
    buffers = {n for n, t in module.state_dict().items() if n not in before and not torch.equal(t, all_before[n])}
    assert all(n.startswith(("mean.", "critic.", "path_mean")) for n in buffers)


# --- Eq. 10, and what it is made of -----------------------------------------------------------------------------------

WEIGHTS: dict[str, Any] = {
    "w_hrf": 2.0, "w_adv": 3.0, "w_l1": 5.0, "w_l1_hole": 7.0, "msr": 11.0, "w_rec": 13.0, "w_edge": 17.0,
    "w_seg": 19.0, "fid": 23.0, "w_perc": 29.0, "perc": "hrf",
}  # fmt: skip


def test_eq_10_what_is_minimized_is_the_weighted_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, terms = minimized(make(lively=True, **WEIGHTS), monkeypatch)
    assert set(terms) == TERMS | {"l_l1", "l_l1_hole", "l_msr_perc"}
    assert all(terms[name] != 0 for name in terms)
    weight = {name: WEIGHTS[f"w_{name}"] for name in ("hrf", "adv", "l1", "l1_hole")} | {"fid": 23.0}
    weight |= {f"msr_{name}": 11.0 * WEIGHTS[f"w_{name}"] for name in ("rec", "edge", "seg", "perc")}
    expected = sum(weight[name[2:]] * value for name, value in terms.items() if name != "l_d")
    assert seen["inverter"] == pytest.approx(expected, rel=1e-5)
    assert seen["critic"] == pytest.approx(terms["l_d"], rel=1e-5)
    assert list(seen) == ["critic", "inverter"]


def test_invertfills_loss_takes_the_place_of_eq_7(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, terms = minimized(make(lively=True, ipt="rfr", perc="hrf", w_perc=0.0), monkeypatch)
    names = {"valid": 1.0, "hole": 6.0, "perc": 0.05, "style": 120.0, "tv": 0.1}
    assert set(terms) == {f"l_{n}" for n in names} | TERMS - {"l_hrf"}
    rest = terms["l_adv"] + 10 * terms["l_msr_rec"] + 0.5 * (terms["l_msr_edge"] + terms["l_msr_seg"])
    rest += 0.005 * terms["l_fid"]
    expected = rest + sum(weight * terms[f"l_{n}"] for n, weight in names.items())
    assert seen["inverter"] == pytest.approx(expected, rel=1e-5)


class Plain:
    """A step by itself, sample by sample where it can be, from the paper's text."""

    def __init__(self, module: MMInvertFill, batch: Batch, noise: list[Tensor], masks: dict[str, Tensor]) -> None:
        o, K = module.options, 4
        self.module, self.I, self.M = module, batch["image"] * 2 - 1, batch["mask"]
        X, S = self.I * (1 - self.M), batch["segmentation"]
        one_hot = torch.stack([S.eq(k).float() for k in range(K)], 1)
        void = (S == UNKNOWN_CLASS)[:, None].float()
        M_S = 1 - (1 - masks["segmentation"]) * (1 - void)
        parts = [X, self.M, batch["edge"] * (1 - masks["edge"]), masks["edge"], one_hot * (1 - M_S), M_S]
        net = module.inverter
        self.decoded = net.encoder(torch.cat(parts, 1), self.M, None)
        w = [m(x) for m, x in zip(net.map2style, self.decoded.features, strict=True)]
        Y = [
            torch.cat([O, e.sigmoid(), s.softmax(1)], 1)
            for O, e, s in zip(self.decoded.image, self.decoded.edge, self.decoded.segmentation, strict=True)  # noqa: E741
        ]
        delta = net.premodulation(
            torch.stack(w, 1), torch.stack([m(y) for m, y in zip(net.map2structure, Y, strict=True)], 1)
        )
        # the mean has been stepped before it is used
        self.mean = (1 - o["tau"]) * module.mean.online + o["tau"] * module.mean.target
        self.w = delta + self.mean if o["sml_mode"] == "offset" else delta
        self.O = module.generator.synthesize(self.w, noise, net.branch(X, self.M))
        E = F.interpolate(self.decoded.edge[-1].sigmoid(), (32, 32), mode="bilinear")
        seen = self.O if o["adv_on"] == "raw" else torch.where(self.M > 0.5, self.O, self.I)
        self.scores = module.critic(self.I, batch["edge"]), module.critic(seen, E)
        self.batch = batch

    def terms(self) -> dict[str, Tensor]:
        D_I, D_O = self.scores
        hinge = self.module.options["adv_kind"] == "hinge"
        φ = self.module.phi
        found = {
            "l_d": (1 - D_I).relu().mean() + (1 + D_O).relu().mean()
            if hinge
            else (1 + (-D_I).exp()).log().mean() + (1 + D_O.exp()).log().mean(),
            "l_adv": -D_O.mean() if hinge else (1 + (-D_O).exp()).log().mean(),
            "l_hrf": sum((a - b).square().mean() for a, b in zip(φ(self.I), φ(self.O), strict=True)),
            "l_fid": (self.w - self.mean).flatten(1).norm(dim=1).mean(),
        }
        if self.module.options["fid_kind"] == "mse":
            found["l_fid"] = (self.w - self.mean).square().mean()
        rec, edge, seg = [], [], []
        for k, (O, e, s) in enumerate(zip(*self.decoded[1:], strict=True)):  # noqa: E741
            f = 8 // 2**k
            rec.append((O - F.avg_pool2d(self.I, f)).square().mean())
            t = F.max_pool2d(self.batch["edge"], f)
            p = e.sigmoid()
            edge.append(-(t * p.log() * (1 - t.mean()) + (1 - t) * (1 - p).log() * t.mean()).mean())
            S = self.batch["segmentation"][:, ::f, ::f]
            seg.append(
                torch.stack(
                    [F.cross_entropy(a[None], b[None], ignore_index=255) for a, b in zip(s, S, strict=True)]
                ).mean()
            )
        return found | {"l_msr_rec": sum(rec), "l_msr_edge": sum(edge), "l_msr_seg": sum(seg)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"adv_on": "composite", "adv_kind": "nsgan"}, {"sml_mode": "regularise", "fid_kind": "mse", "tau": 0.5}],
    ids=named,
)
def test_a_step_is_what_the_equations_say(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a learning rate of 0, so that the discriminator that scores is the one that has learned."""
    module, batch = make(lively=True, lr=0.0, critic_lr=0.0, **changes), guided()
    masks = {"edge": torch.zeros_like(batch["mask"]), "segmentation": batch["mask"]}
    masks["edge"][..., :13] = 1
    withhold(monkeypatch, **masks)
    noise = module.generator.fresh_noise(3, "cpu")
    monkeypatch.setattr(module.generator, "fresh_noise", lambda *_: noise)
    monkeypatch.setattr(module.mean, "start", lambda _: None)  # it has been
    with torch.no_grad():
        expected = Plain(copy.deepcopy(module), batch, noise, masks).terms()
    made = logged(fit(module, batch))
    assert set(made) == set(expected) == TERMS
    for name, value in expected.items():
        assert made[name] == pytest.approx(float(value), rel=2e-4, abs=1e-5), name


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_a_step_of_the_first_stage_is_what_stylegan2_says(mixing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(lively=True, style_lr=0.0, mirror=False, mixing=mixing, r1=3.0, pl_every=2, r1_every=5, **FIRST)
    batch = guided(4)
    crossovers = fed_mix(module, monkeypatch)
    torch.manual_seed(3)
    noise = module.generator.fresh_noise(4, "cpu")
    w, y = torch.randn(4, 8, 10), torch.randn(2, 3, 32, 32)
    drawn = pretraining.styles(module, 6)
    assert drawn.shape == (6, 8, 10)
    assert (drawn[:, 0] != drawn[:, -1]).any() == (mixing == 1.0)
    assert [c is not None for c in crossovers] == [mixing == 1.0]
    monkeypatch.setattr(pretraining, "styles", lambda _, n: w[:n].clone().requires_grad_(True))
    monkeypatch.setattr(module.generator, "fresh_noise", lambda n, _: [x[:n] for x in noise])
    monkeypatch.setattr(torch, "randn_like", lambda _: y)
    seen, terms = minimized(module, monkeypatch, batch)
    D, G, x = module.style_critic, module.generator, (batch["image"] * 2 - 1).requires_grad_(True)
    D_x, D_G = D(x), D(G.synthesize(w, noise))
    (gradient,) = torch.autograd.grad(D_x.sum(), x)
    l_d = (1 + (-D_x).exp()).log().mean() + (1 + D_G.exp()).log().mean()
    R1 = 1.5 * gradient.square().sum() / 4
    l_g = (1 + (-D_G).exp()).log().mean()
    part = w[:2].clone().requires_grad_(True)
    (J_y,) = torch.autograd.grad((G.synthesize(part, [n[:2] for n in noise]) * y).sum() / 32, part)
    lengths = J_y.square().sum(2).mean(1).sqrt()
    pl = (lengths - 0.01 * lengths.mean()).square().mean()
    for name, value in (("l_d", l_d), ("R1", R1), ("l_g", l_g), ("pl", pl)):
        assert terms[name] == pytest.approx(value.item(), rel=1e-4), name
    assert seen["style_critic"] == pytest.approx((l_d + 5 * R1).item(), rel=1e-4)
    assert seen["generator"] == pytest.approx((l_g + 2.0 * 2 * pl).item(), rel=1e-4)
    assert module.path_mean == pytest.approx(0.01 * lengths.mean().item(), rel=1e-4)


def fed_mix(module: MMInvertFill, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The other z of each call of `mix` from now on."""
    calls: list[Any] = []
    mix = module.generator.mix

    def recorded(z: Tensor, other: Tensor | None = None, crossover: int = 0) -> Tensor:
        calls.append(other)
        assert other is None or 1 <= crossover < module.generator.styles
        return mix(z, other, crossover)

    monkeypatch.setattr(module.generator, "mix", recorded)
    return calls


def test_r1_and_path_length_come_at_their_iterations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def terms(**changes: Any) -> list[set[str]]:
        module, found = make(**FIRST, **{"r1_every": 3, "pl_every": 2, **changes}), []
        monkeypatch.setattr(module, "log_terms", lambda _, terms: found.append(set(terms) - {"l_d", "l_g"}))
        fit(module, max_steps=5)
        return found

    assert terms() == [{"R1", "pl"}, set(), {"pl"}, {"R1"}, {"pl"}]
    assert terms(r1=0.0) == [{"pl"}, set(), {"pl"}, set(), {"pl"}]
    assert terms(pl=0.0) == [{"R1"}, set(), set(), {"R1"}, set()]


def test_the_running_mean_of_path_lengths_moves_with_them_alone() -> None:
    means = []
    for steps in (1, 2, 3):
        module = make(**FIRST, pl_every=2)
        fit(module, max_steps=steps)
        means.append(float(module.path_mean))
    assert means[0] > 0
    assert means[1] == means[0] != means[2]


@pytest.mark.parametrize("mirror", [False, True])
def test_the_first_stage_sees_whole_images_some_of_them_mirrored(mirror: bool) -> None:
    module, batch = make(mirror=mirror, r1=0.0, pl=0.0, **FIRST), guided(8)
    batch["image"] = torch.rand_like(batch["image"])
    batch["mask"] = torch.ones_like(batch["mask"])
    given = fed(module.style_critic)
    fit(module, batch)
    x = batch["image"] * 2 - 1
    flipped = [k for k in range(8) if torch.equal(given[0][0][k], x[k].flip(2))]
    assert sum(torch.equal(given[0][0][k], x[k]) for k in range(8)) == 8 - len(flipped)
    assert (0 < len(flipped) < 8) == mirror


# --- guidance in training ---------------------------------------------------------------------------------------------


def test_the_truth_in_the_hole_is_seen_by_losses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    withhold(monkeypatch, edge=1.0, segmentation=1.0)
    module, batch = make(lively=True, lr=0.0), guided()
    given = fed(module.inverter)
    fit(module, batch)
    other = guided()
    other["image"] = torch.where(other["mask"] > 0.5, 1 - other["image"], other["image"])
    fit(module, other)
    for one, two in zip(*given, strict=True):
        assert torch.equal(one, two) if isinstance(one, Tensor) else True
    inputs, X, M, _ = given[0]
    assert torch.equal(X, (batch["image"] * 2 - 1) * (1 - batch["mask"]))
    assert torch.equal(inputs[:, :3], X)
    assert torch.equal(M, batch["mask"])


def test_10_in_training_too_hidden_guidance_is_missing_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    withhold(monkeypatch, edge=1.0, segmentation=1.0)
    module, batch = make(lively=True, lr=0.0, critic_lr=0.0), guided()
    given = fed(module.inverter.encoder)
    other = guided()
    other["edge"], other["segmentation"] = 1 - other["edge"], (other["segmentation"] + 1) % 4
    for shown in (batch, other, without(batch, "edge", "segmentation")):
        fit(module, shown)
    assert torch.equal(given[0][0], given[1][0])
    assert torch.equal(given[0][0], given[2][0])
    assert not given[0][0][:, 4].any()
    assert given[0][0][:, 5].all()


def test_what_is_withheld_is_drawn_by_seed_iteration_and_id(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def mask(M: Tensor, *arguments: Any) -> Tensor:
        calls.append(arguments)
        return torch.zeros_like(M)

    class Data(LightningDataModule):
        seed = 9

        def train_dataloader(self) -> Any:
            return DataLoader([guided()], batch_size=None)  # type: ignore[arg-type]

    monkeypatch.setattr(implementation, "guidance_mask", mask)
    for data, seed in ((None, 0), (Data(), 9)):
        calls.clear()
        module, made = make(shares=[0.3, 0.2], whole=0.1), trainer(max_steps=2)
        made.fit(module, data or DataLoader([guided()], batch_size=None))  # type: ignore[arg-type]
        ids = guided()["id"]
        expected = [(ids, n, seed, k, (0.3, 0.2), 0.1) for k in (0, 1) for n in ("edge", "segmentation")]
        assert sorted(calls, key=str) == sorted(expected, key=str)
    calls.clear()
    fit(make(edge=False), without(guided(), "segmentation"))
    assert calls == []


def test_withheld_guidance_is_drawn_anew_for_each_sample_and_step() -> None:
    module, batch = make(lr=0.0), guided(16)
    given = fed(module.inverter.encoder)
    fit(module, batch, max_steps=2)
    masks = [inputs[:, 5] for inputs, *_ in given]
    assert not torch.equal(masks[0], masks[1])
    M = batch["mask"][:, 0]
    kinds = [
        [k for k in range(16) if test(mask[k], M[k])]
        for mask in masks
        for test in (lambda a, _: bool(a.all()), torch.equal, lambda a, _: not a.any())
    ]
    assert all(0 < len(found) < 16 for found in kinds)


def test_the_oracle_alone_sees_the_whole_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    withhold(monkeypatch, edge=1.0, segmentation=1.0)
    module, batch = make(lively=True, aux_source="truth"), guided()
    given = fed(module.inverter)
    fit(module, batch)
    truth = given[0][3]
    assert torch.equal(truth.edge, batch["edge"])
    assert torch.equal(truth.segmentation.sum(1), (batch["segmentation"] != UNKNOWN_CLASS).float())
    assert not given[0][0][:, 4].any()


@pytest.mark.parametrize(
    ("changes", "missing", "gone"),
    [
        ({"segmentation": False}, (), {"l_msr_seg"}),
        ({"edge": False}, (), {"l_msr_edge"}),
        ({}, ("segmentation",), {"l_msr_seg"}),
        ({}, ("edge",), {"l_msr_edge"}),
        ({"edge": False, "segmentation": False}, (), {"l_msr_edge", "l_msr_seg"}),
        ({}, ("edge", "segmentation"), {"l_msr_edge", "l_msr_seg"}),
        ({"w_adv": 0.0}, (), {"l_adv", "l_d"}),
        ({"w_hrf": 0.0}, (), {"l_hrf"}),
        ({"hrf": "none"}, (), {"l_hrf"}),
        ({"adv_start": 1}, (), {"l_adv", "l_d"}),
    ],
    ids=named,
)
def test_11_without_a_modality_there_is_no_term_of_it(
    changes: dict[str, Any], missing: tuple[str, ...], gone: set[str]
) -> None:
    values = logged(fit(make(**changes), without(guided(), *missing)))
    assert set(values) == TERMS - gone


def test_11_unknown_classes_and_no_edges_cost_nothing() -> None:
    batch = guided()
    batch["segmentation"].fill_(UNKNOWN_CLASS)
    batch["edge"].zero_()
    values = logged(fit(make(), batch))
    assert values["l_msr_seg"] == values["l_msr_edge"] == 0


@pytest.mark.parametrize("full", [0.0, 1.0])
def test_a_hole_everywhere_or_nowhere_has_finite_losses_and_gradients(full: float) -> None:
    module, batch = make(lively=True, w_l1_hole=1.0, w_l1=1.0), guided()
    batch["mask"] = torch.full_like(batch["mask"], full)
    values = logged(fit(module, batch))
    assert all(torch.tensor(value).isfinite() for value in values.values())
    assert all(p.isfinite().all() for p in module.parameters())
    assert (values["l_l1_hole"] == 0) == (full == 0)
