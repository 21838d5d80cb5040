"""The losses of NIGDT (arXiv 2004.03212v1, Sec. 3.3 and 3.4), one function per equation, in the letters of the paper.

The index r marks the reconstructive path, g the generative one. Each function is of one path; the terms of both are
added. Images are in [-1, 1]. A Gaussian is a pair (μ, σ), σ the standard deviation. All is computed in float32,
whatever the precision of the networks. Scores of match networks are those of DAMSM (Xu et al., AttnGAN, CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import unknown_name
from zoo.models.nigdt.gather import Codes

Normal = tuple[Tensor, Tensor]
DIRECTIONS = ("forward", "reverse")
EPS = 1e-8

# --- Eq. 12: image quality --------------------------------------------------------------------------------------------


def reconstruction(I_g: Sequence[Tensor], I: Tensor, M: Tensor | None = None, hole: float = 0.0) -> Tensor:  # noqa: E741
    """Eq. 12, first term: mean |I - I_g| over the whole image, summed over the scales.

    Args:
        I_g: Outputs of the generator, B 3 h w each, coarse to fine; the last alone is the equation as printed.
        I: B 3 H W; for a smaller output it is averaged over areas.
        M: B 1 H W, 1 = hole; needed where `hole` is not 0.
        hole: How much the mean over each sample's hole counts besides; 0 is the paper's.
    """
    # Deviation: the L1 distance is summed over the outputs of all scales.
    scales = []
    for x in I_g:
        distance = (x.float() - F.interpolate(I.float(), x.shape[-2:], mode="area")).abs()
        scales.append(distance.mean())
        if M is not None and hole > 0:
            share = F.interpolate(M.float(), x.shape[-2:], mode="area")
            # of each sample that has one, or large holes would leave little weight to small ones
            pixels = 3.0 * share.sum((1, 2, 3))
            inside = (distance * share).sum((1, 2, 3)) / pixels.clamp_min(EPS)
            scales.append(hole * inside.sum() / (pixels > 0).sum().clamp_min(1))
    return torch.stack(scales).sum()


def feature(D1_I: Tensor, D1_I_g: Tensor) -> Tensor:
    """Eq. 12, second term: mean (D1(I) - D1(I_g))² of D1's last maps, the true image's held fixed.

    Args:
        D1_I: B c h w.
        D1_I_g: B c h w.
    """
    # Deviation: the second term of Eq. 12 compares D1(I) with D1(I_g) by the mean square.
    return (D1_I.detach().float() - D1_I_g.float()).square().mean()


def adversarial_generator(D2_I_g: Tensor) -> Tensor:
    """Eq. 12, third term (LSGAN): mean (D2(I_g) - 1)².

    Args:
        D2_I_g: Scores, any shape.
    """
    return (D2_I_g.float() - 1.0).square().mean()


def adversarial_discriminator(D_I: Tensor, D_I_g: Tensor) -> Tensor:
    """What D1 and D2 minimise (LSGAN): ½ mean (D(I) - 1)² + ½ mean D(I_g)².

    Args:
        D_I: Scores of true images, any shape.
        D_I_g: Scores of generated ones, without gradient to the generator; of both paths where both are its fakes.
    """
    return 0.5 * (D_I.float() - 1.0).square().mean() + 0.5 * D_I_g.float().square().mean()


# --- Eq. 17 and 18: distributions -------------------------------------------------------------------------------------


def kl(a: Normal, b: Normal) -> Tensor:
    """KL(N(μ_a, σ_a²) ‖ N(μ_b, σ_b²)) = log σ_b/σ_a + (σ_a² + (μ_a - μ_b)²) / 2σ_b² - ½ of each element, in nats."""
    (μ_a, σ_a), (μ_b, σ_b) = ((μ.float(), σ.float()) for μ, σ in (a, b))
    return σ_b.log() - σ_a.log() + 0.5 * ((σ_a / σ_b).square() + ((μ_a - μ_b) / σ_b).square() - 1.0)


def KL_r(q: Normal, σ_m: Tensor | float = 1.0, direction: str = "forward", free_bits: float = 0.0) -> Tensor:
    """Eq. 17: KL(q_ψ(z|I_c, h^r) ‖ N(0, σ_m²)), the mean over samples and latent elements.

    Without a reconstructive path (PICNet's baseline) `reverse` on the prior is the whole distribution loss.

    Args:
        q: μ and σ > 0 of the posterior, B C h w each.
        σ_m: 1 is the paper's; or B 1 1 1 of `dynamic_sigma`.
        direction: `forward` as printed, or `reverse`: KL(N(0, σ_m²) ‖ q), which punishes a small σ harder.
        free_bits: Nats per latent element that cost nothing, by the mean over a channel of a sample; 0 is the paper's.

    Raises:
        UsageError: An unknown direction.
    """
    μ, σ = q
    n = (torch.zeros_like(μ), torch.ones_like(σ) * σ_m)
    # Deviation: the divergences of Eq. 17 and 18 have a plus sign, because the loss is minimised.
    return _reduced(_directed(q, n, direction), free_bits)


def KL_g(q: Normal, p: Normal, direction: str = "forward", free_bits: float = 0.0) -> Tensor:
    """Eq. 18: KL(q_ψ(z|I_c, h^r) ‖ p(z|h^g)), the mean over samples and latent elements, with q held fixed.

    The prior is drawn to the posterior and never the other way: q gets no gradient.

    Args:
        q: μ and σ > 0 of the posterior, B C h w each.
        p: μ and σ > 0 of the prior, B C h w each.
        direction: `forward` as printed, or `reverse`: KL(p ‖ q).
        free_bits: As in `KL_r`.

    Raises:
        UsageError: An unknown direction.
    """
    μ, σ = q
    return _reduced(_directed((μ.detach(), σ.detach()), p, direction), free_bits)


def _directed(a: Normal, b: Normal, direction: str) -> Tensor:
    if direction not in DIRECTIONS:
        raise unknown_name("direction of the divergence", direction, list(DIRECTIONS))
    return kl(a, b) if direction == "forward" else kl(b, a)


def _reduced(divergence: Tensor, free_bits: float) -> Tensor:
    if free_bits > 0:
        # of each sample, so that what is free depends neither on the batch nor on how processes share it
        return divergence.mean((2, 3)).clamp_min(free_bits).mean()
    return divergence.mean()


def dynamic_sigma(M: Tensor) -> Tensor:
    """σ_m that grows with the hole: 1 / (1 + exp(8 (k - 0.8))), k the share of known pixels less 1e-5, B 1 1 1.

    An option, as in PICNet; the paper's σ_m is 1.

    Args:
        M: B 1 H W, 1 = hole.
    """
    k = 1.0 - M.float().mean((1, 2, 3), keepdim=True) - 1e-5
    return torch.sigmoid(-8.0 * (k - 0.8))


# --- Eq. 11: match of image and text ----------------------------------------------------------------------------------


def word_scores(regions: Tensor, words: Tensor, known: Tensor, γ1: float = 5.0, γ2: float = 5.0) -> Tensor:
    """D3: how well each image goes with the words of each caption, B images x B captions.

    For words e_i and regions v_j, softmax over words of e_i · v_j, α_ij the softmax over regions of γ1 times that,
    c_i = Σ_j α_ij v_j; the score is R = log Σ_i exp(γ2 cos(c_i, e_i)), as in AttnGAN's code (its paper divides by γ2).

    Args:
        regions: B c N.
        words: B c T.
        known: B T, bool: which places hold a word; at least one of each caption.
        γ1: How sharply a word looks at its regions; 4 when match networks are trained.
        γ2: How much the best word outweighs the others.
    """
    with torch.autocast(regions.device.type, enabled=False):  # the products would run in bf16
        v, e = regions.float(), words.float()
        s = torch.einsum("qct,bcn->bqtn", e, v).masked_fill(~known[None, :, :, None], -torch.inf)
        α = (γ1 * s.softmax(2)).softmax(3)
        c = torch.einsum("bqtn,bcn->bqtc", α, v)
        cosine = (F.normalize(c, dim=3, eps=EPS) * F.normalize(e, dim=1, eps=EPS).transpose(1, 2)).sum(3)
        return (γ2 * cosine).masked_fill(~known, -torch.inf).logsumexp(2)


def sentence_scores(image: Tensor, sentence: Tensor) -> Tensor:
    """D4: the cosine of each image's code (B c) with each caption's (B c), B images x B captions."""
    with torch.autocast(image.device.type, enabled=False):
        return F.normalize(image.float(), dim=1, eps=EPS) @ F.normalize(sentence.float(), dim=1, eps=EPS).T


def match_loss(scores: Tensor, same: Tensor, γ3: float = 10.0) -> Tensor:
    """Cross-entropy of finding each image's caption, plus that of finding each caption's image; 0 for B = 1.

    Args:
        scores: B images x B captions; pairs are on the diagonal.
        same: B B, bool: two samples of the same image, whose captions are no negatives of each other.
        γ3: Sharpness.
    """
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits = (γ3 * scores.float()).masked_fill(others, -torch.inf)
    pairs = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)


def match(codes: Codes, γ1: float = 5.0, γ2: float = 5.0, γ3: float = 10.0) -> tuple[Tensor, Tensor]:
    """Eq. 11: L_T = D3(t_wrd, I_g) + D4(t_sent, I_g); returns its two terms, of words and of sentences.

    Args:
        codes: Of the whole batch: with several processes, gathered (`zoo.models.nigdt.gather`).
        γ1: As in `word_scores`.
        γ2: As in `word_scores`.
        γ3: As in `match_loss`.
    """
    same = codes.key[:, None] == codes.key[None, :]
    words = word_scores(codes.regions, codes.words, codes.known, γ1, γ2)
    # Deviation: Eq. 11 minimises cross-entropies of the scores within the batch and not the scores themselves.
    return match_loss(words, same, γ3), match_loss(sentence_scores(codes.image, codes.sentence), same, γ3)
