"""Sampling with latent blending (Eq. 7 and 8): the hole is denoised, the known latents are put back at every step.

The loop knows no network: a closure predicts the noise, with whatever it was conditioned on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.errors import UsageError, unknown_name
from zoo.keyed import Noise
from zoo.models.ecdm.diffusion import MULTISTEP, SOLVERS, SPACINGS, NoiseSchedule, clean_of, q_sample

Predictor = Callable[[Tensor, Tensor], Tensor]
DRAWS = ("fresh", "fixed")


def halves(empty: Tensor, caption: Tensor, scale: float) -> Tensor:
    """What conditions `guided`'s network: encoded empty prompts, then captions; captions alone where `scale` is 1.

    Args:
        empty: The encoded empty prompts, B T c.
        caption: The encoded captions, B T c.
        scale: The guidance scale.
    """
    return caption if scale == 1.0 else torch.cat([empty, caption])


def guided(predict: Predictor, scale: float) -> Predictor:
    """Classifier-free guidance, both halves in one call of the network: e = e_u + s (e_c - e_u), in float32.

    Args:
        predict: Predicts the noise of 2B latents, those under the empty prompt first (see `halves`); of B where
            `scale` is 1, which asks nothing of the first half.
        scale: The guidance scale, s.
    """
    if scale == 1.0:
        return predict

    def both(noisy: Tensor, time: Tensor) -> Tensor:
        without, under = predict(torch.cat([noisy, noisy]), torch.cat([time, time])).float().chunk(2)
        return without + scale * (under - without)

    return both


def blend(known: Tensor, unknown: Tensor, mask: Tensor) -> Tensor:
    """(1 - m) known + m unknown; cells of mask 0 are `known` to the bit, whatever the other holds.

    Args:
        known: B C h w.
        unknown: B C h w.
        mask: B 1 h w in [0, 1], 1 = hole.
    """
    return torch.where(mask > 0, (1.0 - mask) * known + mask * unknown, known)


@dataclass(frozen=True)
class Sampler:
    """The sampling loop: entry blend, prediction, solver step, and a last blend with the clean latents.

    A multistep solver reads earlier predictions, and blending would make that history contradict the latents. There
    the known cells keep one noise for all steps, and their predictions are replaced by the known latents: the solver
    then follows them exactly, and its history is that of what the network was shown.

    Args:
        steps: How many steps, and calls of the predictor.
        solver: One of `SOLVERS`; with another than `ddim` the numbers are others.
        eta: Share of the ancestral noise that a DDIM step adds.
        spacing: One of `SPACINGS`; `trailing` begins at the last time step, the nearest to pure noise.
        entry: Whether the known latents are put back before each prediction.
        final: Whether the clean known latents are put back after the last step.
        draw: The noise of the known latents: `fresh` at each step, or `fixed`, that of the start.
        clip: Clamps estimates of the clean latents to [-clip, clip]; 0 leaves them.
        skip: Leaves out this share of the steps at the beginning and starts from the noised known latents.
        schedule: The noise schedule of the predictor.

    Raises:
        UsageError: A name or number that does not exist or do not go together.
    """

    steps: int = 50
    solver: str = "ddim"
    eta: float = 0.0
    spacing: str = "leading"
    entry: bool = True
    final: bool = True
    draw: str = "fresh"
    clip: float = 0.0
    skip: float = 0.0
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, list(SOLVERS))
        if self.draw not in DRAWS:
            raise unknown_name("draw", self.draw, list(DRAWS))
        if self.spacing not in SPACINGS:
            raise unknown_name("spacing", self.spacing, list(SPACINGS))
        self.schedule.check_steps(self.steps, self.spacing)
        if self.eta < 0 or self.clip < 0 or not 0 <= self.skip < 1:
            raise UsageError("eta and clip must be at least 0, skip in [0, 1)", f"{self.eta}, {self.clip}, {self.skip}")
        if self.eta > 0 and self.multistep:
            raise UsageError(f"'{self.solver}' adds no noise, so that eta must be 0", remedy="solver ddim, or eta 0")

    @property
    def multistep(self) -> bool:
        """Whether a step reads earlier predictions."""
        return self.solver in MULTISTEP

    @torch.no_grad()
    def __call__(self, predict: Predictor, known: Tensor, mask: Tensor, noise: Noise) -> Tensor:
        """Completes latents; float32 whatever the precision of the predictor.

        Args:
            predict: Predicts the noise in B C h w latents at the time steps of B int64.
            known: The latents of the known image, B C h w.
            mask: 1 = hole, B 1 h w in [0, 1].
            noise: One generator per sample; the result does not depend on the batch.

        Returns:
            The completed latents, B C h w float32; without a hole those that are known, without a call.
        """
        known, mask = known.float(), mask.float()
        if self.final and not bool(mask.any()):
            return known
        scheduler = self.schedule.scheduler(self.solver, self.clip, self.spacing)
        scheduler.set_timesteps(self.steps)
        first = int(self.skip * self.steps)
        if self.multistep:
            scheduler.set_begin_index(first)
        times = scheduler.timesteps[first:]
        moved = times.to(known.device)  # once: a copy per step would wait for the device
        start = self._normal(noise, "start", known)
        latents = start if not first else q_sample(known, self._alpha(times[0]), start)
        fresh = self._several(noise, "known", len(times), known, self.entry and not self._fixed)
        ancestral = self._several(noise, "eta", len(times), known, self.eta > 0)
        alphas = self.schedule.alphas()[times].tolist()
        for index, (time, alpha) in enumerate(zip(times.tolist(), alphas, strict=True)):
            # Deviation: the known latents are put back before each prediction, and without noise after the last step.
            if self.entry:
                latents = blend(q_sample(known, alpha, fresh[index] if fresh else start), latents, mask)
            predicted = predict(latents, moved[index].expand(len(latents))).float()
            if self.multistep:
                predicted = self._consistent(latents, alpha, predicted, known, mask)
            # Deviation: the reverse step is that of DDIM, without noise of its own.
            options: dict[str, Any] = {"eta": self.eta, "variance_noise": ancestral[index]} if ancestral else {}
            latents = scheduler.step(predicted, time, latents, return_dict=False, **options)[0]
        return blend(known, latents, mask) if self.final else latents

    def _consistent(self, latents: Tensor, alpha: float, predicted: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """The prediction for a multistep solver: its clean estimate clamped, and the known one where that is known."""
        clean = clean_of(latents, alpha, predicted)
        clean = clean.clamp(-self.clip, self.clip) if self.clip > 0 else clean
        clean = blend(known, clean, mask) if self.entry else clean
        noise: Tensor = (latents - clean * alpha**0.5) / (1.0 - alpha) ** 0.5
        return noise

    @property
    def _fixed(self) -> bool:
        return self.multistep or self.draw == "fixed"

    def _alpha(self, time: Tensor) -> float:
        return float(self.schedule.alphas()[time])

    @staticmethod
    def _normal(noise: Noise, purpose: str, like: Tensor) -> Tensor:
        return noise.normal(purpose, like.shape[1:], like.device)

    @staticmethod
    def _several(noise: Noise, purpose: str, count: int, like: Tensor, wanted: bool) -> Sequence[Tensor]:
        """Noise for `count` steps, of one generator per sample: one per step takes 20 times as long to set up."""
        return noise.normal(purpose, (count, *like.shape[1:]), like.device).unbind(1) if wanted else ()
