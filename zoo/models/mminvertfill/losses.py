"""The losses of MMInvertFill's encoder (Eq. 7 to 10), one function per term, in the letters of the paper.

I is the truth, O_G the output of the generator, O_r, E_r and S_r the predictions of the scales r = 1, 2, 3 (coarse to
fine), D the discriminator, φ the features of a frozen network, w* the styles. Images are in [-1, 1], edges in {0, 1}.
All is computed in float32, whatever the precision of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.batch import UNKNOWN_CLASS
from zoo.errors import unknown_name

ADVERSARIAL = ("hinge", "nsgan")
FIDELITY = ("norm", "mse")
Maps = Sequence[Tensor]
Phi = Callable[[Tensor], Maps]

# --- Eq. 7: the inpainting loss ---------------------------------------------------------------------------------------


def L_hrf(φ_I: Maps, φ_O: Maps) -> Tensor:
    """Eq. 7, high-receptive-field perceptual loss: Σ_k mean (φ_k(I) - φ_k(O_G))², the truth's held fixed.

    Args:
        φ_I: Features of the truth, B C h w each.
        φ_O: Features of the output.
    """
    pairs = zip(φ_I, φ_O, strict=True)
    return torch.stack([(a.detach().float() - b.float()).square().mean() for a, b in pairs]).sum()


def distance(I: Tensor, O_G: Tensor, region: Tensor) -> Tensor:  # noqa: E741
    """Mean |I - O_G| over a region of each sample, the mean over samples where there is any of it; 0 where none has.

    Not in the paper, whose weight for it is 0: a small generator and features of random weights ask for it.

    Args:
        I: B 3 H W.
        O_G: The output, B 3 H W.
        region: B 1 H W in {0, 1}.
    """
    # Deviation: the absolute difference to the image is minimised too.
    pixels = region.float().sum((1, 2, 3))
    total = ((I.float() - O_G.float()).abs() * region).sum((1, 2, 3)) / (3.0 * pixels.clamp_min(1.0))
    return total.sum() / (pixels > 0).sum().clamp_min(1)


def L_adv(D_O: Tensor, kind: str = "hinge") -> Tensor:
    """Eq. 7, the generator's side: -E[D(O_G, E)] for `hinge`, E[softplus(-D(O_G, E))] for `nsgan`.

    Args:
        D_O: Scores of outputs with predicted edges, any shape.
        kind: `hinge` or `nsgan`.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in ADVERSARIAL:
        raise unknown_name("adversarial loss", kind, list(ADVERSARIAL))
    return -D_O.float().mean() if kind == "hinge" else F.softplus(-D_O.float()).mean()


def L_D(D_I: Tensor, D_O: Tensor, kind: str = "hinge") -> Tensor:
    """What the discriminator minimises.

    E[relu(1 - D(I, E))] + E[relu(1 + D(O_G, E))] for `hinge`; softplus of ∓D in place of relu(1 ∓ D) for `nsgan`.

    Args:
        D_I: Scores of truths with true edges, any shape.
        D_O: Scores of outputs, without gradient to the generator.
        kind: `hinge` or `nsgan`.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in ADVERSARIAL:
        raise unknown_name("adversarial loss", kind, list(ADVERSARIAL))
    D_I, D_O = D_I.float(), D_O.float()
    if kind == "hinge":
        return F.relu(1.0 - D_I).mean() + F.relu(1.0 + D_O).mean()
    return F.softplus(-D_I).mean() + F.softplus(D_O).mean()


# --- Eq. 8: multi-scale reconstruction --------------------------------------------------------------------------------


def reconstruction(O_r: Tensor, I: Tensor) -> Tensor:  # noqa: E741
    """Mean (O_r - I↓)², where I↓ (from B 3 H W) is averaged over areas to the size of O_r (B 3 h w)."""
    return F.mse_loss(O_r.float(), F.interpolate(I.float(), O_r.shape[-2:], mode="area"))


def perceptual(φ_I: Maps, φ_O: Maps) -> Tensor:
    """Σ_k mean |φ_k(I) - φ_k(O)|, the truth's held fixed; maps B C h w each."""
    pairs = zip(φ_I, φ_O, strict=True)
    return torch.stack([(a.detach().float() - b.float()).abs().mean() for a, b in pairs]).sum()


def edge_entropy(E_r: Tensor, E: Tensor) -> Tensor:
    """Class-balanced binary cross-entropy: edge pixels weigh N_neg/N, the others N_pos/N, counted over the batch.

    Args:
        E_r: Logits, B 1 h w.
        E: B 1 H W in {0, 1}; its maxima, since every other way of making it smaller loses thin lines.
    """
    truth = F.adaptive_max_pool2d(E.float(), (E_r.shape[-2], E_r.shape[-1]))
    # Deviation: the entropy of edges weighs edge pixels and others alike in sum.
    share = truth.mean()
    weight = torch.where(truth > 0.5, 1.0 - share, share)
    return F.binary_cross_entropy_with_logits(E_r.float(), truth, weight)


def segmentation_entropy(S_r: Tensor, S: Tensor) -> Tensor:
    """Cross-entropy over the known pixels of each sample, the mean over samples that have any; 0 where none has.

    Args:
        S_r: Logits, B K h w.
        S: B H W int64, 255 = unknown; the nearest pixel is taken.
    """
    truth = F.interpolate(S[:, None].float(), S_r.shape[-2:], mode="nearest")[:, 0].long()
    entropy = F.cross_entropy(S_r.float(), truth, ignore_index=UNKNOWN_CLASS, reduction="none").sum((1, 2))
    known = (truth != UNKNOWN_CLASS).sum((1, 2))
    return (entropy / known.clamp_min(1)).sum() / (known > 0).sum().clamp_min(1)


def L_msr(
    O: Maps,  # noqa: E741
    I: Tensor,  # noqa: E741
    E: tuple[Maps, Tensor] | None = None,
    S: tuple[Maps, Tensor] | None = None,
    φ: Phi | None = None,
) -> dict[str, Tensor]:
    """Eq. 8: the terms `rec`, `perc`, `edge` and `seg` of those modalities that there are, each summed over scales.

    Args:
        O: O_r, B 3 h w each.
        I: B 3 H W.
        E: Logits of edges (B 1 h w each), and the true edges (B 1 H W).
        S: Logits of classes (B K h w each), and the true classes (B H W int64).
        φ: Features of images; without them there is no perceptual term.
    """
    terms = {"rec": [reconstruction(x, I) for x in O]}
    if φ is not None:
        terms["perc"] = [perceptual(φ(F.interpolate(I, x.shape[-2:], mode="area")), φ(x)) for x in O]
    if E is not None:
        terms["edge"] = [edge_entropy(x, E[1]) for x in E[0]]
    if S is not None:
        terms["seg"] = [segmentation_entropy(x, S[1]) for x in S[0]]
    return {name: torch.stack(scales).sum() for name, scales in terms.items()}


# --- Eq. 9: fidelity --------------------------------------------------------------------------------------------------


def L_fid(w: Tensor, mean: Tensor, kind: str = "norm") -> Tensor:
    """Eq. 9: ‖w* - w̄_o‖, the Frobenius norm of each sample, the mean over the batch; or `mse`, the mean square.

    Args:
        w: w*, B L w.
        mean: w̄_o, w numbers.
        kind: `norm`, as printed, or `mse`, as the text says; about a hundredth as large at the published size.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in FIDELITY:
        raise unknown_name("fidelity loss", kind, list(FIDELITY))
    # Deviation: L_fid is the norm of the formula and not the mean square of the text.
    Δ = w.float() - mean.float()
    return torch.linalg.vector_norm(Δ, dim=(1, 2)).mean() if kind == "norm" else Δ.square().mean()


# --- InvertFill's inpainting loss in place of Eq. 7 -------------------------------------------------------------------

RFR_WEIGHTS = {"valid": 1.0, "hole": 6.0, "perc": 0.05, "style": 120.0, "tv": 0.1}


def gram(φ_k: Tensor) -> Tensor:
    """Products of all pairs of channels over C h w: B C C of B C h w."""
    with torch.autocast(φ_k.device.type, enabled=False):
        x = φ_k.float().flatten(2)
        return x @ x.transpose(1, 2) / (x.shape[1] * x.shape[2])


def total_variation(C: Tensor, M: Tensor) -> Tensor:
    """Mean |difference| of neighbours of which one at least is in the hole; both directions are added.

    Args:
        C: The composite, B 3 H W.
        M: B 1 H W, 1 = hole.
    """
    down = (C[:, :, 1:] - C[:, :, :-1]).abs() * torch.maximum(M[:, :, 1:], M[:, :, :-1])
    right = (C[..., 1:] - C[..., :-1]).abs() * torch.maximum(M[..., 1:], M[..., :-1])
    return down.float().mean() + right.float().mean()


def L_rfr(I: Tensor, O: Tensor, M: Tensor, φ: Phi) -> dict[str, Tensor]:  # noqa: E741
    """The terms of Liu et al. 2018, which RFR and InvertFill minimise with `RFR_WEIGHTS`, not yet weighted.

    Args:
        I: B 3 H W.
        O: The output, B 3 H W.
        M: B 1 H W, 1 = hole.
        φ: Features of images.
    """
    I, O = I.float(), O.float()  # noqa: E741
    C = torch.where(M > 0.5, O, I)
    distance = (I - O).abs()
    with torch.no_grad():
        φ_I = list(φ(I))
    sides = [list(φ(O)), list(φ(C))]
    G_I = [gram(x) for x in φ_I]
    return {
        "valid": (distance * (1.0 - M)).mean(),
        "hole": (distance * M).mean(),
        "perc": torch.stack([perceptual(φ_I, x) for x in sides]).sum(),
        "style": torch.stack([perceptual(G_I, [gram(y) for y in x]) for x in sides]).sum(),
        "tv": total_variation(C, M),
    }
