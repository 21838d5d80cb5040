"""The high-passed spectrum of the hint (Sec. 4.2, Eq. 11): amplitude and phase, which the frequency tokens are made of.

All is float32, since half precision has no general FFT, and without gradient, since the hint is data and the gradients
of amplitude and phase are not finite at 0. Bins keep the FFT's own order, frequency 0 in the corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import UsageError, unknown_name

OFFICIAL = "official"  # the radius of the released code, which grows with the image: 16 bins at 512
WINDOWS = ("square", "disc")
SCOPES = ("sample", "batch")
AMPLITUDES = ("linear", "log1p")
PHASES = ("radians", "over_pi", "sincos")
FILLS = ("neg1", "zero", "mean")
ROUNDING = 1e-6  # of the norm of an image: what float32 leaves in a bin that holds nothing


@dataclass(frozen=True)
class SpectrumOptions:
    """How the spectrum is made; the defaults are the paper's where it says something.

    Attributes:
        radius: Half the side of the window of low frequencies that are removed, in bins; 0 removes none, `official` is
            (H + W) // 64.
        window: `square`, rows and columns [-radius, radius); or `disc`, distances up to the radius.
        norm_scope: What the amplitude is scaled over: each `sample`, or the whole `batch` as in the released code,
            where the tokens of an image depend on the images beside it.
        amp: `linear`, or `log1p`: log(1 + amplitude), so that a few strong bins do not press all others to -1.
        phase: `radians` in (-π, π]; `over_pi` in (-1, 1]; `sincos`, twice as many channels, without a jump at π.
        hole_fill: What the hole is set to before: `neg1`, as in the hint; `zero`; or `mean`, of each sample's known
            pixels. With -1 the spectrum is largely that of the mask.

    Raises:
        UsageError: A negative radius, or an unknown name.
    """

    radius: int | str = 4
    window: str = "square"
    norm_scope: str = "sample"
    amp: str = "linear"
    phase: str = "radians"
    hole_fill: str = "neg1"

    def __post_init__(self) -> None:
        choices = {
            "window": WINDOWS, "norm_scope": SCOPES, "amp": AMPLITUDES, "phase": PHASES, "hole_fill": FILLS
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"acda_{name}", str(getattr(self, name)), list(known))
        if isinstance(self.radius, str) and self.radius != OFFICIAL:
            raise unknown_name("acda_radius", self.radius, [OFFICIAL])
        if isinstance(self.radius, int) and self.radius < 0:
            raise UsageError(f"acda_radius is {self.radius}", remedy="give a number of bins, 0 to remove none")

    @property
    def channels(self) -> int:
        """Of the map: 3 of amplitude, and 3 of phase or 6 of its sine and cosine."""
        return 9 if self.phase == "sincos" else 6


def low_frequencies(
    height: int, width: int, radius: int | str = 4, window: str = "square", device: torch.device | str = "cpu"
) -> Tensor:
    """Which bins the high-pass filter removes: H W, bool, frequency 0 in the corner.

    Args:
        height: H.
        width: W.
        radius: As in `SpectrumOptions`.
        window: As in `SpectrumOptions`.
        device: Where to put it.
    """
    R = (height + width) // 64 if isinstance(radius, str) else radius
    rows, columns = (torch.arange(n, device=device) for n in (height, width))
    v, u = ((k + n // 2) % n - n // 2 for k, n in ((rows, height), (columns, width)))
    # Deviation: the high-pass filter of radius 4 removes a square of bins and not a disc.
    if window == "square":
        return ((v >= -R) & (v < R))[:, None] & ((u >= -R) & (u < R))
    return (v.square()[:, None] + u.square() <= R**2) & (R > 0)


def without_hole(hint: Tensor, fill: str = "neg1") -> Tensor:
    """The hint's three colours, float32, with the hole set to what `hole_fill` names.

    Args:
        hint: B 3 H W in [0, 1] with -1 in the hole, or B 4 H W whose fourth channel is the mask.
        fill: As in `SpectrumOptions`.
    """
    rgb = hint[:, :3].float()
    hole = hint[:, 3:4] > 0.5 if hint.shape[1] == 4 else rgb.amax(1, keepdim=True) < 0
    if fill == "mean":
        known = (~hole).sum((2, 3), keepdim=True).clamp_min(1)
        return torch.where(hole, torch.where(hole, 0.0, rgb).sum((2, 3), keepdim=True) / known, rgb)
    return torch.where(hole, -1.0 if fill == "neg1" else 0.0, rgb)


def high_passed(image: Tensor, radius: int | str = 4, window: str = "square") -> Tensor:
    """I_h: the spectrum without low frequencies, B C H W, complex64; removed bins are exactly 0.

    Args:
        image: B C H W, real.
        radius: As in `SpectrumOptions`.
        window: As in `SpectrumOptions`.
    """
    with torch.autocast(image.device.type, enabled=False):
        x = image.float()
        X = torch.fft.fft2(x)
        # Bins that hold rounding errors alone would be amplified where nothing else is left, and have random phases.
        nothing = X.abs() <= ROUNDING * torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        low = low_frequencies(image.shape[-2], image.shape[-1], radius, window, image.device)
        # A product with 0 would leave negative zeros, the phase of which is π.
        return torch.where(low | nothing, torch.zeros((), dtype=X.dtype, device=X.device), X)


@torch.no_grad()
def frequency_map(hint: Tensor, options: SpectrumOptions | None = None) -> Tensor:
    """Eq. 11: Norm(amplitude) in [-1, 1] and phase of the high-passed hint, B 6 H W, or B 9 H W with `sincos`; float32.

    Where all amplitudes are equal, as of a constant image, they are -1.

    Args:
        hint: B 3 H W in [0, 1] with -1 in the hole, or B 4 H W whose fourth channel is the mask.
        options: The defaults where None.
    """
    o = options or SpectrumOptions()
    I_h = high_passed(without_hole(hint, o.hole_fill), o.radius, o.window)
    A = I_h.abs()
    A = A.log1p() if o.amp == "log1p" else A
    axes = (1, 2, 3) if o.norm_scope == "sample" else (0, 1, 2, 3)
    low, high = A.amin(axes, keepdim=True), A.amax(axes, keepdim=True)
    A = 2 * (A - low) / (high - low).clamp_min(torch.finfo(A.dtype).tiny) - 1
    # The imaginary part of a real bin is 0 of either sign, and only +0 keeps negative bins at π; a removed bin is at 0.
    φ = torch.atan2(I_h.imag + 0.0, I_h.real)
    # Deviation: amplitude and phase are concatenated, as the text says, and not added as Eq. 11 prints.
    if o.phase == "sincos":
        return torch.cat([A, φ.sin(), φ.cos()], 1)
    return torch.cat([A, φ / torch.pi if o.phase == "over_pi" else φ], 1)
