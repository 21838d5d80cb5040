"""Pre-modulation (PM): style vectors and structure vectors of three scales to one offset for each style of G."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLU
EPS = 1e-5  # under the root of the variance
SCALES = 3


def level(l: int) -> int:  # noqa: E741
    """r(l), the scale that the style with index l (from 0) is made of: 1 coarse, 2 middle, 3 fine; as in pSp."""
    return 1 if l < 3 else 2 if l < 7 else 3


def spread(w: Tensor, styles: int) -> Tensor:
    """Vectors of the three scales (B 3 w, coarse to fine), each at the styles of its scale: B L w."""
    return w[:, [level(l) - 1 for l in range(styles)]]  # noqa: E741


def normalize(u: Tensor) -> Tensor:
    """û: mean 0 and variance 1 over the last axis.

    Written out, since `nn.InstanceNorm1d` refuses one position per channel, or takes samples for channels.
    """
    variance, mean = torch.var_mean(u, -1, correction=0, keepdim=True)
    return (u - mean) * (variance + EPS).rsqrt()


class StackedLinear(nn.Module):
    """L linear layers side by side, without a shared weight; each begins as an `nn.Linear` does.

    Args:
        count: L.
        features_in: Features of the input.
        features_out: Features of the output.
        bias: What all biases begin with; None draws them.
    """

    def __init__(self, count: int, features_in: int, features_out: int, bias: float | None = None) -> None:
        super().__init__()
        bound = features_in**-0.5
        self.weight = nn.Parameter(torch.empty(count, features_in, features_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, features_out).uniform_(-bound, bound))
        if bias is not None:
            nn.init.constant_(self.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """L B out, of L B in."""
        return torch.baddbmm(self.bias, x, self.weight)


class PreModulation(nn.Module):
    """One network for each style, all of them in one call:

        û = normalize(Dense(lrelu(Dense(w'_r)))), t = lrelu(Dense([w'_r ; S_r])), Δ_l = Dense_γ(t) ⊙ û + Dense_β(t).

    It is computed in float32, whatever the precision around it.

    Args:
        styles: L.
        width: Numbers in a vector.
    """

    def __init__(self, styles: int, width: int = 512) -> None:
        super().__init__()
        self.styles = styles
        self.first = StackedLinear(styles, width, width)
        self.second = StackedLinear(styles, width, width)
        self.trunk = StackedLinear(styles, 2 * width, width)
        self.gamma = StackedLinear(styles, width, width, bias=1.0)
        self.beta = StackedLinear(styles, width, width, bias=0.0)

    def forward(self, w: Tensor, S: Tensor) -> Tensor:
        """Δ, B L w.

        Args:
            w: w'_r, the style vectors of the three scales, B 3 w, coarse to fine.
            S: S_r, the structure vectors, B 3 w.
        """
        with torch.autocast(w.device.type, enabled=False):
            w_l, S_l = (spread(v.float(), self.styles).transpose(0, 1) for v in (w, S))
            u = self.second(F.leaky_relu(self.first(w_l), SLOPE))
            t = F.leaky_relu(self.trunk(torch.cat([w_l, S_l], -1)), SLOPE)
            Δ: Tensor = self.gamma(t) * normalize(u) + self.beta(t)
            return Δ.transpose(0, 1)
