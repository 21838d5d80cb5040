"""Muon (Jordan et al. 2024) for matrices and kernels: each update is the nearest orthogonal matrix to the momentum.

`torch.optim.Muon` refuses kernels, and timm's, which takes them, brings torchvision. On matrices this is torch's, bit
for bit; a kernel is the matrix of its output channels by all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.775, 2.0315)
STEPS = 5
EPSILON = 1e-7
RMS = 0.2  # of an update of AdamW, so that either takes learning rates of the same size (Liu et al. 2025)


def orthogonal(matrix: Tensor) -> Tensor:
    """U S' Vᵀ of a matrix U S Vᵀ, m n, with S' between about 0.7 and 1.2: five quintic Newton-Schulz steps in bf16."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if tall else x
    x.div_(x.norm().clamp(min=EPSILON))
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(Optimizer):
    """Nesterov momentum, made orthogonal, with decoupled weight decay.

    Args:
        parameters: Matrices and kernels: tensors of two or more axes.
        lr: Of an update whose root mean square is AdamW's.
        weight_decay: Decoupled.
        momentum: Of the moving average of gradients.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step along the gradients that are there; returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["weight_decay"], group["momentum"])
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float, momentum: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(average, momentum).flatten(1)
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(orthogonal(matrix).reshape(parameter.shape), alpha=-lr * RMS * max(matrix.shape) ** 0.5)
