"""Word-patch alignment of CMA as optimal transport (Zhou and Long, EACL 2023, Eq. 9 to 11), a batch at once.

Letters: `v` patches (B N e) and `t` text tokens (B L e); `C` the cost of moving one to the other and `T` a transport
plan (B N L); `a` (B N) and `b` (B L) its marginals, Π(a, b) in the paper. A token of weight 0 takes no part: its column
of the plan is exactly 0. All is float32 with autocast off: in bfloat16 the marginals are off by percents.

Plans carry no gradient and need none: the derivative of min_T Σ T C by C is T itself (envelope theorem).

Which solver: `ipot`, what the paper's reference ViLT runs, is the faster and the more exact one. Converged, t steps of
IPOT are Sinkhorn with ε = β / t; but where words and patches match, costs span more than 50 ε, and Sinkhorn at that ε
from the start needs some 1000 iterations, while IPOT comes down from large ε.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError, unknown_name

EPS = 1e-8
TINY = 1e-30  # below any sum over a token; keeps 0 / 0 from a sample without tokens
FAR = 1e3  # the cost of padding: exp(-FAR / ε) is exactly 0 in float32, and finite, as -inf - (-inf) is NaN


def cosine_cost(v: Tensor, t: Tensor) -> Tensor:
    """Eq. 10: C_ij = 1 - v_i · t_j / (‖v_i‖ ‖t_j‖), B N L in [0, 2], float32, with gradient.

    Args:
        v: B N e, patches.
        t: B L e, text tokens. The zero vector costs 1.
    """
    with torch.autocast(v.device.type, enabled=False):
        v, t = (F.normalize(x.float(), dim=-1, eps=EPS) for x in (v, t))
        return 1.0 - v @ t.mT


def marginals(known: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """a and b of Eq. 11: 1/N for each patch; 1/L for each of the L valid tokens of a sample, 0 at the others.

    Args:
        known: B L, bool, True at valid tokens. Where a sample has none, its b is 0.
        N: Patches per image.

    Returns:
        a, B N, and b, B L, float32.
    """
    valid = known.float()
    a = valid.new_full((len(known), N), 1.0 / N)
    return a, valid / valid.sum(1, keepdim=True).clamp_min(1.0)


def plan_ipot(C: Tensor, a: Tensor, b: Tensor, beta: float = 0.5, iterations: int = 50) -> Tensor:
    """The plan by IPOT, the inexact proximal point method, one inner step (Xie et al. 2020, Alg. 1; as ViLT runs it).

    Columns sum to b to rounding. With N = 64 rows sum to a within 2e-5 where features are unrelated (costs within 0.4
    of each other) and within 3e-3 where they match (costs from 0 to 1); the cost is within 0.02 of the exact minimum.
    More iterations arrive at it.

    Args:
        C: B N L; what stands at tokens of weight 0 is not looked at.
        a: B N.
        b: B L, 0 at padding. The plan of a sample that has nothing else is 0.
        beta: β, the step of the proximal point method.
        iterations: Its steps.

    Returns:
        T, B N L, float32, without gradient.
    """
    with torch.no_grad(), torch.autocast(C.device.type, enabled=False):
        K = torch.exp(-C.float() / beta).masked_fill(b[:, None] == 0, 0.0)
        T, σ = torch.ones_like(K), b
        for _ in range(iterations):
            Q = K * T
            δ = a / _times(σ, Q.mT).clamp_min(TINY)
            σ = b / _times(δ, Q).clamp_min(TINY)
            T = δ[:, :, None] * Q * σ[:, None]
    return T


def _times(x: Tensor, Q: Tensor) -> Tensor:
    """xᵀ Q of each sample. A row times a matrix: on the CPU a matrix times a column is seven times slower."""
    return (x[:, None] @ Q)[:, 0]


def plan_pot(C: Tensor, a: Tensor, b: Tensor, epsilon: float = 0.01, iterations: int = 100) -> Tensor:
    """The plan of entropic transport, min Σ T C + ε Σ T log T, by POT's batched Sinkhorn in the log domain.

    Columns sum to b within 1e-6. With N = 64, 100 iterations bring rows to a within 1e-6 where features are unrelated
    (costs within 0.4 of each other). Where they match (costs from 0 to 1) that is not enough: rows are off by up to
    0.02, more than a itself, by 0.3 in sum, and the cost lies up to 0.15 below the exact minimum. After 1000 iterations
    the sum is below 0.02 and the cost within 0.01.

    Args:
        C: B N L; what stands at tokens of weight 0 is not looked at.
        a: B N.
        b: B L, 0 at padding. The plan of a sample that has nothing else is 0.
        epsilon: ε, the weight of the entropy.
        iterations: Always as many: a sample's plan must not depend on when the others of its batch have converged.

    Returns:
        T, B N L, float32, without gradient.

    Raises:
        UsageError: POT is not installed.
    """
    solve_batch = _solve_batch()
    # With log 0 everywhere POT answers NaN. A sample without tokens is solved as if all were valid, then set to 0.
    some = (b > 0).any(1, keepdim=True)
    with torch.no_grad(), torch.autocast(C.device.type, enabled=False):
        far = C.float().masked_fill(b[:, None] == 0, FAR)
        weights = torch.where(some, b, 1.0 / b.shape[1])
        T: Tensor = solve_batch(
            far, epsilon, a, weights, max_iter=iterations, tol=0.0, method="log_sinkhorn", grad="detach"
        ).plan
        return T * some[:, :, None]


def _solve_batch() -> Callable[..., Any]:
    """POT's batched solver; imported here because it takes two seconds."""
    try:
        solve_batch: Callable[..., Any] = importlib.import_module("ot.batch").solve_batch
    except ImportError as error:
        raise UsageError(
            "the transport solver 'pot' needs the package POT, 0.9.7 or newer",
            remedy="pip install 'POT>=0.9.7', or choose the solver 'ipot'",
        ) from error
    return solve_batch


PLANS: dict[str, Callable[..., Tensor]] = {"ipot": plan_ipot, "pot": plan_pot}


def solve(C: Tensor, a: Tensor, b: Tensor, solver: str) -> Tensor:
    """The plan by the solver of a name, `ipot` or `pot`, with its own defaults.

    Args:
        C: B N L.
        a: B N.
        b: B L.
        solver: A key of `PLANS`.

    Returns:
        T, B N L, float32, without gradient.

    Raises:
        UsageError: An unknown name, or `pot` without the package.
    """
    if solver not in PLANS:
        raise unknown_name("transport solver", solver, list(PLANS))
    return PLANS[solver](C, a, b)


def transport_cost(C: Tensor, T: Tensor) -> Tensor:
    """Eq. 9: Σ_ij T_ij C_ij of each sample (B), with T held fixed; 0 for a sample without valid tokens.

    Args:
        C: B N L, with gradient.
        T: B N L, a plan.
    """
    return (T.detach() * C).sum((1, 2))
