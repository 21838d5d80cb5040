"""Transport plans between patches and words against naive loops, exact transport and the envelope theorem."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.cma import transport
from zoo.models.cma.transport import PLANS, cosine_cost, marginals, plan_ipot, plan_pot, solve, transport_cost

B, N, L, E = 6, 64, 40, 768  # as in the paper; unrelated features of this width cost 0.8 to 1.2
LENGTHS = (8, 22, 13, 1, 40, 17)
Problem = tuple[Tensor, Tensor, Tensor]


def features(match: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, tokens and which of these are valid; `match` says how much of a word there is in each patch."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(LENGTHS)[:, None]
    t = torch.randn(B, L, E, generator=generator)
    word = (torch.rand(B, N, generator=generator).square() * lengths).long()
    v = match * t.gather(1, word[..., None].expand(-1, -1, E)) + torch.randn(B, N, E, generator=generator)
    return v, t, torch.arange(L) < lengths


def problem(match: float = 0.0) -> Problem:
    v, t, known = features(match)
    return cosine_cost(v, t), *marginals(known, N)


def exact(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The minimum itself, by POT's network simplex in double precision."""
    costs = []
    for c, x, y in zip(C.double().numpy(), a.double().numpy(), b.double().numpy(), strict=True):
        y = y[y > 0]
        costs.append(ot.emd2(x / x.sum(), y / y.sum(), np.ascontiguousarray(c[:, : len(y)])))
    return torch.tensor(costs, dtype=torch.float32)


def cost(C: Tensor, T: Tensor) -> Tensor:
    return (C * T).sum((1, 2))


# --- cost and marginals ---


def test_cosine_cost_is_that_of_a_loop() -> None:
    v, t, _ = features(0.5)
    C = cosine_cost(v, t)
    assert C.shape == (B, N, L)
    for i, j, k in ((0, 0, 0), (1, 63, 21), (5, 7, 39)):
        x, y = v[i, j].tolist(), t[i, k].tolist()
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        lengths = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y))
        assert C[i, j, k].item() == pytest.approx(1 - dot / lengths, abs=1e-6)


def test_cosine_cost_of_equal_opposite_and_zero_vectors() -> None:
    v = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    t = torch.tensor([[[5.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]])
    C = cosine_cost(v, t)
    torch.testing.assert_close(C, torch.tensor([[[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]]]))
    C.sum().backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_cosine_cost_passes_gradients_to_both_sides() -> None:
    v, t, _ = features(0.5)
    weights = torch.randn(B, N, L, generator=torch.Generator().manual_seed(1))
    ours, reference = [], []
    for compute, gradients in (
        (cosine_cost, ours),
        (lambda x, y: 1 - F.cosine_similarity(x[:, :, None], y[:, None], dim=3), reference),
    ):
        x, y = v.clone().requires_grad_(), t.clone().requires_grad_()
        gradients += torch.autograd.grad((compute(x, y) * weights).sum(), (x, y))
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


def test_marginals_are_uniform_over_patches_and_valid_tokens() -> None:
    known = torch.tensor([[True, True, False, True], [False, False, True, False], [False] * 4])
    a, b = marginals(known, 5)
    assert (a == 0.2).all()
    assert a.shape == (3, 5)
    torch.testing.assert_close(b, torch.tensor([[1 / 3, 1 / 3, 0, 1 / 3], [0, 0, 1, 0], [0, 0, 0, 0]]))
    assert a.dtype == b.dtype == torch.float32


# --- plans ---


def naive_ipot(C: Tensor, a: Tensor, b: Tensor, beta: float, iterations: int) -> list[list[float]]:
    """One sample, as the algorithm is written, in double precision."""
    n, m = C.shape
    c, x, y = C.tolist(), a.tolist(), b.tolist()
    T, sigma = [[1.0] * m for _ in range(n)], list(y)
    for _ in range(iterations):
        Q = [[math.exp(-c[i][j] / beta) * T[i][j] for j in range(m)] for i in range(n)]
        delta = [x[i] / sum(Q[i][j] * sigma[j] for j in range(m)) for i in range(n)]
        sigma = [y[j] / sum(Q[i][j] * delta[i] for i in range(n)) for j in range(m)]
        T = [[delta[i] * Q[i][j] * sigma[j] for j in range(m)] for i in range(n)]
    return T


def naive_sinkhorn(C: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """One sample, by scaling rows and columns of exp(-C/ε) in double precision."""
    n, m = C.shape
    K = [[math.exp(-c / epsilon) for c in row] for row in C.tolist()]
    x, y, g = a.tolist(), b.tolist(), [1.0] * m
    for _ in range(iterations):
        f = [x[i] / sum(K[i][j] * g[j] for j in range(m)) for i in range(n)]
        g = [y[j] / sum(K[i][j] * f[i] for i in range(n)) for j in range(m)]
    return [[f[i] * K[i][j] * g[j] for j in range(m)] for i in range(n)]


@pytest.mark.parametrize("match", [0.0, 1.0])
def test_plans_are_those_of_naive_loops(match: float) -> None:
    C, a, b = problem(match)
    T_ipot, T_pot = plan_ipot(C, a, b, 0.5, 20), plan_pot(C, a, b, 0.02, 20)
    for i in (0, 2):
        n = LENGTHS[i]
        sample = (C[i, :, :n], a[i], b[i, :n])
        torch.testing.assert_close(T_ipot[i, :, :n], torch.tensor(naive_ipot(*sample, 0.5, 20)), atol=1e-6, rtol=1e-3)
        naive = torch.tensor(naive_sinkhorn(*sample, 0.02, 20))
        torch.testing.assert_close(T_pot[i, :, :n], naive, atol=1e-6, rtol=1e-3)


def test_pot_is_its_solver_for_one_sample() -> None:
    """Not converged here, so from tokens to patches: `ot.sinkhorn` begins with the other half-step."""
    C, a, b = problem(1.0)
    T = plan_pot(C, a, b)
    for i, n in enumerate(LENGTHS):
        one = ot.sinkhorn(b[i, :n], a[i], C[i, :, :n].T, 0.01, "sinkhorn_log", numItermax=100, stopThr=0, warn=False)
        torch.testing.assert_close(T[i, :, :n], one.T, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("solver", "tolerance"), [("ipot", 1e-4), ("pot", 1e-5)])
def test_marginals_hold_for_unrelated_features(solver: str, tolerance: float) -> None:
    C, a, b = problem()
    T = solve(C, a, b, solver)
    torch.testing.assert_close(T.sum(2), a, atol=tolerance, rtol=0)
    torch.testing.assert_close(T.sum(1), b, atol=1e-6, rtol=0)
    torch.testing.assert_close(T.sum((1, 2)), torch.ones(B), atol=1e-5, rtol=0)
    assert (T >= 0).all()
    assert (T.masked_select(b[:, None] == 0) == 0).all()


def test_marginals_of_matching_features_need_more_iterations() -> None:
    """What the docstrings say of the mass that misses its row; columns hold whatever happens."""
    C, a, b = problem(1.0)
    off = {}
    for name, T in {
        "ipot": plan_ipot(C, a, b),
        "ipot, 500": plan_ipot(C, a, b, iterations=500),
        "pot": plan_pot(C, a, b),
        "pot, 1000": plan_pot(C, a, b, iterations=1000),
    }.items():
        torch.testing.assert_close(T.sum(1), b, atol=1e-6, rtol=0)
        off[name] = float((T.sum(2) - a).abs().sum(1).max())
    assert off["ipot"] < 0.03
    assert off["ipot, 500"] < 0.01
    assert 0.03 < off["pot"] < 0.3
    assert off["pot, 1000"] < 0.01


def test_cost_lies_between_exact_transport_and_independence() -> None:
    for match in (0.0, 1.0):
        C, a, b = problem(match)
        least, most = exact(C, a, b), cost(C, a[:, :, None] * b[:, None])
        plans = {"ipot": plan_ipot(C, a, b), "pot": plan_pot(C, a, b, iterations=100 if match == 0 else 2000)}
        for name, T in plans.items():
            found = cost(C, T)
            # A plan may lie below the minimum by as much as its marginals are off.
            slack = 1e-5 + (T.sum(2) - a).abs().sum(1)
            assert (found >= least - slack).all(), name
            assert (found <= most + slack).all(), name
            assert (found <= least + 0.02).all(), name


def test_more_iterations_of_ipot_reach_the_exact_minimum() -> None:
    C, a, b = problem(0.5)
    far = [(cost(C, plan_ipot(C, a, b, iterations=t)) - exact(C, a, b)).abs().max() for t in (20, 100, 1000)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-3


@pytest.mark.parametrize(("beta", "iterations"), [(0.5, 50), (0.5, 25), (1.0, 20)])
def test_steps_of_ipot_are_sinkhorn_with_a_smaller_epsilon(beta: float, iterations: int) -> None:
    """ε = β/t; other values of ε are seen to be farther off by far."""
    C, a, b = problem()
    found, epsilon = cost(C, plan_ipot(C, a, b, beta, iterations)), beta / iterations
    same, larger = (cost(C, plan_pot(C, a, b, e, 1000)) for e in (epsilon, 1.1 * epsilon))
    torch.testing.assert_close(found, same, atol=1e-5, rtol=0)
    assert (found - larger)[[0, 1, 2, 4, 5]].abs().min() > 2e-4  # a single token leaves one plan only


@pytest.mark.parametrize("solver", PLANS)
def test_padding_changes_nothing(solver: str) -> None:
    C, a, b = problem(1.0)
    T = solve(C, a, b, solver)
    padding = (b[:, None] == 0).expand_as(C)
    for other in (-1.0, 7.0, math.nan):
        assert torch.equal(solve(C.masked_fill(padding, other), a, b, solver), T)
    longer = solve(F.pad(C, (0, 9), value=0.3), a, F.pad(b, (0, 9)), solver)
    torch.testing.assert_close(longer[..., :L], T, atol=1e-6, rtol=1e-3)
    assert (longer[..., L:] == 0).all()


@pytest.mark.parametrize("plan", PLANS.values())
def test_padding_has_no_part_in_the_first_iteration_either(plan: Callable[..., Tensor]) -> None:
    C, a, b = problem()
    T = plan(C, a, b, iterations=1)
    for i, n in enumerate(LENGTHS):
        cut = plan(C[i : i + 1, :, :n], a[i : i + 1], b[i : i + 1, :n], iterations=1)
        torch.testing.assert_close(T[i : i + 1, :, :n], cut, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("solver", PLANS)
def test_valid_tokens_may_stand_anywhere(solver: str) -> None:
    C, a, b = problem(1.0)
    order = torch.randperm(L, generator=torch.Generator().manual_seed(3))
    T = solve(C, a, b, solver)
    torch.testing.assert_close(solve(C[..., order], a, b[:, order], solver), T[..., order], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("solver", PLANS)
def test_a_sample_does_not_depend_on_its_batch(solver: str) -> None:
    C, a, b = problem(1.0)
    alone = torch.cat([solve(C[i : i + 1], a[i : i + 1], b[i : i + 1], solver) for i in range(B)])
    torch.testing.assert_close(solve(C, a, b, solver), alone, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("solver", PLANS)
@pytest.mark.parametrize("empty", [[1], list(range(B))])
def test_samples_without_a_valid_token(solver: str, empty: list[int]) -> None:
    v, t, known = features(1.0)
    whole = solve(cosine_cost(v, t), *marginals(known, N), solver)
    known[empty] = False
    a, b = marginals(known, N)
    C = cosine_cost(v, t).requires_grad_()
    T = solve(C, a, b, solver)
    others = [i for i in range(B) if i not in empty]
    assert (T[empty] == 0).all()
    torch.testing.assert_close(T[others], whole[others])
    loss = transport_cost(C, T)
    loss.sum().backward()
    torch.testing.assert_close(loss[others], cost(C, T)[others])
    assert (loss[empty] == 0).all()
    assert C.grad is not None
    assert (C.grad[empty] == 0).all()
    assert C.grad.isfinite().all()


def test_extreme_costs_stay_finite() -> None:
    """Costs of 0 and 2 span 200 ε; a kernel without logarithms underflows here."""
    C, a, b = problem()
    C = 2.0 * C.gt(C.median()).float()
    for solver in PLANS:
        T = solve(C, a, b, solver)
        assert T.isfinite().all()
        torch.testing.assert_close(T.sum(1), b, atol=1e-5, rtol=0)


# --- gradients ---


@pytest.mark.parametrize("solver", PLANS)
def test_the_gradient_of_the_loss_is_the_plan(solver: str) -> None:
    C, a, b = problem(1.0)
    C.requires_grad_()
    T = solve(C, a, b, solver)
    assert not T.requires_grad
    transport_cost(C, T).sum().backward()
    assert C.grad is not None
    torch.testing.assert_close(C.grad, T)


def test_no_gradient_through_the_plan_that_is_given() -> None:
    C, a, b = problem()
    T = plan_ipot(C, a, b).requires_grad_()
    C.requires_grad_()
    transport_cost(C, T).sum().backward()
    assert C.grad is not None
    assert T.grad is None


def small() -> tuple[Tensor, Tensor, Tensor]:
    """Four patches, three tokens, costs of which no two plans share the minimum."""
    C = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.3, 0.4], [0.2, 0.6, 1.0], [0.8, 0.5, 0.35]])
    return C[None], *marginals(torch.ones(1, 3, dtype=torch.bool), 4)


def slopes(value: object, C: Tensor, step: float) -> Tensor:
    """Central differences of a function of one cost matrix, in double precision."""
    result, c = torch.zeros_like(C), C[0].double().numpy()
    for i, j in np.ndindex(*c.shape):
        ends = []
        for sign in (1, -1):
            moved = c.copy()
            moved[i, j] += sign * step
            ends.append(value(moved))  # type: ignore[operator]
        result[0, i, j] = (ends[0] - ends[1]) / (2 * step)
    return result


def test_the_slope_of_the_exact_minimum_is_the_plan() -> None:
    """The envelope theorem, of the linear programme itself, where IPOT has converged."""
    C, a, b = small()
    weights = (np.full(4, 1 / 4), np.full(3, 1 / 3))
    measured = slopes(lambda c: ot.emd2(*weights, c), C, 1e-4)
    torch.testing.assert_close(plan_ipot(C, a, b, iterations=2000), measured, atol=2e-4, rtol=0)
    assert not torch.allclose(plan_ipot(C, a, b, iterations=1), measured, atol=1e-2)


def test_the_slope_of_the_entropic_minimum_is_the_plan() -> None:
    C, a, b = small()
    weights, epsilon = (np.full(4, 1 / 4), np.full(3, 1 / 3)), 0.1

    def minimum(c: np.ndarray) -> float:
        T = ot.sinkhorn(*weights, c, epsilon, "sinkhorn_log", numItermax=5000, stopThr=1e-14)
        return float((T * c).sum() + epsilon * (T * np.log(T)).sum())

    measured = slopes(minimum, C, 1e-4)
    torch.testing.assert_close(plan_pot(C, a, b, epsilon, 500), measured, atol=1e-5, rtol=0)


def test_transport_cost_is_that_of_each_sample() -> None:
    C, a, b = problem()
    T = plan_ipot(C, a, b)
    loops = [sum(T[i, j, k] * C[i, j, k] for j in range(N) for k in range(LENGTHS[i])) for i in (0, 3)]
    assert transport_cost(C[[0, 3]], T[[0, 3]]).tolist() == pytest.approx([float(value) for value in loops], rel=1e-5)


# --- precision, names, imports ---


@pytest.mark.parametrize("solver", PLANS)
def test_all_is_float32_under_autocast(solver: str) -> None:
    v, t, known = features(1.0)
    v, t = v.bfloat16(), t.bfloat16()
    C = cosine_cost(v, t)
    T = solve(C, *marginals(known, N), solver)
    with torch.autocast("cpu", torch.bfloat16):
        C_cast = cosine_cost(v, t)
        T_cast = solve(C_cast, *marginals(known, N), solver)
        loss = transport_cost(C_cast, T_cast)
        assert (v @ t.mT).dtype == torch.bfloat16
    assert C_cast.dtype == T_cast.dtype == loss.dtype == torch.float32
    assert torch.equal(C_cast, C)
    assert torch.equal(T_cast, T)


def test_an_unknown_solver_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="ipto") as error:
        solve(*problem(), "ipto")
    assert "did you mean 'ipot'" in error.value.remedy


def test_without_pot_the_remedy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot.batch", None)
    with pytest.raises(UsageError, match="POT") as error:
        solve(*problem(), "pot")
    assert "pip install" in error.value.remedy
    assert "ipot" in error.value.remedy
    assert solve(*problem(), "ipot").isfinite().all()


def test_pot_is_imported_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ot", "ot.batch"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("transport_again", transport.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert set(again.PLANS) == {"ipot", "pot"}
