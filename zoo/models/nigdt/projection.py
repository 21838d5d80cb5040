"""The distribution projection of NIGDT (Sec. 3.2, Eq. 8 and 9): prior and posterior are one network each."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import same

LEAST_DEVIATION = 1e-5  # softplus alone reaches zero, whose logarithm is infinite


class Gaussian(NamedTuple):
    """A diagonal Gaussian over maps, float32.

    Attributes:
        mean: μ, B z h w.
        deviation: σ, B z h w, above zero.
    """

    mean: Tensor
    deviation: Tensor

    def draw(self, noise: Tensor, k: float = 1.0) -> Tensor:
        """μ + k σ ε: a sample, or the mean where k is 0.

        Args:
            noise: ε, B z h w, standard normal.
            k: How far from the mean.
        """
        return self.mean + k * self.deviation * noise.to(self.mean)


def join(v_h: Tensor, t_e: Tensor, t_sent: Tensor) -> Tensor:
    """Eq. 8: h = [v_h, t_e, t_sent], the sentence at every place; v_h B c h w, t_e B d h w, t_sent B d."""
    return torch.cat([v_h, t_e, t_sent[:, :, None, None].expand(-1, -1, *v_h.shape[-2:])], 1)


class Projection(nn.Module):
    """Eq. 9: residual layers from h to a Gaussian.

    Args:
        channels_in: C of h.
        latent: Channels of z.
        width: Channels between the layers.
        blocks: How many residual layers.
        before: Residual layers on v_h alone ahead of them, as in the prior of TDANet.
        visual: Channels of v_h, the first ones of h; needed where there are such layers.
        spectral: Whether convolutions are under spectral normalization.

    Raises:
        UsageError: No layers, or layers on v_h of unknown width.
    """

    def __init__(
        self,
        channels_in: int = 768,
        latent: int = 256,
        width: int = 256,
        blocks: int = 5,
        before: int = 0,
        visual: int = 0,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise UsageError(f"a projection needs at least one residual layer, not {blocks}")
        if before and not 0 < visual <= channels_in:
            raise UsageError(f"layers on v_h need its channels, up to {channels_in}, not {visual}")
        self.visual = visual
        self.before = nn.Sequential(*(same(visual, visual, spectral=spectral) for _ in range(before)))
        widths = [channels_in, *[width] * (blocks - 1)]
        layers = [same(c, width, spectral=spectral) for c in widths[:-1]]
        layers.append(same(widths[-1], 2 * latent, width if blocks > 1 else 2 * latent, spectral))
        self.blocks = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Gaussian:
        """The distribution of z given h, B c h w."""
        if len(self.before):
            h = torch.cat([self.before(h[:, : self.visual]), h[:, self.visual :]], 1)
        mean, raw = self.blocks(h).float().chunk(2, 1)
        # Deviation: σ is a standard deviation, not a variance.
        return Gaussian(mean, F.softplus(raw) + LEAST_DEVIATION)
