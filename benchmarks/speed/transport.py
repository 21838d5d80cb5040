"""The transport plans of a batch at once against POT sample by sample: `python -m benchmarks.speed.transport`.

The plain side is what one writes with POT: a loop over samples, padding cut off, no gradient, `ot.sinkhorn` in the log
domain with our ε and our number of iterations; and `ot.emd2`, exact, on the processor in double precision. Either side
ends with the costs of all samples. Two scenes: features that have nothing to do with each other, where every solver
converges, and patches that repeat a word, as trained features do, where costs span more than 50 ε.

Sinkhorn in the log domain is bound by its exponentials, 65 million for this batch, of which the loop computes those of
valid tokens alone: a batch cannot be many times faster on one thread. IPOT takes its exponentials once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.models.cma.transport import cosine_cost, marginals, plan_ipot, plan_pot

BATCH, PATCHES, TOKENS, WIDTH = 128, 64, 40, 768
SHORTEST, LONGEST = 8, 22  # tokens of a caption; the rest of TOKENS is padding
EPSILON, ITERATIONS = 0.01, 100
ROUNDS = 5
TARGET = 20.0
TOLERANCE = 1e-5
SCENES = {"unrelated": 0.0, "matching": 1.0}

Problem = tuple[Tensor, Tensor, Tensor]


def problem(match: float) -> Problem:
    """Costs and marginals, B N L, B N and B L.

    Args:
        match: How much of a word there is in each patch, beside noise of the same size; some words have many patches.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (BATCH, 1), generator=generator)
    t = torch.randn(BATCH, TOKENS, WIDTH, generator=generator)
    word = (torch.rand(BATCH, PATCHES, generator=generator).square() * lengths).long()
    noise = torch.randn(BATCH, PATCHES, WIDTH, generator=generator)
    v = match * t.gather(1, word[..., None].expand(-1, -1, WIDTH)) + noise
    return cosine_cost(v, t), *marginals(torch.arange(TOKENS) < lengths, PATCHES)


def by_ipot(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Ours: the costs (B) by IPOT, the batch at once."""
    return (plan_ipot(C, a, b) * C).sum((1, 2))


def by_pot(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Ours: the costs (B) by POT's batched solver."""
    return (plan_pot(C, a, b, EPSILON, ITERATIONS) * C).sum((1, 2))


def each_by_ipot(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """IPOT sample by sample, to see what batching alone gives."""
    return torch.cat([by_ipot(c[None], x[None], y[None]) for c, x, y in _samples(C, a, b)])


def each_by_sinkhorn(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`ot.sinkhorn` sample by sample. From tokens to patches: so it ends with the same half-step as the batched one."""
    import ot

    costs = []
    for c, x, y in _samples(C, a, b):
        c = c.T.contiguous()
        T = ot.sinkhorn(y, x, c, EPSILON, "sinkhorn_log", numItermax=ITERATIONS, stopThr=0.0, warn=False)
        costs.append((T * c).sum())
    return torch.stack(costs)


def each_by_emd(C: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`ot.emd2` sample by sample: the exact minimum."""
    import ot

    with warnings.catch_warnings():  # about the conversion to double precision that it needs
        warnings.simplefilter("ignore")
        return torch.stack([ot.emd2(x, y, c) for c, x, y in _samples(C, a, b)])


def _samples(C: Tensor, a: Tensor, b: Tensor) -> list[Problem]:
    lengths = (b > 0).sum(1).tolist()
    return [(C[i, :, :n], a[i], b[i, :n]) for i, n in enumerate(lengths)]


Solver = Callable[[Tensor, Tensor, Tensor], Tensor]
SOLVERS: tuple[Solver, ...] = (by_ipot, by_pot, each_by_ipot, each_by_sinkhorn, each_by_emd)
PAIRS = (
    ("IPOT / ot.sinkhorn by sample", by_ipot, each_by_sinkhorn, TARGET),
    ("batched log-Sinkhorn / ot.sinkhorn by sample", by_pot, each_by_sinkhorn, None),
    ("IPOT / ot.emd2 by sample", by_ipot, each_by_emd, None),
    ("IPOT / IPOT by sample", by_ipot, each_by_ipot, None),
)


def check(costs: dict[Solver, Tensor], scene: str) -> list[dict[str, Any]]:
    """That the sides compute the same: rows of TOLERANCE over the largest difference of costs.

    IPOT is held to the loop only where the loop converges; elsewhere, to being nearer to the exact minimum.

    Raises:
        ArithmeticError: They do not, so that their times mean nothing.
    """
    exact = costs[each_by_emd]
    pairs = {"log-Sinkhorn": (by_pot, each_by_sinkhorn), "IPOT by sample": (by_ipot, each_by_ipot)}
    if scene == "unrelated":
        pairs["IPOT / ot.sinkhorn"] = (by_ipot, each_by_sinkhorn)
    rows = []
    for name, (ours, plain) in pairs.items():
        difference = float((costs[ours] - costs[plain]).abs().max())
        ratio = TOLERANCE / max(difference, 1e-12)
        what = f"largest difference, {name}, {scene}"
        rows.append({**_row(what, None, None, 1.0), "ratio": ratio, "difference": difference})
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"{what}: {difference}, more than {TOLERANCE}")
    far, plain_far = (float((costs[solver] - exact).abs().mean()) for solver in (by_ipot, each_by_sinkhorn))
    if not far <= plain_far + TOLERANCE:
        raise ArithmeticError(f"IPOT is {far} from the exact minimum, the loop {plain_far}, {scene}")
    return rows


def measure() -> list[dict[str, Any]]:
    """Ratios of the fastest of several alternating rounds, in milliseconds per batch; then that results are equal.

    `from_exact` and `plain_from_exact` are the mean distances of the costs from the exact minimum.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, checks = [], []
    for scene, match in SCENES.items():
        inputs = problem(match)
        costs = {solve: solve(*inputs) for solve in SOLVERS}
        checks += check(costs, scene)
        seconds: dict[Solver, list[float]] = {solve: [] for solve in SOLVERS}
        for _ in range(ROUNDS):
            for solve, times in seconds.items():
                start = time.perf_counter()
                solve(*inputs)
                times.append(time.perf_counter() - start)
        for name, ours, plain, target in PAIRS:
            row = _row(f"{name}, {scene}", 1000 * min(seconds[ours]), 1000 * min(seconds[plain]), target)
            distances = [float((costs[s] - costs[each_by_emd]).abs().mean()) for s in (ours, plain)]
            rows.append(row | dict(zip(("from_exact", "plain_from_exact"), distances, strict=True)))
    return rows + checks


def _row(name: str, ours: float | None, plain: float | None, target: float | None) -> dict[str, Any]:
    ratio = plain / ours if ours and plain else None
    return {"name": name, "ours_ms": ours, "plain_ms": plain, "ratio": ratio, "target": target}


def main() -> int:
    """Prints the rows; 1 where one misses its target."""
    from benchmarks.speed.__main__ import table

    rows = measure()
    print(table(rows))
    return int(any(row["target"] is not None and row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
