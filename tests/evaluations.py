"""How often networks are evaluated: what sampling costs, whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Evaluations:
    """Calls of a network.

    Attributes:
        calls: How often `forward` ran.
        samples: The sum of the batch sizes of those calls; 0 where no tensor was passed.
    """

    calls: int = 0
    samples: int = 0


@contextmanager
def evaluations(**networks: nn.Module) -> Iterator[dict[str, Evaluations]]:
    """Counts the calls of networks inside the block, by the names they are given.

    Args:
        **networks: Modules; only calls of the module itself count, not of its other methods.
    """
    counts = {name: Evaluations() for name in networks}

    def counter(count: Evaluations) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            count.calls += 1
            count.samples += next(
                (len(x) for x in [*arguments, *named.values()] if isinstance(x, Tensor) and x.dim()), 0
            )

        return hook

    handles = [m.register_forward_pre_hook(counter(counts[name]), with_kwargs=True) for name, m in networks.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()
