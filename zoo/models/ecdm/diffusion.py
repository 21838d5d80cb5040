"""The diffusion process of Stable Diffusion: its noise schedule, and the solvers that walk it backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from zoo.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    Scheduler: TypeAlias = DDIMScheduler | DPMSolverMultistepScheduler | UniPCMultistepScheduler


SOLVERS = ("ddim", "unipc", "dpmsolver++")
"""The method's own, and two of second order: another trajectory, with known cells on one noise, so other numbers."""
MULTISTEP = ("unipc", "dpmsolver++")
"""The solvers a step of which reads the predictions of earlier ones."""
SPACINGS = ("leading", "trailing")
"""How sampling steps are laid over time steps: 901, 801, ... 1 for ten of 1,000, or 999, 899, ... 99.

Where the steps do not divide 1,000, `trailing` rounds, and a step of DDIM ends up to one time step off the next.
"""


class NoiseSchedule(NamedTuple):
    """The "scaled linear" noise schedule: the square root of beta rises linearly.

    diffusers' schedulers have other defaults (linear beta); everything here passes these.

    Attributes:
        steps: Time steps of training, T.
        start: beta of the first.
        end: beta of the last.
    """

    steps: int = 1000
    start: float = 0.00085
    end: float = 0.012

    def alphas(self) -> Tensor:
        """The cumulative products of 1 - beta, T values, float32, to the bit those of diffusers' schedulers."""
        root = torch.linspace(self.start**0.5, self.end**0.5, self.steps, dtype=torch.float32)
        return torch.cumprod(1.0 - root**2, dim=0)

    def scheduler(self, solver: str = "ddim", clip: float = 0.0, spacing: str = "leading") -> Scheduler:
        """A scheduler of diffusers with Stable Diffusion's settings; for DDIM those of the original sampler.

        Args:
            solver: One of `SOLVERS`.
            clip: DDIM clamps its estimates of the clean latents to [-clip, clip]; 0 leaves them. The other schedulers
                cannot: `zoo.models.ecdm.sampler` clamps for them.
            spacing: One of `SPACINGS`.

        Raises:
            UsageError: No such solver or spacing.
        """
        if spacing not in SPACINGS:
            raise unknown_name("spacing", spacing, list(SPACINGS))
        if solver not in SOLVERS:
            raise unknown_name("solver", solver, list(SOLVERS))
        common: dict[str, Any] = {
            "num_train_timesteps": self.steps,
            "beta_start": self.start,
            "beta_end": self.end,
            "beta_schedule": "scaled_linear",
            "prediction_type": "epsilon",
            "timestep_spacing": spacing,
            "steps_offset": 1,
        }
        if solver == "ddim":
            from diffusers.schedulers.scheduling_ddim import DDIMScheduler

            clipping = {"clip_sample": clip > 0, "clip_sample_range": clip or 1.0}
            ddim: Scheduler = DDIMScheduler(**common, **clipping, set_alpha_to_one=False)
            return ddim
        if solver == "unipc":
            from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

            unipc: Scheduler = UniPCMultistepScheduler(**common, solver_order=2)
            return unipc
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

        dpm: Scheduler = DPMSolverMultistepScheduler(**common, solver_order=2, algorithm_type="dpmsolver++")
        return dpm

    def check_steps(self, steps: int, spacing: str = "leading") -> None:
        """Refuses a number of sampling steps that the schedule does not have, or that would begin far from noise.

        `leading` takes every (T // steps)-th time step from the first on: of 1000, 334 steps end at 667, where the
        networks expect to see an image, and sampling begins with pure noise.

        Raises:
            UsageError: Less than 1 or more than T - 1 (with an offset of 1, T steps would begin at T, which is none);
                or `leading` ones of which less than nine tenths of the schedule are spanned.
        """
        if not 1 <= steps < self.steps:
            raise UsageError(f"{steps} sampling steps: there are 1 to {self.steps - 1}")
        stride = self.steps // steps
        if spacing == "leading" and steps * stride < 0.9 * self.steps:
            what = f"{steps} steps with spacing 'leading' begin at time step {(steps - 1) * stride + 1} of {self.steps}"
            raise UsageError(what, remedy=f"{self.steps // (stride + 1)} steps, or spacing trailing")


def _weights(alpha: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
    """sqrt(alpha_t) and sqrt(1 - alpha_t), those of a batch in a shape that multiplies latents."""
    if isinstance(alpha, Tensor):
        alpha = alpha.reshape(-1, 1, 1, 1)
    return alpha**0.5, (1.0 - alpha) ** 0.5


def q_sample(clean: Tensor, alpha: Tensor | float, noise: Tensor) -> Tensor:
    """q(z_t | z_0) = sqrt(alpha_t) z_0 + sqrt(1 - alpha_t) noise.

    Args:
        clean: z_0, B C h w.
        alpha: The cumulative alpha at t: a number, or B of them (`alphas[t]`).
        noise: Standard normal, B C h w.
    """
    signal, spread = _weights(alpha)
    return clean * signal + noise * spread


def clean_of(noisy: Tensor, alpha: Tensor | float, noise: Tensor) -> Tensor:
    """The estimate of z_0 that a prediction of the noise amounts to; the inverse of `q_sample` (shapes as there)."""
    signal, spread = _weights(alpha)
    return (noisy - noise * spread) / signal


def velocity(clean: Tensor, alpha: Tensor | float, noise: Tensor) -> Tensor:
    """sqrt(alpha_t) noise - sqrt(1 - alpha_t) z_0 (Salimans & Ho 2022, Appendix D; shapes as of `q_sample`)."""
    signal, spread = _weights(alpha)
    return noise * signal - clean * spread


def noise_from(noisy: Tensor, alpha: Tensor | float, velocity: Tensor) -> Tensor:
    """The prediction of the noise that one of the velocity amounts to (shapes as of `q_sample`)."""
    signal, spread = _weights(alpha)
    return velocity * signal + noisy * spread
