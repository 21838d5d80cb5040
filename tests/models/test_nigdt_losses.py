"""The losses of NIGDT against plain loops and closed forms, and where their gradients go."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from zoo.errors import UsageError
from zoo.models.nigdt import losses
from zoo.models.nigdt.gather import Codes, keys

# --- Eq. 12: image quality --------------------------------------------------------------------------------------------


def image(batch: int = 2, size: int = 16, seed: int = 0) -> Tensor:
    return 2 * torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 1


def test_eq_12_the_l1_distance_is_the_mean_over_the_whole_image_summed_over_scales() -> None:
    I, outputs = image(), [image(size=s, seed=s) for s in (4, 8, 16)]  # noqa: E741
    expected = 0.0
    for x in outputs:
        block = 16 // x.shape[-1]
        total = 0.0
        for b in range(2):
            for c in range(3):
                for i in range(x.shape[-2]):
                    for j in range(x.shape[-1]):
                        area = I[b, c, i * block : (i + 1) * block, j * block : (j + 1) * block]
                        total += abs(area.double().mean().item() - x[b, c, i, j].item())
        expected += total / x.numel()
    assert losses.reconstruction(outputs, I).item() == pytest.approx(expected, rel=1e-5)


def test_the_last_output_alone_is_the_equation_as_printed() -> None:
    I, I_g = image(), image(seed=1).requires_grad_(True)  # noqa: E741
    loss = losses.reconstruction([I_g], I)
    torch.testing.assert_close(loss, (I - I_g).abs().mean())
    loss.backward()
    torch.testing.assert_close(I_g.grad, (I_g - I).sign().detach() / I.numel())


def test_the_hole_of_each_sample_may_count_besides_at_every_scale() -> None:
    I, M = torch.zeros(3, 3, 8, 8), torch.zeros(3, 1, 8, 8)  # noqa: E741
    M[0, :, :2, :2], M[1, :, 4:] = 1.0, 1.0  # the third has none
    fine = torch.stack([torch.full((3, 8, 8), value) for value in (0.5, -0.1, 0.7)])
    coarse = 2.0 * fine[..., ::2, ::2]
    plain = losses.reconstruction([coarse, fine], I, M)
    assert plain.item() == pytest.approx(3.0 * (0.5 + 0.1 + 0.7) / 3)
    with_holes = losses.reconstruction([coarse, fine], I, M, hole=4.0)
    assert (with_holes - plain).item() == pytest.approx(4.0 * (0.3 + 0.6))


def test_eq_12_the_feature_term_is_the_mean_square_and_leaves_the_true_image_alone() -> None:
    D1_I, D1_I_g = (torch.randn(2, 1, 6, 6, requires_grad=True) for _ in range(2))
    loss = losses.feature(D1_I, D1_I_g)
    pairs = zip(D1_I.flatten().tolist(), D1_I_g.flatten().tolist(), strict=True)
    assert loss.item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 72, rel=1e-5)
    loss.backward()
    assert D1_I.grad is None
    torch.testing.assert_close(D1_I_g.grad, (2 * (D1_I_g - D1_I) / 72).detach())


def test_eq_12_least_squares_gan() -> None:
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, -2.0]], requires_grad=True)
    assert losses.adversarial_generator(fake).item() == (1 + 9) / 2
    assert losses.adversarial_discriminator(real, fake).item() == 0.5 * (0 + 4) / 2 + 0.5 * (0 + 4) / 2
    assert losses.adversarial_generator(torch.ones(3)) == 0
    assert losses.adversarial_discriminator(torch.ones(3), torch.zeros(3)) == 0
    losses.adversarial_generator(fake).backward()
    torch.testing.assert_close(fake.grad, torch.tensor([[-1.0, -3.0]]))  # upwards, to 1


def test_fakes_of_both_paths_count_half_each() -> None:
    real, r, g = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    both = losses.adversarial_discriminator(real, torch.cat([r, g]))
    alone = [losses.adversarial_discriminator(real, x) for x in (r, g)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


# --- Eq. 17 and 18: distributions -------------------------------------------------------------------------------------


class Gaussian(NamedTuple):
    """As the projections give it."""

    mean: Tensor
    deviation: Tensor


def gaussian(seed: int = 0, batch: int = 2) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, 5, 3, 3, generator=generator)
    deviation = 0.1 + torch.rand(batch, 5, 3, 3, generator=generator)
    return Gaussian(mean.requires_grad_(True), deviation.requires_grad_(True))


def constant(mean: float, deviation: float) -> Gaussian:
    return Gaussian(torch.full((1, 1, 2, 2), mean), torch.full((1, 1, 2, 2), deviation))


def test_eq_17_of_one_gaussian_by_hand() -> None:
    q = constant(0.5, 0.2)
    assert losses.KL_r(q).item() == pytest.approx(math.log(5) + (0.04 + 0.25) / 2 - 0.5, rel=1e-5)  # 1.25
    reverse = math.log(0.2) + (1 + 0.25) / (2 * 0.04) - 0.5  # 13.5
    assert losses.KL_r(q, direction="reverse").item() == pytest.approx(reverse, rel=1e-5)


@pytest.mark.parametrize("σ_m", [1.0, 0.3])
def test_eq_17_and_18_against_torch_in_both_directions(σ_m: float) -> None:
    q, p = gaussian(), gaussian(1)
    Q, P, N = Normal(*q), Normal(*p), Normal(0.0, σ_m)
    torch.testing.assert_close(losses.KL_r(q, σ_m), kl_divergence(Q, N).mean())
    torch.testing.assert_close(losses.KL_r(q, σ_m, "reverse"), kl_divergence(N, Q).mean())
    torch.testing.assert_close(losses.KL_g(q, p), kl_divergence(Q, P).mean())
    torch.testing.assert_close(losses.KL_g(q, p, "reverse"), kl_divergence(P, Q).mean())


@pytest.mark.parametrize("direction", losses.DIRECTIONS)
def test_equal_distributions_have_no_divergence_and_others_a_positive_one(direction: str) -> None:
    q, p = gaussian(), gaussian(1)
    assert losses.KL_g(q, q, direction).abs() < 1e-7
    assert losses.KL_r(constant(0.0, 1.0), direction=direction) == 0
    assert losses.KL_r(constant(0.0, 0.4), 0.4, direction).abs() < 1e-7
    assert losses.KL_g(q, p, direction) > 0.1
    assert losses.KL_r(q, direction=direction) > 0.1


@pytest.mark.parametrize("direction", losses.DIRECTIONS)
def test_eq_18_draws_the_prior_and_eq_17_the_posterior(direction: str) -> None:
    q, p = gaussian(), gaussian(1)
    losses.KL_g(q, p, direction).backward()
    assert q.mean.grad is None
    assert q.deviation.grad is None
    before = losses.KL_g(q, p, direction)
    nearer = Gaussian(*(x.detach() - 0.1 * x.grad for x in p if x.grad is not None))
    assert losses.KL_g(q, nearer, direction) < before
    losses.KL_r(q, direction=direction).backward()
    nearer = Gaussian(*(x.detach() - 0.1 * x.grad for x in q if x.grad is not None))
    assert losses.KL_r(nearer, direction=direction) < losses.KL_r(q, direction=direction)


@pytest.mark.parametrize("free_bits", [0.0, 0.5])
def test_the_divergence_depends_on_no_size(free_bits: float) -> None:
    q, p = gaussian(), gaussian(1)
    tiled = [Gaussian(*(x.repeat(3, 2, 4, 4) for x in g)) for g in (q, p)]
    torch.testing.assert_close(losses.KL_r(tiled[0], free_bits=free_bits), losses.KL_r(q, free_bits=free_bits))
    torch.testing.assert_close(losses.KL_g(*tiled, free_bits=free_bits), losses.KL_g(q, p, free_bits=free_bits))


def test_free_bits_cost_nothing_and_have_no_gradient() -> None:
    q, p = gaussian(), gaussian(1)
    per_channel = kl_divergence(Normal(*q), Normal(0.0, 1.0)).mean((2, 3))
    free = per_channel.median().item() + 1e-3
    loss = losses.KL_r(q, free_bits=free)
    torch.testing.assert_close(loss, per_channel.clamp_min(free).mean())
    loss.backward()
    assert q.mean.grad is not None
    moved = q.mean.grad.abs().amax((2, 3)) > 0
    assert (moved == (per_channel > free)).all()
    assert 0 < moved.sum() < moved.numel()
    many = losses.KL_g(q, p, free_bits=1e3)
    many.backward()
    assert many == 1e3
    assert p.mean.grad is not None
    assert p.mean.grad.abs().max() == 0


def test_an_unknown_direction_is_refused_with_the_known_ones() -> None:
    for call in (
        lambda: losses.KL_r(gaussian(), direction="forwards"),
        lambda: losses.KL_g(gaussian(), gaussian(), ""),
    ):
        with pytest.raises(UsageError, match="reverse"):
            call()


def test_divergences_are_in_float32_and_finite_for_the_smallest_deviation() -> None:
    q = Gaussian(torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16), torch.full((1, 2, 2, 2), 1e-5).requires_grad_(True))
    for direction in losses.DIRECTIONS:
        loss = losses.KL_r(q, direction=direction)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    assert q.deviation.grad is not None
    assert q.deviation.grad.isfinite().all()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.1680), (0.25, 0.5987), (1.0, 0.9983)])
def test_a_larger_hole_has_a_wider_prior(share: float, expected: float) -> None:
    M = torch.zeros(2, 1, 8, 8)
    M[1, :, : round(8 * share)] = 1
    σ_m = losses.dynamic_sigma(M)
    assert σ_m.shape == (2, 1, 1, 1)
    assert σ_m.flatten().tolist() == pytest.approx([0.1680, expected], abs=2e-4)
    q = gaussian()
    each = [losses.KL_r(Gaussian(*(x[b : b + 1] for x in q)), σ_m[b].item()) for b in range(2)]
    torch.testing.assert_close(losses.KL_r(q, σ_m), (each[0] + each[1]) / 2)


# --- Eq. 11: match of image and text ----------------------------------------------------------------------------------


def codes(batch: int = 3, places: int = 4, seed: int = 0) -> Codes:
    """Six regions and captions of one to three words, width 5."""
    generator = torch.Generator().manual_seed(seed)
    regions, words = (torch.randn(batch, 5, n, generator=generator) for n in (6, places))
    image, sentence = (torch.randn(batch, 5, generator=generator) for _ in range(2))
    known = torch.arange(places) < (1 + torch.arange(batch) % 3)[:, None]
    return Codes(regions, image, words, sentence, known, keys([str(i) for i in range(batch)]))


def dot(x: Tensor, y: Tensor) -> float:
    return sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in values)
    return [math.exp(x) / total for x in values]


def score(v: Tensor, e: Tensor, γ1: float, γ2: float) -> float:
    """R of one image (c N) and one caption without padding (c n), word by word."""
    over_words = [softmax([dot(e[:, i], v[:, j]) for i in range(e.shape[1])]) for j in range(v.shape[1])]
    total = 0.0
    for i in range(e.shape[1]):
        α = softmax([γ1 * column[i] for column in over_words])
        c = sum((a * v[:, j] for j, a in enumerate(α)), torch.zeros(len(v)))
        total += math.exp(γ2 * dot(c, e[:, i]) / math.sqrt(dot(c, c) * dot(e[:, i], e[:, i])))
    return math.log(total)


@pytest.mark.parametrize(("γ1", "γ2"), [(5.0, 5.0), (4.0, 5.0), (1.5, 0.7)])
def test_word_scores_are_those_of_a_plain_loop(γ1: float, γ2: float) -> None:
    x = codes()
    found = losses.word_scores(x.regions, x.words, x.known, γ1, γ2)
    expected = [[score(v, e[:, :n], γ1, γ2) for e, n in zip(x.words, (1, 2, 3), strict=True)] for v in x.regions]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_caption_of_one_word_averages_the_regions() -> None:
    """One word takes all of every region, whatever its score: α is uniform."""
    x = codes()
    expected = torch.cosine_similarity(x.regions.mean(2), x.words[0, :, 0].expand(3, 5))
    torch.testing.assert_close(losses.word_scores(x.regions, x.words, x.known)[:, 0], 5.0 * expected)


def test_padding_never_counts_and_gets_no_gradient() -> None:
    x = codes()
    expected = losses.word_scores(x.regions, x.words, x.known)
    other = torch.where(x.known[:, None], x.words, 100.0)
    torch.testing.assert_close(losses.word_scores(x.regions, other, x.known), expected)
    longer = torch.cat([x.words, torch.zeros(3, 5, 6)], 2).requires_grad_(True)
    regions = x.regions.clone().requires_grad_(True)
    found = losses.word_scores(regions, longer, torch.cat([x.known, torch.zeros(3, 6, dtype=torch.bool)], 1))
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert longer.grad is not None
    assert regions.grad is not None
    known = torch.cat([x.known, torch.zeros(3, 6, dtype=torch.bool)], 1)[:, None].expand(3, 5, 10)
    assert longer.grad[~known].abs().max() == 0
    assert longer.grad[known].abs().min() > 0
    assert regions.grad.isfinite().all()


def test_scores_of_a_pair_do_not_depend_on_the_batch() -> None:
    x = codes()
    word, sentence = losses.word_scores(x.regions, x.words, x.known), losses.sentence_scores(x.image, x.sentence)
    for b in range(3):
        one = Codes(*(f[b : b + 1] for f in x))
        torch.testing.assert_close(losses.word_scores(one.regions, one.words, one.known), word[b : b + 1, b : b + 1])
        torch.testing.assert_close(losses.sentence_scores(one.image, one.sentence), sentence[b : b + 1, b : b + 1])


def test_sentence_scores_are_cosines() -> None:
    x = codes()
    found = losses.sentence_scores(x.image, x.sentence)
    for b in range(3):
        for q in range(3):
            i, t = x.image[b], x.sentence[q]
            assert found[b, q].item() == pytest.approx(dot(i, t) / math.sqrt(dot(i, i) * dot(t, t)), abs=1e-6)


def test_scores_are_in_float32_under_autocast() -> None:
    x = codes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        word = losses.word_scores(x.regions, x.words, x.known)
        sentence = losses.sentence_scores(x.image, x.sentence)
    assert torch.equal(word, losses.word_scores(x.regions, x.words, x.known))
    assert torch.equal(sentence, losses.sentence_scores(x.image, x.sentence))


def entropy(scores: Tensor, same: Tensor, γ3: float) -> float:
    """Both directions by hand; pairs of the same image other than the own are left out."""
    total, count = 0.0, len(scores)
    for rows, alike in ((scores, same), (scores.T, same.T)):
        for b in range(count):
            kept = [math.exp(γ3 * rows[b, q].item()) for q in range(count) if q == b or not alike[b, q]]
            total -= math.log(math.exp(γ3 * rows[b, b].item()) / sum(kept)) / count
    return total


@pytest.mark.parametrize("γ3", [10.0, 1.0])
def test_the_match_loss_is_the_cross_entropy_of_both_directions(γ3: float) -> None:
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    apart = torch.eye(4, dtype=torch.bool)
    same = apart.clone()
    same[0, 2] = same[2, 0] = True
    for alike in (apart, same, torch.zeros_like(apart)):
        found = losses.match_loss(scores, alike, γ3).item()
        assert found == pytest.approx(entropy(scores, alike, γ3), rel=1e-5)
    assert losses.match_loss(scores, same, γ3) < losses.match_loss(scores, apart, γ3)


def test_captions_of_the_same_image_are_no_negatives() -> None:
    scores = torch.zeros(3, 3, requires_grad=True)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    losses.match_loss(scores, same).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 1] == scores.grad[1, 0] == 0
    assert scores.grad[0, 2] > 0 > scores.grad[0, 0]


@pytest.mark.parametrize("ids", [["a"], ["a", "a", "a"]])
def test_without_negatives_the_loss_and_its_gradient_are_zero(ids: list[str]) -> None:
    x = codes(len(ids))._replace(key=keys(ids))
    x.regions.requires_grad_(True)
    x.image.requires_grad_(True)
    words, sentences = losses.match(x)
    assert words == sentences == 0
    (words + sentences).backward()
    for feature in (x.regions, x.image):
        assert feature.grad is not None
        assert feature.grad.abs().max() == 0


def test_eq_11_adds_words_and_sentences_of_the_batch() -> None:
    x = codes()._replace(key=keys(["a", "b", "a"]))
    same = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    words, sentences = losses.match(x, 4.0, 3.0, 2.0)
    scores = losses.word_scores(x.regions, x.words, x.known, 4.0, 3.0)
    assert words.item() == pytest.approx(entropy(scores, same, 2.0), rel=1e-5)
    scores = losses.sentence_scores(x.image, x.sentence)
    assert sentences.item() == pytest.approx(entropy(scores, same, 2.0), rel=1e-5)


def test_each_term_of_eq_11_reaches_its_own_codes() -> None:
    x = codes()
    for feature in x[:4]:
        feature.requires_grad_(True)
    for loss, reached in zip(losses.match(x), ((True, False, True, False), (False, True, False, True)), strict=True):
        grads = torch.autograd.grad(loss, x[:4], allow_unused=True)
        assert tuple(g is not None and bool(g.abs().max() > 0) for g in grads) == reached


def test_after_training_matched_captions_cost_less_than_others() -> None:
    x = codes(8)
    torch.manual_seed(0)
    local, whole = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
    optimizer = torch.optim.Adam([*local.parameters(), *whole.parameters()], 0.05)

    def loss(rolled: int = 0) -> Tensor:
        seen = x._replace(regions=local(x.regions.mT).mT.roll(rolled, 0), image=whole(x.image).roll(rolled, 0))
        return torch.stack(losses.match(seen)).sum()

    start = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * start
    assert loss().item() < 0.3 * min(loss(1).item(), loss(3).item())
