"""The losses of ECDM (Huang et al. 2024, Sec. 3 and 4), one function per equation, in the letters of the paper.

All is computed in float32, whatever the precision of the networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError, unknown_name

TAPS = ("decoder", "residual")
GATES = ("sample", "batch")


def L_simple(ε: Tensor, ε_θ: Tensor) -> Tensor:
    """Eq. 5: mean (ε - ε_θ)² over all latent elements, of hole and known alike.

    Args:
        ε: B C h w, the noise that was added; the velocity where the networks predict that.
        ε_θ: B C h w, what the UNet predicts with the student's residuals.
    """
    return F.mse_loss(ε_θ.float(), ε.float())


def L_soft(
    f_control: Sequence[Tensor], f_inpaint: Sequence[Tensor], taught: Tensor | None = None, detached: bool = False
) -> Tensor:
    """Eq. 9: ‖f_control - f_inpaint‖₁, the mean over the elements of each feature, and then over features.

    Args:
        f_control: Features under the teacher, B C h w each: of the decoder's output blocks (`tap` decoder), or the
            residuals (`tap` residual). They get no gradient.
        f_inpaint: The same under the student.
        taught: B, bool: the samples that count, as `timesteps` draws them; the others are zeros of the mean, so that
            its expectation is the same for both gates. None: all.
        detached: Whether the value is without gradient, as in the released code, which thereby only logs it.

    Raises:
        UsageError: Another number of features under the teacher than under the student.
    """
    if len(f_control) != len(f_inpaint):
        raise UsageError(f"{len(f_control)} features of the teacher, {len(f_inpaint)} of the student")
    terms = []
    # Deviation: Eq. 9 compares features of the frozen decoder's output blocks under either branch's residuals.
    for control, inpaint in zip(f_control, f_inpaint, strict=True):
        distance = (control.detach().float() - inpaint.float()).abs()
        # Deviation: the L1 norm of Eq. 9 is a mean over elements, and over features.
        terms.append(distance.mean() if taught is None else (distance.mean((1, 2, 3)) * taught).mean())
    soft = torch.stack(terms).mean()
    return soft.detach() if detached else soft


def L_total(L_simple: Tensor, L_soft: Tensor, λ: float = 0.1) -> Tensor:
    """Eq. 12: L_simple + λ L_soft."""
    return L_simple + λ * L_soft


def timesteps(
    batch: int,
    T: int = 1000,
    below: int = 1000,
    gate: str = "sample",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    taught: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Time steps, B integers uniform in [0, T), and which of the samples the teacher teaches, B bool: those `below`.

    The paper says nothing of `below`; the released code has it.

    Args:
        batch: B.
        T: Steps of the noise schedule.
        below: The teacher teaches at t < `below`; T or more: always, 0: never.
        gate: What is decided for each: `sample`; or `batch`, as in the released code: with probability below / T all
            samples are taught, and else none.
        generator: Of that device; None is the global one.
        device: Where to draw.
        taught: For gate `batch`, what was decided for all of a batch of which these are a part; None decides it here.

    Raises:
        UsageError: An unknown gate, or a negative `below`.
    """
    if gate not in GATES:
        raise unknown_name("sail_gate", gate, list(GATES))
    if below < 0:
        raise UsageError(f"sail_max_timestep is {below}", remedy=f"give 0 (never) to {T} (always)")
    low, high = 0, T
    if gate == "batch" and 0 < below < T:
        if taught is None:
            taught = torch.rand((), generator=generator, device=device).item() * T < below
        low, high = (0, below) if taught else (below, T)
    t = torch.randint(low, high, (batch,), generator=generator, device=device)
    return t, t < below
