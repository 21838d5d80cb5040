"""How CMA is optimized (Sec. 3.2): which parameters decay, and how the learning rate warms up and falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

COOLDOWN = 5  # the share of a training in which `cooldown` lets the learning rate fall: one in so many
EXEMPT = ("v_mask", "cls_token", "position_embeddings")


def parameter_groups(
    modules: Sequence[nn.Module], weight_decay: float, without: Sequence[Tensor] = ()
) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay; biases, norms, embeddings and [Vmask] do not (as ViLT has it).

    Args:
        modules: Whose parameters are sorted.
        weight_decay: Of the first group.
        without: Parameters that another optimizer has.
    """
    decayed: list[Tensor] = []
    exempt: list[Tensor] = []
    left_out = {id(p) for p in without}
    for module in modules:
        tables = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        for name, parameter in module.named_parameters():
            if id(parameter) in left_out:
                continue
            spared = parameter.ndim < 2 or id(parameter) in tables or name.endswith(EXEMPT)
            (exempt if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def warm_up(warmup: int, total: int | None = None, decay: str = "linear") -> Callable[[int], float]:
    """The factor of the learning rate by iteration: linear warm-up, then what `decay` says.

    A function and not an object: PyTorch would keep an object's `total` in the checkpoint, and a finished training that
    is made longer would go on at zero.

    Args:
        warmup: Iterations of warm-up.
        total: Iterations after which the factor is zero; None keeps it at 1.
        decay: `linear`, from the end of the warm-up on; `cooldown`, in the last fifth alone.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if total is None:
            return 1.0
        start = warmup if decay == "linear" else max(warmup, total - total // COOLDOWN)
        return min(1.0, max(0.0, (total - step) / max(1, total - start)))

    return factor
