"""Adaptive contextual bottlenecks (Sec. 3.2.1, Eq. 1) and what Table 8 puts in their place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError, unknown_name
from zoo.models.mminvertfill.backbone import SLOPE, make_norm

KINDS = ("acb", "res", "aot")
VARIANTS = ("paper", "code")
RATES = (1, 2, 3, 4)


class Dilated(nn.Conv2d):
    """ReLU of a 3x3 convolution of rate r over a mirrored border, B C H W to B C' H W."""

    def __init__(self, channels_in: int, channels_out: int, rate: int) -> None:
        super().__init__(channels_in, channels_out, 3, dilation=rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        # A border wider than the map cannot be mirrored.
        mode = "reflect" if self.rate < min(x.shape[-2:]) else "replicate"
        return F.relu(super().forward(F.pad(x, [self.rate] * 4, mode=mode)))


class ACB(nn.Module):
    """Eq. 1: f' = Σ_r α_r ⊙ f_r + f over dilated paths, weighted per channel by features and by the gate of the hole.

    α_r = softmax over r of a_r in (0, 1): with four paths it stays within [0.109, 0.475], so that no path is ever off.

    Args:
        channels: C.
        rates: R, the dilations.
        tau: Temperature of the softmax; a smaller one widens the range of α.
    """

    def __init__(self, channels: int, rates: Sequence[int] = RATES, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        self.paths = nn.ModuleList(Dilated(channels, channels, r) for r in rates)
        # One 1x1 convolution of [f_r; g; g_prev], in two parts since only the first differs between paths.
        self.mix_path = nn.Conv2d(channels, channels, 1, bias=False)
        self.mix_gate = nn.Conv2d(2 * channels, channels, 1)
        self.fc = nn.Linear(channels, channels)

    def forward(self, f: Tensor, g_prev: Tensor) -> tuple[Tensor, Tensor]:
        """f' and g, B C H W, of f and the gate before, B C H W."""
        g = self.gate(f).sigmoid()
        paths = [path(f) for path in self.paths]
        α = self.weights(paths, g, g_prev)
        return sum((w[:, :, None, None] * f_r for w, f_r in zip(α, paths, strict=True)), f), g

    def weights(self, paths: Sequence[Tensor], g: Tensor, g_prev: Tensor) -> Tensor:
        """α, R B C, that adds up to one over R."""
        shared = self.mix_gate(torch.cat([g, g_prev], 1))
        mixed = [self.mix_path(f_r) + shared for f_r in paths]
        a = [(self.fc(g_r.mean((2, 3))) + self.fc(g_r.amax((2, 3)))).sigmoid() for g_r in mixed]
        return (torch.stack(a) / self.tau).softmax(0)


class CodeACB(nn.Module):
    """The form in MMT's published code: one weight per path and sample, gated residual, normalization.

    Args:
        channels: C.
        rates: R, the dilations.
        norm: As of `make_norm`.
    """

    def __init__(self, channels: int, rates: Sequence[int] = RATES, norm: str = "bn") -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        self.paths = nn.ModuleList(Dilated(channels, channels, r) for r in rates)
        self.fuse = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.W = nn.Parameter(torch.empty(channels, len(rates)))
        nn.init.xavier_uniform_(self.W)
        self.norm = make_norm(norm, channels)

    def forward(self, f: Tensor, g_prev: Tensor) -> tuple[Tensor, Tensor]:
        """f' and g, B C H W, of f and the gate before, B C H W."""
        raw = self.gate(f)
        u = self.fuse(torch.cat([f, raw, g_prev], 1)).mean((2, 3))
        w = (u @ self.W).tanh().softmax(1)
        g = raw.sigmoid()
        mixed = sum(w[:, r, None, None, None] * path(f) for r, path in enumerate(self.paths))
        return F.leaky_relu(self.norm(f * (1 - g) + g * mixed), SLOPE), g


class Res(nn.Module):
    """A residual block (RES of Table 8), x + norm(conv(relu(norm(conv(x))))); it passes the gate on.

    Args:
        channels: C.
        paths: 1, or as many as an ACB has: the features are given to as many such branches, and their mean is added.
        norm: As of `make_norm`.
    """

    def __init__(self, channels: int, paths: int = 1, norm: str = "gn") -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), make_norm(norm, channels), nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), make_norm(norm, channels),
            )
            for _ in range(paths)
        )  # fmt: skip

    def forward(self, f: Tensor, g_prev: Tensor) -> tuple[Tensor, Tensor]:
        return f + torch.stack([path(f) for path in self.paths]).mean(0), g_prev


class AOT(nn.Module):
    """An AOT block (Zeng et al. 2022; AOT of Table 8): dilated paths, merged, gated against x; it passes the gate on.

    Args:
        channels: C.
        rates: R, the dilations.
        path: Channels of each path: C / |R|, or C where there are to be as many as in an ACB.
    """

    def __init__(self, channels: int, rates: Sequence[int] = RATES, path: int | None = None) -> None:
        super().__init__()
        path = path or max(1, channels // len(rates))
        self.paths = nn.ModuleList(Dilated(channels, path, r) for r in rates)
        self.fuse = nn.Conv2d(path * len(rates), channels, 3, padding=1)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, f: Tensor, g_prev: Tensor) -> tuple[Tensor, Tensor]:
        g = self.gate(f).sigmoid()
        return f * g + self.fuse(torch.cat([path(f) for path in self.paths], 1)) * (1 - g), g_prev


class Bottleneck(nn.ModuleList):
    """Blocks one after another, which pass on features and gate.

    Args:
        channels: C.
        kind: `acb`, `res` or `aot`.
        n_blocks: How many (Table 8: 2, 4, 6, 8).
        rates: R, the dilations.
        variant: Of ACB, `paper` or `code`.
        tau: Temperature of ACB's softmax (`paper`).
        matched: Whether `res` and `aot` get the channels of the four paths of an ACB.
        norm: As of `make_norm`.

    Raises:
        UsageError: An unknown kind or variant, no blocks or no rates.
    """

    def __init__(
        self, channels: int, kind: str = "acb", n_blocks: int = 8, rates: Sequence[int] = RATES,
        variant: str = "paper", tau: float = 1.0, matched: bool = False, norm: str = "gn",
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise unknown_name("bottleneck", kind, list(KINDS))
        if variant not in VARIANTS:
            raise unknown_name("acb_variant", variant, list(VARIANTS))
        if n_blocks < 1 or not rates or min(rates) < 1 or tau <= 0:
            raise UsageError(f"a bottleneck of {n_blocks} blocks, rates {list(rates)} and temperature {tau} is none")

        def block() -> nn.Module:
            if kind == "res":
                return Res(channels, len(rates) if matched else 1, norm)
            if kind == "aot":
                return AOT(channels, rates, channels if matched else None)
            return ACB(channels, rates, tau) if variant == "paper" else CodeACB(channels, rates, norm)

        super().__init__(block() for _ in range(n_blocks))

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        """f after the last block, B C H W, of f⁰ and g⁰, B C H W."""
        for block in self:
            f, g = block(f, g)
        return f
