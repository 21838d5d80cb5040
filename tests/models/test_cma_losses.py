"""The losses of CMA against plain loops and closed forms, and the warm-up and decay of its optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.cma import losses, transport
from zoo.models.cma.schedule import parameter_groups, warm_up


def features(batch: int = 3, tokens: int = 5, patches: int = 9, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Text tokens and patches."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(batch, tokens, width, generator=generator)
    return text, torch.randn(batch, patches, width, generator=generator)


def words(*lengths: int, tokens: int = 5) -> Tensor:
    """Which tokens stand for words: after [CLS], so many of each sample."""
    place = torch.arange(tokens)
    return torch.stack([(place >= 1) & (place <= n) for n in lengths])


def cosine(x: Tensor, y: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / (
        math.sqrt(sum(float(a) ** 2 for a in x)) * math.sqrt(sum(float(b) ** 2 for b in y))
    )


# --- Eq. 5 to 7: cross-modal alignment distillation -------------------------------------------------------------------


def test_eq_6_and_7_the_correlation_map_is_the_cosine_of_each_pair() -> None:
    t, v = features()
    M = losses.correlation(t, v)
    assert M.shape == (3, 5, 9)
    for b, j, i in ((0, 0, 0), (1, 3, 8), (2, 4, 2)):
        assert M[b, j, i].item() == pytest.approx(cosine(t[b, j], v[b, i]), abs=1e-6)
    torch.testing.assert_close(losses.correlation(7.0 * t, 0.1 * v), M)


def test_a_zero_vector_correlates_with_nothing_and_has_finite_gradients() -> None:
    t, v = features()
    t[0, 1] = 0
    t.requires_grad_(True)
    M = losses.correlation(t, v)
    M.square().sum().backward()
    assert M[0, 1].abs().max() == 0
    assert t.grad is not None
    assert t.grad.isfinite().all()


def test_eq_5_cmad_is_the_mean_over_words_and_patches_of_each_sample() -> None:
    M_r, M_o = losses.correlation(*features()), losses.correlation(*features(seed=1))
    known, per_sample = words(3, 1, 2), []
    for b, length in enumerate((3, 1, 2)):
        pairs = [(j, i) for j in range(1, 1 + length) for i in range(9)]
        total = sum((M_r[b, j, i].item() - M_o[b, j, i].item()) ** 2 for j, i in pairs)
        per_sample.append(total / (9 * length))
    assert losses.cmad(M_r, M_o, known).item() == pytest.approx(sum(per_sample) / 3, rel=1e-5)


def test_padding_never_dilutes_cmad() -> None:
    t, v = features()
    M_r, M_o = losses.correlation(t, v), losses.correlation(*features(seed=1))
    short = losses.cmad(M_r, M_o, words(2, 2, 2))
    longer = [torch.cat([M, torch.rand(3, 7, 9)], 1) for M in (M_r, M_o)]
    assert losses.cmad(*longer, words(2, 2, 2, tokens=12)) == short > 0


def test_a_sample_without_words_counts_zero() -> None:
    M_r, M_o = losses.correlation(*features()), losses.correlation(*features(seed=1))
    some = losses.cmad(M_r, M_o, words(3, 0, 2))
    per_sample = [losses.cmad(M_r[b : b + 1], M_o[b : b + 1], words(n)) for b, n in ((0, 3), (2, 2))]
    torch.testing.assert_close(some, (per_sample[0] + per_sample[1]) / 3)
    assert losses.cmad(M_r, M_o, words(0, 0, 0)) == 0


# --- Eq. 8: in-sample distillation ------------------------------------------------------------------------------------


def kl(p: Tensor, q: Tensor) -> float:
    """KL(softmax(p) ‖ softmax(q)) of two vectors, by hand."""
    p, q = (x.double().exp() / x.double().exp().sum() for x in (p, q))
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("τ", [1.0, 2.5])
def test_eq_8_isd_is_the_divergence_of_each_patch_from_the_originals(τ: float) -> None:
    v_o, v_r = features()[1], features(seed=1)[1]
    expected = sum(kl(v_o[b, i] / τ, v_r[b, i] / τ) for b in range(3) for i in range(9)) / 27 * τ**2
    assert losses.isd(v_o, v_r, τ=τ).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("τ", [1.0, 0.5])
def test_isd_over_places_is_the_divergence_of_each_channel(τ: float) -> None:
    v_o, v_r = features()[1], features(seed=1)[1]
    expected = sum(kl(v_o[b, :, c] / τ, v_r[b, :, c] / τ) for b in range(3) for c in range(6)) / 18 * τ**2
    assert losses.isd(v_o, v_r, "spatial_softmax", τ).item() == pytest.approx(expected, rel=1e-5)


def test_isd_without_distributions() -> None:
    v_o, v_r = features()[1], features(seed=1)[1]
    assert losses.isd(v_o, v_r, "mse") == pytest.approx(((v_o - v_r) ** 2).mean())
    expected = 1 - sum(cosine(v_o[b, i], v_r[b, i]) for b in range(3) for i in range(9)) / 27
    assert losses.isd(v_o, v_r, "cosine").item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", losses.ISD_KINDS)
def test_isd_counts_the_patches_it_is_told_to(kind: str) -> None:
    v_o, v_r = features()[1], features(seed=1)[1]
    where = torch.zeros(3, 9)
    where[0, 2], where[1, 5] = 1.0, 0.5
    if kind != "spatial_softmax":
        one, two = (losses.isd(v_o[b : b + 1, i : i + 1], v_r[b : b + 1, i : i + 1], kind) for b, i in ((0, 2), (1, 5)))
        torch.testing.assert_close(losses.isd(v_o, v_r, kind, where=where), (one + 0.5 * two) / 1.5)
    torch.testing.assert_close(
        losses.isd(v_o, v_r, kind, where=torch.ones(3, 9)), losses.isd(v_o, v_r, kind), msg="all patches"
    )
    assert losses.isd(v_o, v_r, kind, where=torch.zeros(3, 9)) == 0
    assert losses.isd(v_o, v_o, kind).abs() < 1e-6
    assert losses.isd(v_o, v_r, kind) > 0.01


@pytest.mark.parametrize("kind", losses.ISD_KINDS)
def test_c9_isd_does_not_depend_on_how_many_samples_and_patches_there_are(kind: str) -> None:
    v_o, v_r = features()[1], features(seed=1)[1]
    one = losses.isd(v_o, v_r, kind)
    torch.testing.assert_close(losses.isd(v_o.repeat(4, 1, 1), v_r.repeat(4, 1, 1), kind), one)
    torch.testing.assert_close(losses.isd(v_o.repeat(1, 4, 1), v_r.repeat(1, 4, 1), kind), one)


def test_isd_of_unrelated_features_of_unit_variance_is_about_one() -> None:
    v_o, v_r = features(2, 1, 64, 768)[1], features(2, 1, 64, 768, seed=1)[1]
    assert losses.isd(v_o, v_r).item() == pytest.approx(1.0, abs=0.03)


def test_an_unknown_isd_names_the_choices() -> None:
    with pytest.raises(UsageError, match="'l2'") as caught:
        losses.isd(*features(tokens=9), "l2")
    assert all(kind in str(caught.value) for kind in losses.ISD_KINDS)


# --- Eq. 9 to 11: word-patch alignment --------------------------------------------------------------------------------


def exact_cost(v: Tensor, t: Tensor) -> float:
    """The least cost of moving patches to words of one sample, as a linear program."""
    from scipy.optimize import linprog

    N, L = len(v), len(t)
    cost = [1 - cosine(v[i], t[j]) for i in range(N) for j in range(L)]
    rows = [[float(k // L == i) for k in range(N * L)] for i in range(N)]
    columns = [[float(k % L == j) for k in range(N * L)] for j in range(L)]
    return float(linprog(cost, A_eq=rows + columns, b_eq=[1 / N] * N + [1 / L] * L, method="highs").fun)


@pytest.mark.parametrize("solver", ["ipot", "pot"])
def test_eq_9_to_11_wpa_is_the_least_cost_of_moving_patches_to_words(solver: str) -> None:
    t, v = features()
    made = losses.wpa(v, t, words(3, 1, 4), solver)
    assert made.shape == (3,)
    for b, length in enumerate((3, 1, 4)):
        spoken = t[b, 1 : 1 + length]
        least = exact_cost(v[b], spoken)
        mean = sum(1 - cosine(x, y) for x in v[b] for y in spoken) / (9 * length)
        assert least - 1e-4 < made[b].item() < least + 0.02
        assert made[b].item() <= mean + 1e-5  # never worse than moving everything everywhere


@pytest.mark.parametrize("solver", ["ipot", "pot"])
def test_c3_the_plan_moves_a_share_of_each_patch_to_each_word(solver: str) -> None:
    t, v = features()
    known = words(3, 1, 4)
    c = transport.cosine_cost(v, t)
    T = transport.solve(c, *transport.marginals(known, 9), solver)
    share = known.float() / known.sum(1, keepdim=True)
    torch.testing.assert_close(T.sum(2), torch.full((3, 9), 1 / 9), atol=3e-3, rtol=0.0)
    torch.testing.assert_close(T.sum(1), share, atol=1e-5, rtol=0.0)
    assert (T[~known[:, None].expand_as(T)] == 0).all()
    torch.testing.assert_close(losses.wpa(v, t, known, solver), (T * c).sum((1, 2)))


@pytest.mark.parametrize("solver", ["ipot", "pot"])
def test_c4_the_gradient_of_wpa_holds_the_plan_fixed(solver: str) -> None:
    t, v = (x.requires_grad_(True) for x in features())
    known = words(3, 1, 4)
    grads = torch.autograd.grad(losses.wpa(v, t, known, solver).sum(), (v, t))
    c = 1.0 - losses.correlation(t, v).mT
    T = transport.solve(c, *transport.marginals(known, 9), solver).detach()
    assert not transport.solve(c, *transport.marginals(known, 9), solver).requires_grad
    for made, expected in zip(grads, torch.autograd.grad((T * c).sum(), (v, t)), strict=True):
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-4)
    assert grads[1][~known].abs().max() == 0  # padding and [CLS] learn nothing


@pytest.mark.parametrize("solver", ["ipot", "pot"])
def test_padding_never_dilutes_wpa_and_nothing_to_say_costs_nothing(solver: str) -> None:
    t, v = features()
    known = words(3, 0, 4)
    made = losses.wpa(v, t, known, solver)
    longer = torch.cat([t, 100 * torch.randn(3, 7, 6)], 1)
    torch.testing.assert_close(losses.wpa(v, longer, torch.cat([known, torch.zeros(3, 7).bool()], 1), solver), made)
    assert made[1] == 0
    v.requires_grad_(True)
    losses.wpa(v, t, known, solver).sum().backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_contrastive_wpa_wants_the_own_caption_nearer_by_a_margin() -> None:
    d_pos, d_neg = torch.tensor([0.5, 0.2, 0.9, 0.4]), torch.tensor([0.6, 0.5, 0.1, 0.0])
    every = torch.ones(4, dtype=torch.bool)
    expected = (0.1 + 0.0 + 1.0 + 0.6) / 4
    assert losses.contrastive_wpa(d_pos, d_neg, every).item() == pytest.approx(expected)
    usable = torch.tensor([True, True, True, False])
    assert losses.contrastive_wpa(d_pos, d_neg, usable).item() == pytest.approx(1.1 / 3)
    assert losses.contrastive_wpa(d_pos, d_neg, ~every) == 0
    assert losses.contrastive_wpa(d_pos, d_neg, every, margin=0.0).item() == pytest.approx((0.8 + 0.4) / 4)


# --- Eq. 12 to 16 -----------------------------------------------------------------------------------------------------


def test_eq_12_reconstruction_is_the_mean_error_over_the_whole_image() -> None:
    I_gt, M = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    M[0, :, :4, :4] = 1
    I_r = 0.5 * M.expand_as(I_gt) - 0.25 * (1 - M)
    share = 16 / 128
    assert losses.reconstruction(I_r, I_gt, M).item() == pytest.approx(0.5 * share + 0.25 * (1 - share))
    whole = 0.5 * share + 0.25 * (1 - share)
    assert losses.reconstruction(I_r, I_gt, M, hole=2.0).item() == pytest.approx(whole + 2.0 * 0.5)
    assert losses.reconstruction(I_r, I_gt, torch.zeros_like(M), hole=2.0).item() == pytest.approx(whole)


def test_the_hole_of_each_sample_counts_alike() -> None:
    I_gt, M = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    M[0, :, 0, 0], M[1, :, 2:] = 1.0, 1.0
    I_r = torch.stack([torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.1)])
    hole = losses.reconstruction(I_r, I_gt, M, hole=1.0) - losses.reconstruction(I_r, I_gt, M)
    assert hole.item() == pytest.approx(0.3)


def test_eq_13_to_16_the_adversarial_losses_are_hinges() -> None:
    real, fake = [0.5, 3.0, -1.0], [-0.5, -4.0, 2.0]
    D = sum(max(0.0, 1 - x) for x in real) / 3 + sum(max(0.0, 1 + x) for x in fake) / 3
    assert losses.adversarial_discriminator(torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(D)
    assert losses.adversarial_generator(torch.tensor(fake)).item() == pytest.approx(2.5 / 3)


def test_samples_without_a_hole_take_no_part_in_the_local_game() -> None:
    real, fake = torch.tensor([0.5, 3.0, -1.0]), torch.tensor([-0.5, -4.0, 2.0])
    counted = torch.tensor([True, False, True])
    both = losses.adversarial_discriminator(real[counted], fake[counted])
    torch.testing.assert_close(losses.adversarial_discriminator(real, fake, counted), both)
    torch.testing.assert_close(losses.adversarial_generator(fake, counted), -fake[counted].mean())
    nobody = torch.zeros(3, dtype=torch.bool)
    assert losses.adversarial_discriminator(real, fake, nobody) == losses.adversarial_generator(fake, nobody) == 0


# --- all of them ------------------------------------------------------------------------------------------------------

KNOWN = words(3, 1, 4)
TERMS: dict[str, Callable[..., Any]] = {
    "correlation": lambda t, v, t_2, v_2: losses.correlation(t, v),
    "cmad": lambda t, v, t_2, v_2: losses.cmad(losses.correlation(t, v), losses.correlation(t_2, v_2), KNOWN),
    **{f"isd {kind}": lambda t, v, t_2, v_2, kind=kind: losses.isd(v, v_2, kind) for kind in losses.ISD_KINDS},
    "wpa ipot": lambda t, v, t_2, v_2: losses.wpa(v, t, KNOWN, "ipot"),
    "wpa pot": lambda t, v, t_2, v_2: losses.wpa(v, t, KNOWN, "pot"),
    "l_1": lambda t, v, t_2, v_2: losses.reconstruction(v[:, None], v_2[:, None], torch.ones(3, 1, 9, 6), 1.0),
    "l_g": lambda t, v, t_2, v_2: losses.adversarial_generator(v[:, 0, 0]),
    "l_d": lambda t, v, t_2, v_2: losses.adversarial_discriminator(v[:, 0, 0], v_2[:, 0, 0]),
    "collapse": lambda t, v, t_2, v_2: torch.stack(losses.collapse(t, v, KNOWN)),
}


@pytest.mark.parametrize("name", TERMS)
def test_losses_are_float32_whatever_the_network_is(name: str) -> None:
    given = [x.bfloat16() for x in (*features(), *features(seed=1))]
    expected = TERMS[name](*(x.float() for x in given))
    with torch.autocast("cpu", torch.bfloat16):
        made = TERMS[name](*given)
    assert made.dtype == torch.float32
    assert torch.equal(made, expected)


def test_the_signs_of_collapse() -> None:
    t, v = features()
    patches, across = losses.collapse(t, v, KNOWN)
    own = [cosine(v[b, i], v[b, j]) for b in range(3) for i in range(9) for j in range(9) if i != j]
    assert patches.item() == pytest.approx(sum(own) / len(own), abs=1e-5)
    per_sample = []
    for b, length in enumerate((3, 1, 4)):
        pairs = [cosine(t[b, 1 + j], v[b, i]) for j in range(length) for i in range(9)]
        per_sample.append(sum(pairs) / len(pairs))
    assert across.item() == pytest.approx(sum(per_sample) / 3, abs=1e-5)
    one = torch.ones(3, 9, 6)
    assert [x.item() for x in losses.collapse(one[:, :5], one, KNOWN)] == pytest.approx([1.0, 1.0])
    assert [x.item() for x in losses.collapse(one[:, :5], -one, KNOWN)] == pytest.approx([1.0, -1.0])
    assert losses.collapse(t, v[:, :1], KNOWN)[0] == 0  # a single patch has no other


# --- warm-up, decay, weight decay -------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    factors = [warm_up(4, 12)(step) for step in range(14)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:12] == pytest.approx([1 - k / 8 for k in range(8)])
    assert factors[12:] == [0.0, 0.0]


def test_without_an_end_the_learning_rate_stays_and_without_warm_up_it_starts_whole() -> None:
    assert [warm_up(2)(step) for step in (0, 1, 2, 10**6)] == [0.5, 1.0, 1.0, 1.0]
    assert [warm_up(0, 4)(step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [warm_up(4, 4)(step) for step in (3, 4)] == [1.0, 0.0]


def test_only_matrices_and_kernels_decay() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v_mask, self.cls_token = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1, 1, 4))
            self.position_embeddings = nn.Parameter(torch.zeros(1, 5, 4))
            self.embedding, self.linear = nn.Embedding(3, 4), nn.Linear(4, 4)
            self.norm, self.conv = nn.LayerNorm(4), nn.Conv2d(3, 4, 3)

    table, other = Table(), nn.Linear(4, 2)
    decayed, exempt = parameter_groups([table, other], 0.01)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(m.weight) for m in (table.linear, table.conv, other)}
    together = [*decayed["params"], *exempt["params"]]
    assert {id(p) for p in together} == {id(p) for m in (table, other) for p in m.parameters()}
    assert len(together) == len({id(p) for p in together})
