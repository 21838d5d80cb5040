"""The losses of CMA (Zhou and Long, EACL 2023, Sec. 2.3), one function per equation, in the letters of the paper.

`t` are text tokens (B L e), `v` patches (B N e); the index r marks the corrupted image, o the original one. `words`
(B L, bool) says which tokens stand for words: padding never takes part, [CLS] and [SEP] by default neither. All is
computed in float32, whatever the precision of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.cma.transport import cosine_cost, marginals, solve, transport_cost

ISD_KINDS = ("channel_softmax", "spatial_softmax", "mse", "cosine")
EPS = 1e-8


def correlation(t: Tensor, v: Tensor) -> Tensor:
    """Eq. 6 and 7, the correlation map: a_ij = t_i · v_j / (‖t_i‖ ‖v_j‖), B L N."""
    with torch.autocast(t.device.type, enabled=False):  # the product would run in bf16
        t, v = (F.normalize(x.float(), dim=-1, eps=EPS) for x in (t, v))
        return t @ v.transpose(1, 2)


def cmad(M_r: Tensor, M_o: Tensor, words: Tensor) -> Tensor:
    """Eq. 5, cross-modal alignment distillation: 1/(N L) Σ_ij (a_ij^r - a_ij^o)², then the mean over samples.

    L counts the words of a sample; a sample without words counts 0.

    Args:
        M_r: B L N, of the corrupted image.
        M_o: B L N, of the original one.
        words: B L, bool.
    """
    per_token = (M_r - M_o).square().mean(2)
    return ((per_token * words).sum(1) / words.sum(1).clamp_min(1)).mean()


def isd(v_o: Tensor, v_r: Tensor, kind: str = "channel_softmax", τ: float = 1.0, where: Tensor | None = None) -> Tensor:
    """Eq. 8, in-sample distillation: 1/N Σ_i KL(v_i^o ‖ v_i^r), then the mean over samples.

    Args:
        v_o: B N e, the target.
        v_r: B N e.
        kind: What makes distributions of vectors: `channel_softmax`, or `spatial_softmax` over the N patches of each
            channel; `mse` and `cosine` distance are other readings without any.
        τ: Temperature of the softmax; the loss is multiplied by τ².
        where: B N in [0, 1], which patches count; None is all of them, as in the equation.

    Raises:
        UsageError: An unknown kind.
    """
    v_o, v_r = v_o.float(), v_r.float()
    # Deviation: vectors become distributions by a softmax over channels.
    if kind in ("channel_softmax", "spatial_softmax"):
        axis = 2 if kind == "channel_softmax" else 1
        log_p, log_q = (torch.log_softmax(v / τ, axis) for v in (v_o, v_r))
        kl = log_p.exp() * (log_p - log_q) * τ**2
        # over the patches, KL has one value per channel: its mean over channels, spread so that the sum over N is it
        per_patch = kl.sum(2) if axis == 2 else kl.mean(2) * kl.shape[1]
    elif kind == "mse":
        per_patch = (v_o - v_r).square().mean(2)
    elif kind == "cosine":
        per_patch = 1.0 - F.cosine_similarity(v_o, v_r, dim=2, eps=EPS)
    else:
        raise UsageError(f"unknown in-sample distillation '{kind}'", remedy=f"one of {', '.join(ISD_KINDS)}")
    if where is None:
        return per_patch.mean()
    return (per_patch * where).sum() / where.sum().clamp_min(EPS)


def wpa(v_o: Tensor, t_o: Tensor, words: Tensor, solver: str = "ipot") -> Tensor:
    """Eq. 9 to 11, word-patch alignment: min over plans T of Σ_ij T_ij c(v_i^o, t_j^o), of each sample (B).

    T is found without gradient and then held fixed, which is the gradient of the minimum (envelope theorem). 0 for a
    sample without words.

    Args:
        v_o: B N e.
        t_o: B L e.
        words: B L, bool.
        solver: `ipot` or `pot`, see `zoo.models.cma.transport`.
    """
    c = cosine_cost(v_o, t_o)
    a, b = marginals(words, v_o.shape[1])
    return transport_cost(c, solve(c, a, b, solver))


def contrastive_wpa(d_pos: Tensor, d_neg: Tensor, usable: Tensor, margin: float = 0.2) -> Tensor:
    """What keeps features apart when training from scratch: mean of max(0, margin + d⁺ - d⁻) over usable pairs.

    Args:
        d_pos: B, `wpa` of images with their own captions.
        d_neg: B, with captions of others.
        usable: B, bool: False where the other caption is of the same image.
        margin: By how much the own caption must be nearer.
    """
    # Deviation: training from scratch aligns against other captions too.
    hinge = (margin + d_pos - d_neg).relu() * usable
    return hinge.sum() / usable.sum().clamp_min(1)


def reconstruction(I_r: Tensor, I_gt: Tensor, M: Tensor, hole: float = 0.0) -> Tensor:
    """Eq. 12: mean |I_r - I_gt| over the whole image, plus `hole` times the same over each sample's hole.

    Args:
        I_r: B 3 H W, restored, in [-1, 1].
        I_gt: B 3 H W.
        M: B 1 H W, 1 = hole.
        hole: 0 is the paper's.
    """
    difference = (I_r.float() - I_gt).abs()
    loss = difference.mean()
    if hole > 0:
        # of each sample that has one, or large holes would leave little weight to small ones
        pixels = 3.0 * M.sum((1, 2, 3))
        inside = (difference * M).sum((1, 2, 3)) / pixels.clamp_min(1.0)
        loss = loss + hole * inside.sum() / (pixels > 0).sum().clamp_min(1)
    return loss


def adversarial_generator(D_fake: Tensor, counted: Tensor | None = None) -> Tensor:
    """Eq. 13 and 15: E[-D(x̂)] (B; `counted` B, bool: samples that take part)."""
    return _mean(-D_fake.float(), counted)


def adversarial_discriminator(D_real: Tensor, D_fake: Tensor, counted: Tensor | None = None) -> Tensor:
    """Eq. 14 and 16: E[ReLU(1 - D(x))] + E[ReLU(1 + D(x̂))] (B each; `counted` as above)."""
    return _mean((1.0 - D_real.float()).relu(), counted) + _mean((1.0 + D_fake.float()).relu(), counted)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    return values.mean() if counted is None else (values * counted).sum() / counted.sum().clamp_min(1)


def collapse(t: Tensor, v: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Two signs that all features have become one: both near 1 mean that captions no longer matter.

    Returns:
        The mean cosine of different patches of one image, and that of words with patches.
    """
    with torch.no_grad():
        own = correlation(v, v)
        n = own.shape[1]
        patches = (own.sum((1, 2)) - own.diagonal(dim1=1, dim2=2).sum(1)) / max(n * (n - 1), 1)
        across = (correlation(t, v).mean(2) * words).sum(1) / words.sum(1).clamp_min(1)
    return patches.mean(), across.mean()
