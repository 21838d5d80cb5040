"""The losses of DeepFill-v2 (Yu et al. 2019) and of DeepFill-v1 (Yu et al. 2018): pure functions, images in [-1, 1].

Letters: I the truth, x1 and x2 the coarse and the refined image, C2 = x2 ⊙ M + I ⊙ (1 - M) the composite, M the mask
(1 = hole; v1's equations write m = 1 - M), D the discriminator or critic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # under the root of a slope: the root of zero has an infinite derivative


# --- DeepFill-v2 ---


def reconstruction(I: Tensor, x: Tensor) -> Tensor:  # noqa: E741
    """DeepFill-v2, Sec. 3.3, the pixel-wise l1 loss of one stage: mean |I - x| over the whole image.

    Args:
        I: B 3 H W, the truth.
        x: B 3 H W, x1 or x2.
    """
    return (I - x).abs().mean()


def hinge_discriminator(D_real: Tensor, D_fake: Tensor) -> Tensor:
    """DeepFill-v2, Sec. 3.3, L_D = ½ E[relu(1 - D(I, M))] + ½ E[relu(1 + D(C2, M))], the mean over all patches.

    Args:
        D_real: B C h w, scores of truths.
        D_fake: B C h w, scores of composites.
    """
    # Deviation: the discriminator's hinge loss is half of the paper's sum.
    return 0.5 * (F.relu(1.0 - D_real).mean() + F.relu(1.0 + D_fake).mean())


def hinge_generator(D_fake: Tensor) -> Tensor:
    """DeepFill-v2, Sec. 3.3, L_G = -E[D(C2, M)], the mean over all patches (B C h w)."""
    return -D_fake.mean()


# --- DeepFill-v1 ---


def wasserstein_critic(D_real: Tensor, D_fake: Tensor) -> Tensor:
    """Eq. 1 of DeepFill-v1, from the critic's side: E[D(C2)] - E[D(I)] (B each)."""
    return D_fake.mean() - D_real.mean()


def wasserstein_generator(D_fake: Tensor) -> Tensor:
    """Eq. 1 of DeepFill-v1, from the generator's side: -E[D(C2)] (B)."""
    return -D_fake.mean()


def interpolate(I: Tensor, C2: Tensor, t: Tensor) -> Tensor:  # noqa: E741
    """Between Eq. 2 and 3 of DeepFill-v1: x̂ = (1 - t) I + t C2 (B 3 H W; t B 1 1 1 in [0, 1])."""
    return I + t * (C2 - I)


def gradient_penalty(D: Callable[[Tensor], Tensor], x_hat: Tensor, M: Tensor, mode: str = "masked") -> Tensor:
    """Eq. 3 of DeepFill-v1, without λ: E[(‖∇D(x̂) ⊙ M‖ - 1)²]; `plain` is its Eq. 2.

    Args:
        D: The critic, B C H W to B.
        x_hat: B C H W, where to take the slope.
        M: B 1 H W, 1 = hole.
        mode: `masked`; `plain` (the whole image counts); `per_pixel`, a variant that asks for slope 1 at each hole
            pixel, averaged over the hole.
    """
    with torch.enable_grad(), torch.autocast(x_hat.device.type, enabled=False):
        x_hat = x_hat.detach().float().requires_grad_()
        (g,) = torch.autograd.grad(D(x_hat).sum(), x_hat, create_graph=True)
        if mode == "per_pixel":
            slope = (g.square().sum(1, keepdim=True) + TINY).sqrt()
            return ((slope - 1.0).square() * M).sum() / M.sum().clamp_min(1.0)
        if mode == "plain":
            return ((g.square().sum((1, 2, 3)) + TINY).sqrt() - 1.0).square().mean()
        slope = ((g.square() * M).sum((1, 2, 3)) + TINY).sqrt()
        # Deviation: the gradient penalty leaves out samples without a hole.
        has_hole = (M.amax((1, 2, 3)) > 0).float()
        return ((slope - 1.0).square() * has_hole).sum() / has_hole.sum().clamp_min(1.0)


def discount(M: Tensor, γ: float = 0.99) -> Tensor:
    """DeepFill-v1, Sec. 3, spatial discount: γ^l, l = chessboard distance to the hole's rim (0 on the rim itself).

    Beyond the image counts as hole, so that a hole at the border is discounted from its inner side only. Zero outside
    the hole; 1 everywhere where nothing is known.

    Args:
        M: B 1 H W, 1 = hole.
        γ: The discount per pixel.
    """
    # Deviation: the spatial discount is computed by erosion, for a hole of any shape.
    left, l = M.clone(), torch.zeros_like(M)  # noqa: E741
    while True:
        eroded = -F.max_pool2d(-left, 3, 1, 1)
        if torch.equal(eroded, left):  # empty, or samples that are all hole
            break
        l += eroded  # noqa: E741
        left = eroded
    return torch.where(left.amax((1, 2, 3), keepdim=True) > 0, 1.0, γ**l) * M


def discounted_l1(I: Tensor, x: Tensor, M: Tensor, W: Tensor) -> Tensor:  # noqa: E741
    """DeepFill-v1, Sec. 3, spatially discounted reconstruction of one stage: mean of W |I - x| over the hole.

    Args:
        I: B 3 H W, the truth.
        x: B 3 H W, x1 or x2.
        M: B 1 H W, 1 = hole.
        W: B 1 H W, the map of `discount`.
    """
    # Deviation: the discounted l1 is a mean over the hole, not over a fixed box around it.
    return ((I - x).abs() * W * M).sum() / (3.0 * M.sum()).clamp_min(1.0)


def autoencoding_l1(I: Tensor, x: Tensor, M: Tensor) -> Tensor:  # noqa: E741
    """DeepFill-v1's code, AE loss of one stage: mean of |I - x| over the known pixels (B 3 H W; M B 1 H W)."""
    known = 1.0 - M
    return ((I - x).abs() * known).sum() / (3.0 * known.sum()).clamp_min(1.0)
