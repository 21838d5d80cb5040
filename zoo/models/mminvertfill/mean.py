"""Soft-update mean latent (SML): a code of the generator's domain that moves slowly from one mean to the next."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.errors import UsageError, unknown_name

MODES = ("soft", "static", "off")
Sample = Callable[[int], Tensor]


class MeanLatent(nn.Module):
    """The online mean w̄_o, which image generation and the fidelity loss use, and the target w̄_t it follows.

    All of it is in buffers and so in checkpoints. `sample(n)`, given by the caller, returns n codes f(z), n x w. To
    make all processes agree, and a resumed training go on as it would have, key its z by `draws`.

    Args:
        width: Numbers in a code.
        mode: `soft`; `static`, the mean of many samples for ever, as in pSp; `off`, zero.
        tau: τ, the share of the way to w̄_t that w̄_o goes in one step.
        n: Samples of one w̄_t; one is a single identity, ten thousand hardly differ from `static`.
        eps: w̄_t is drawn anew when w̄_o is this share of the first distance away.
        first: Samples of the w̄_o that training begins with.

    Attributes:
        online: w̄_o, w numbers.
        target: w̄_t, w numbers.
        distance: From w̄_o to w̄_t when w̄_t was drawn.
        draws: How many means have been drawn.

    Raises:
        UsageError: An unknown mode, or numbers out of range.
    """

    online: Tensor
    target: Tensor
    distance: Tensor
    draws: Tensor

    def __init__(
        self,
        width: int = 512,
        mode: str = "soft",
        tau: float = 1e-3,
        n: int = 16,
        eps: float = 0.05,
        first: int = 100_000,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise unknown_name("mean latent", mode, list(MODES))
        if not (0.0 <= tau <= 1.0 and 0.0 < eps < 1.0 and n >= 1 and first >= 1):
            raise UsageError(
                f"the mean latent cannot work with tau {tau:g}, n {n}, eps {eps:g}, first {first}",
                remedy="tau in [0, 1], eps in (0, 1), n and first at least 1",
            )
        self.mode, self.tau, self.n, self.eps, self.first = mode, tau, n, eps, first
        self.register_buffer("online", torch.zeros(width))
        self.register_buffer("target", torch.zeros(width))
        self.register_buffer("distance", torch.zeros(()))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def start(self, sample: Sample) -> None:
        """Draws both means, before training; nothing with `off`."""
        if self.mode == "off":
            return
        self.draws.zero_()
        self._draw(self.online, self.first, sample)
        if self.mode == "soft":
            self._new_target(sample)

    @torch.no_grad()
    def step(self, sample: Sample) -> None:
        """w̄_o ← (1 - τ) w̄_o + τ w̄_t, and a new w̄_t where it is reached; nothing with `static` and `off`.

        Raises:
            UsageError: Without `start`, or a state that holds one.
        """
        if self.mode != "soft":
            return
        if int(self.draws) == 0:
            raise UsageError("the mean latent has not been started", remedy="call start(sample) before training")
        self.online.lerp_(self.target, self.tau)
        # Deviation: a new target mean is drawn when little of the distance is left, since equality is never reached.
        if bool((self.online - self.target).norm() <= self.eps * self.distance):
            self._new_target(sample)

    def _new_target(self, sample: Sample) -> None:
        self._draw(self.target, self.n, sample)
        self.distance.copy_((self.online - self.target).norm())

    def _draw(self, mean: Tensor, count: int, sample: Sample) -> None:
        mean.copy_(sample(count).float().mean(0))
        self.draws += 1
