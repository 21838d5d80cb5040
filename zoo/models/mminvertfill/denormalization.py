"""Auxiliary denormalization (Eq. 2): features of the inpainting branch, normalized, then scaled and shifted by others.

Letters as in `attention`. What depends on `a` alone is its context, computed once for several x. Normalization is in
float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import unknown_name

DENORMS = ("adn", "adain", "spade", "layer")
EPS = 1e-5
Context = tuple[Tensor, Tensor]


def in_float(compute: Callable[[Tensor], Tensor], x: Tensor, keep: bool = True) -> Tensor:
    """`compute(x)` in float32 with autocast off (in double where x is); then in the type of x again if `keep`."""
    with torch.autocast(x.device.type, enabled=False):
        y = compute(x if x.dtype == torch.double else x.float())
    return y.to(x.dtype) if keep else y


def layer_norm(x: Tensor) -> Tensor:
    """LN: over channels and cells together, B C H W, so that it holds at any size; without weights."""
    return in_float(lambda wide: F.group_norm(wide, 1, eps=EPS), x)


def instance_norm(x: Tensor) -> Tensor:
    """Over the cells of each channel, B C H W; without weights."""
    return in_float(lambda wide: F.group_norm(wide, wide.shape[1], eps=EPS), x)


class Denormalization(nn.Module):
    """γ ⊙ norm(x) + β, where `context(a)` gives γ and β."""

    def context(self, a: Tensor) -> Context:
        """γ and β, or the part of β that depends on a alone: B C H W, B C 1 1 or 1 C 1 1."""
        raise NotImplementedError(f"{type(self).__name__} must define context(a)")

    def normalize(self, x: Tensor) -> Tensor:
        """x, B C H W, with mean 0 and variance 1 over what the variant says."""
        return instance_norm(x)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """B C H W, of x B C H W and what `context` gave."""
        γ, β = (t.to(x.dtype) for t in context)
        return γ * self.normalize(x) + β


class ADN(Denormalization):
    """Eq. 2: ADN(x|a) = γ ⊙ LN(x) + β with u = conv(a), γ = conv(u), β = conv([x; u]), all 1x1; at first γ is 1.

    Args:
        channels: C.
        guides: A.
    """

    def __init__(self, channels: int, guides: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(guides, channels, 1)
        self.gamma = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.gamma.weight)
        nn.init.ones_(self.gamma.bias)  # type: ignore[arg-type]
        # One convolution of [x; u], in two parts since q, k and v share the second.
        self.beta_x = nn.Conv2d(channels, channels, 1, bias=False)
        self.beta_u = nn.Conv2d(channels, channels, 1)

    def context(self, a: Tensor) -> Context:
        u = self.embed(a)
        return self.gamma(u), self.beta_u(u)

    def normalize(self, x: Tensor) -> Tensor:
        return layer_norm(x)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        total: Tensor = super().forward(x, context) + self.beta_x(x)
        return total


class AdaIN(Denormalization):
    """Adaptive instance normalization (Huang and Belongie 2017): mean and deviation of each channel become u's.

    Args:
        channels: C.
        guides: A; u = conv1x1(a) has C channels.
    """

    def __init__(self, channels: int, guides: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(guides, channels, 1)

    def context(self, a: Tensor) -> Context:
        u = self.embed(a)
        variance, mean = torch.var_mean(u if u.dtype == torch.double else u.float(), (2, 3), correction=0, keepdim=True)
        return (variance + EPS).sqrt(), mean


class SPADE(Denormalization):
    """Spatially-adaptive denormalization (Park et al. 2019): (1 + γ) ⊙ IN(x) + β by 3x3 convolutions of a.

    Args:
        channels: C, also the hidden width.
        guides: A.
    """

    def __init__(self, channels: int, guides: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(guides, channels, 3, padding=1)
        self.gamma = nn.Conv2d(channels, channels, 3, padding=1)
        self.beta = nn.Conv2d(channels, channels, 3, padding=1)

    def context(self, a: Tensor) -> Context:
        u = F.relu(self.embed(a))
        return 1 + self.gamma(u), self.beta(u)


class Layer(Denormalization):
    """LN with weights of its own, where nothing guides: γ and β are a number for each channel.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def context(self, a: Tensor) -> Context:
        return self.weight, self.bias

    def normalize(self, x: Tensor) -> Tensor:
        return layer_norm(x)


def denormalization(name: str, channels: int, guides: int) -> Denormalization:
    """A variant by its name, one of `DENORMS`; without guides it is `layer` whatever the name.

    Args:
        name: The variant.
        channels: C.
        guides: A; 0 for none.

    Raises:
        UsageError: Another name.
    """
    if name not in DENORMS:
        raise unknown_name("denormalization", name, list(DENORMS))
    if name == "layer" or not guides:
        return Layer(channels)
    return {"adn": ADN, "adain": AdaIN, "spade": SPADE}[name](channels, guides)
