"""Gated mask-aware attention (Sec. 3.2.2, Fig. 5): attention over patches that trusts hole cells less.

Letters: `x` features of the inpainting branch, B C H W; `a` those of the auxiliary branches, concatenated, B A H W.
Tokens are patches of p x p cells, B N d with N = H W / p². No N x N matrix is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError, unknown_name
from zoo.models.mminvertfill.denormalization import denormalization, in_float

GATES = ("attention", "post", "value", "none")
ORDERS = ("conv", "adn")
FEED_FORWARDS = ("gated", "mmt")
PATCHES = (2, 4)
FLOOR = 1e-6  # keeps log g finite
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, log_g: Tensor | None, scale: float) -> Tensor:
    """softmax_j(scale · q_i·k_j + log g_j) v, B N d', without a matrix of N x N numbers.

    The gate is part of the dot product, as a mask of floats would keep the fused kernel from being used: k gets
    log g / scale as one more dimension, and q a one. In half precision it is split into two, which add up to it.

    Args:
        q: B N d.
        k: B N d.
        v: B N d'.
        log_g: B N in float32, or None for none.
        scale: Of the dot products.
    """
    width = v.shape[-1]
    if log_g is not None:
        bias = (log_g / scale)[:, :, None]
        high = bias.to(k.dtype)
        low = (bias - high).to(k.dtype)
        k = torch.cat([k, high, low], -1)
        q = torch.cat([q, torch.ones_like(high), torch.ones_like(high)], -1)
    widest = -(-max(q.shape[-1], width) // 8) * 8  # fused kernels want one width for all, a multiple of 8
    q, k, v = (F.pad(t, (0, widest - t.shape[-1]))[:, None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0, :, :width]


def tokenize(x: Tensor, p: int) -> Tensor:
    """Patches of p x p cells as tokens, B N p²C, of a map B C H W; p divides H and W."""
    b, c, height, width = x.shape
    x = x.reshape(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(b, height * width // p**2, p * p * c)


def untokenize(t: Tensor, p: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `tokenize`, B C H W of size (H, W)."""
    height, width = size
    t = t.reshape(len(t), height // p, width // p, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    return t.reshape(len(t), -1, height, width)


class PatchAttention(nn.Module):
    """Eq. 3: attention between patches, one head for each size of patch, weighted by how far a patch can be trusted.

    G = σ(conv([x; M])) is learned, one number a cell; g_j is its mean over patch j, and

        α_ij = g_j exp(s_ij) / Σ_k g_k exp(s_ik),  s_ij = q_i·k_j / √d.

    Args:
        channels: C, a multiple of the number of patch sizes.
        guides: A, channels of a; 0 for none.
        denorm: Name of the denormalization of q, k and v, one for all three.
        gate: `attention` as above; `post`: softmax(s_ij) g_j, which does not add up to one; `value`: V ⊙ G; or `none`.
        patches: Cells on a side of a patch, a head for each.
        adn_order: `conv`: each of q, k, v is denormalized; `adn`: x is denormalized, then q, k, v are taken from it.

    Raises:
        UsageError: An unknown name, or channels that the heads do not divide.
    """

    def __init__(
        self, channels: int, guides: int, denorm: str = "adn", gate: str = "attention",
        patches: Sequence[int] = PATCHES, adn_order: str = "conv",
    ) -> None:  # fmt: skip
        super().__init__()
        for kind, name, known in (("gma_gate", gate, GATES), ("adn_order", adn_order, ORDERS)):
            if name not in known:
                raise unknown_name(kind, name, list(known))
        if not patches or channels % len(patches):
            raise UsageError(f"{channels} channels cannot be split into {len(patches)} heads")
        self.kind, self.patches, self.adn_order = gate, tuple(patches), adn_order
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.denorm = denormalization(denorm, channels, guides)
        self.gate = nn.Conv2d(channels + 1, 1, 3, padding=1) if gate != "none" else None
        self.attend: Attend = attend  # a benchmark puts the plain formulation here

    def forward(self, x: Tensor, a: Tensor, M: Tensor) -> Tensor:
        """The heads' outputs, concatenated, B C H W.

        Args:
            x: B C H W.
            a: B A H W.
            M: B 1 H W, 1 = hole.
        """
        embed = (self.query, self.key, self.value)
        context = self.denorm.context(a)
        if self.adn_order == "conv":
            q, k, v = (self.denorm(layer(x), context) for layer in embed)
        else:
            normal = self.denorm(x, context)
            q, k, v = (layer(normal) for layer in embed)
        G = self.trust(x, M)
        if self.kind == "value" and G is not None:
            v = v * G.to(v.dtype)
        heads = (t.chunk(len(self.patches), 1) for t in (q, k, v))
        size = (x.shape[-2], x.shape[-1])
        return torch.cat([self._head(q, k, v, G, p, size) for q, k, v, p in zip(*heads, self.patches, strict=True)], 1)

    def trust(self, x: Tensor, M: Tensor) -> Tensor | None:
        """G, B 1 H W in (0, 1), float32; None without a gate."""
        if self.gate is None:
            return None
        return in_float(torch.sigmoid, self.gate(torch.cat([x, M.to(x.dtype)], 1)), keep=False)

    def _head(self, q: Tensor, k: Tensor, v: Tensor, G: Tensor | None, p: int, size: tuple[int, int]) -> Tensor:
        q, k, v = (tokenize(t, p) for t in (q, k, v))
        log_g = None
        if G is not None and self.kind in ("attention", "post"):
            g = F.avg_pool2d(G, p).flatten(1)
            if self.kind == "attention":
                log_g = (g + FLOOR).log()
            else:
                v = v * g[:, :, None].to(v.dtype)
        return untokenize(self.attend(q, k, v, log_g, q.shape[-1] ** -0.5), p, size)


class FeedForward(nn.Module):
    """The gated feed-forward, of y and z = ADN(y|a), B C H W each.

    Args:
        channels: C.
        variant: `gated`: y + conv1x1(GELU(conv_2(z)) ⊙ σ(conv(z))), where conv_2 has rate 2; `mmt`, as in MMT's code:
            y ⊙ tanh(conv(z)) + conv(GELU(conv_2(z))).

    Raises:
        UsageError: Another variant.
    """

    def __init__(self, channels: int, variant: str = "gated") -> None:
        super().__init__()
        if variant not in FEED_FORWARDS:
            raise unknown_name("ff_variant", variant, list(FEED_FORWARDS))
        self.variant = variant
        self.dilated = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 1) if variant == "gated" else nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        hidden: Tensor = F.gelu(self.dilated(z))
        gate: Tensor = self.gate(z)
        out: Tensor = self.out(hidden * gate.sigmoid()) if self.variant == "gated" else self.out(hidden)
        return y + out if self.variant == "gated" else y * gate.tanh() + out


class GMA(nn.Module):
    """Gated mask-aware attention: y = x + attention(x | a, M), then the gated feed-forward of ADN(y|a).

    Args:
        channels: C.
        guides: A, channels of a; 0 for none.
        denorm: Name of the denormalization, `adn`, `adain`, `spade`, or `layer` for none by a.
        gate: As of `PatchAttention`.
        patches: As of `PatchAttention`.
        adn_order: As of `PatchAttention`.
        ff_variant: As of `FeedForward`.

    Raises:
        UsageError: An unknown name, or channels that the heads do not divide.
    """

    def __init__(
        self, channels: int, guides: int, denorm: str = "adn", gate: str = "attention",
        patches: Sequence[int] = PATCHES, adn_order: str = "conv", ff_variant: str = "gated",
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = PatchAttention(channels, guides, denorm, gate, patches, adn_order)
        self.denorm = denormalization(denorm, channels, guides)
        self.feed_forward = FeedForward(channels, ff_variant)

    def forward(self, x: Tensor, a: Tensor, M: Tensor) -> Tensor:
        """B C H W; arguments as of `PatchAttention.forward`."""
        y = x + self.attention(x, a, M)
        out: Tensor = self.feed_forward(y, self.denorm(y, self.denorm.context(a)))
        return out
