"""The losses of StyleGAN2's pre-training (Karras et al. 2020), in the letters of that paper; x is real, y is noise.

Those of a gradient are differentiated again, and are float32 whatever autocast says: call the network outside it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12  # below a squared length: where an image does not depend on w, the root's gradient is not infinite


def logistic_discriminator(D_x: Tensor, D_G: Tensor) -> Tensor:
    """What D minimises: E[softplus(-D(x))] + E[softplus(D(G(z)))], of scores of any shape."""
    return F.softplus(-D_x.float()).mean() + F.softplus(D_G.float()).mean()


def logistic_generator(D_G: Tensor) -> Tensor:
    """What G minimises, not saturating: E[softplus(-D(G(z)))], of scores of any shape."""
    return F.softplus(-D_G.float()).mean()


def R1(D_x: Tensor, x: Tensor, γ: float = 10.0) -> Tensor:
    """γ/2 · E[‖∇_x D(x)‖²] (Mescheder et al. 2018); every k-th iteration it counts k times.

    Args:
        D_x: Scores of x, any shape.
        x: B 3 H W, which requires a gradient.
        γ: The weight.
    """
    with torch.autocast(x.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(D_x.sum(), x, create_graph=True)
        return 0.5 * γ * gradient.square().sum((1, 2, 3)).mean()


def path_length(
    g_w: Tensor, w: Tensor, a: Tensor, decay: float = 0.01, y: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E[(‖J_wᵀ y‖ - a)²] (Eq. 4) and the new running mean a.

    ‖·‖² is over the width of a style vector, the mean over the L of them.

    Args:
        g_w: Images g(w), B 3 H W.
        w: Style vectors, B L w, which require a gradient.
        a: The running mean of the lengths, of no dimension; 0 at first.
        decay: How far the mean goes towards this batch's lengths, before they are compared with it.
        y: Normal noise, B 3 H W; None draws it.
    """
    with torch.autocast(w.device.type, enabled=False):
        y = torch.randn_like(g_w) if y is None else y
        pixels = g_w.shape[-2] * g_w.shape[-1]  # y over their root: lengths are then alike at every size
        (J_y,) = torch.autograd.grad((g_w * y).sum() / math.sqrt(pixels), w, create_graph=True)
        lengths = (J_y.square().sum(2).mean(1) + EPS).sqrt()
        a = a.lerp(lengths.detach().mean(), decay)
        return (lengths - a).square().mean(), a
