"""The losses of MMInvertFill against plain loops and closed forms, and where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.mminvertfill import losses


def image(batch: int = 2, size: int = 16, seed: int = 0) -> Tensor:
    return 2 * torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 1


def pyramid(x: Tensor) -> list[Tensor]:
    return [x, F.avg_pool2d(x, 2)]


# --- Eq. 7 ------------------------------------------------------------------------------------------------------------


def test_eq_7_features_are_compared_by_the_mean_square_and_only_the_output_learns() -> None:
    I, O = image().requires_grad_(), image(seed=1).requires_grad_()  # noqa: E741
    loss = losses.L_hrf(pyramid(I), pyramid(O))
    expected = sum((a - b).pow(2).sum() / a.numel() for a, b in zip(pyramid(I), pyramid(O), strict=True))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert I.grad is None
    assert O.grad is not None
    assert O.grad.abs().sum() > 0
    assert losses.L_hrf(pyramid(I), pyramid(I)) == 0


def test_eq_7_adversarial_losses_by_hand() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 1.0])
    assert losses.L_D(real, fake).item() == (0.5 + 0) / 2 + (0 + 2.0) / 2
    assert losses.L_adv(fake).item() == 1.0
    assert losses.L_D(torch.ones(3), -torch.ones(3)) == 0

    def entropy(p: Tensor) -> float:
        return -sum(math.log(x) for x in p.tolist()) / len(p)

    expected = entropy(real.sigmoid()) + entropy(1 - fake.sigmoid())
    assert losses.L_D(real, fake, "nsgan").item() == pytest.approx(expected, rel=1e-5)
    assert losses.L_adv(fake, "nsgan").item() == pytest.approx(entropy(fake.sigmoid()), rel=1e-5)
    for wrong in (lambda: losses.L_D(real, fake, "wgan"), lambda: losses.L_adv(fake, "wgan")):
        with pytest.raises(UsageError, match="wgan"):
            wrong()


# --- Eq. 8 ------------------------------------------------------------------------------------------------------------


def test_eq_8_small_images_are_compared_with_means_over_areas() -> None:
    I, O_r = image(), image(size=4, seed=1)  # noqa: E741
    total = 0.0
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (2, 3, 4, 4))).tolist():
        total += (I[b, c, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() - O_r[b, c, i, j]).item() ** 2
    assert losses.reconstruction(O_r, I).item() == pytest.approx(total / O_r.numel(), rel=1e-5)


def test_eq_8_edges_are_balanced_over_the_batch_and_survive_every_size() -> None:
    E, E_r = torch.zeros(2, 1, 8, 8), torch.randn(2, 1, 4, 4)
    E[0, 0, 3, 5] = E[1, 0, 0, 0] = E[1, 0, 7, 7] = 1.0
    edges = {(0, 1, 2), (1, 0, 0), (1, 3, 3)}  # one pixel of four is enough
    total = 0.0
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)).tolist():
        p = E_r[b, 0, i, j].sigmoid().item()
        is_edge = (b, i, j) in edges
        total += (29 / 32) * -math.log(p) if is_edge else (3 / 32) * -math.log(1 - p)
    assert losses.edge_entropy(E_r, E).item() == pytest.approx(total / 32, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_eq_8_a_batch_of_one_class_of_edges_costs_nothing(value: float) -> None:
    E_r = (100 * torch.randn(2, 1, 4, 4)).requires_grad_()
    loss = losses.edge_entropy(E_r, torch.full((2, 1, 8, 8), value))
    assert loss == 0
    loss.backward()
    assert E_r.grad is not None
    assert E_r.grad.eq(0).all()


def test_eq_8_classes_of_known_pixels_count_by_sample_and_unknown_samples_not_at_all() -> None:
    S = torch.randint(0, 5, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    S[0, :, :4], S[1] = 255, 255
    S_r = torch.randn(3, 5, 4, 4, requires_grad=True)
    means = []
    for b in (0, 2):
        values = [
            -S_r[b, :, i, j].log_softmax(0)[S[b, 2 * i, 2 * j]].item()
            for i in range(4)
            for j in range(4)
            if S[b, 2 * i, 2 * j] != 255
        ]
        assert len(values) == (8 if b == 0 else 16)
        means.append(sum(values) / len(values))
    loss = losses.segmentation_entropy(S_r, S)
    assert loss.item() == pytest.approx(sum(means) / 2, rel=1e-5)
    loss.backward()
    assert S_r.grad is not None
    assert S_r.grad[1].eq(0).all()
    assert S_r.grad[0].abs().sum() > 0
    nothing = losses.segmentation_entropy(S_r.detach().requires_grad_(), torch.full((3, 8, 8), 255))
    assert nothing == 0
    nothing.backward()


def test_eq_8_terms_are_those_of_the_modalities_there_are_summed_over_scales() -> None:
    I, E, S = image(), (image()[:, :1] > 0.5).float(), torch.randint(0, 5, (2, 16, 16))  # noqa: E741
    O = [image(size=s, seed=s) for s in (2, 4, 8)]  # noqa: E741
    E_r, S_r = ([torch.randn(2, c, s, s) for s in (2, 4, 8)] for c in (1, 5))
    full = losses.L_msr(O, I, (E_r, E), (S_r, S), pyramid)
    assert set(full) == {"rec", "perc", "edge", "seg"}
    assert set(losses.L_msr(O, I, (E_r, E))) == {"rec", "edge"}
    assert set(losses.L_msr(O, I, None, (S_r, S))) == {"rec", "seg"}
    torch.testing.assert_close(full["rec"], sum(losses.reconstruction(x, I) for x in O))
    torch.testing.assert_close(full["edge"], sum(losses.edge_entropy(x, E) for x in E_r))
    torch.testing.assert_close(full["seg"], sum(losses.segmentation_entropy(x, S) for x in S_r))
    truths = [F.interpolate(I, x.shape[-2:], mode="area") for x in O]
    expected = sum(
        (a - b).abs().mean()
        for x, t in zip(O, truths, strict=True)
        for a, b in zip(pyramid(x), pyramid(t), strict=True)
    )
    torch.testing.assert_close(full["perc"], expected)


# --- Eq. 9 ------------------------------------------------------------------------------------------------------------


def test_eq_9_is_a_norm_of_each_sample_or_the_mean_square() -> None:
    w, mean = torch.zeros(2, 3, 4), torch.full((4,), 0.5)
    w[0] = 1.5
    assert losses.L_fid(w, mean).item() == pytest.approx((12**0.5 + 3**0.5) / 2)
    assert losses.L_fid(w, mean, "mse").item() == pytest.approx((1 + 0.25) / 2)
    with pytest.raises(UsageError, match="norm"):
        losses.L_fid(w, mean, "nrm")


def test_eq_9_has_a_gradient_at_zero() -> None:
    w = torch.zeros(2, 3, 4, requires_grad=True)
    losses.L_fid(w, torch.zeros(4)).backward()
    assert w.grad is not None
    assert w.grad.eq(0).all()


# --- InvertFill's loss ------------------------------------------------------------------------------------------------


def test_rfr_terms_against_their_definitions() -> None:
    I, O = image(), image(seed=1).requires_grad_()  # noqa: E741
    M = torch.zeros(2, 1, 16, 16)
    M[0, 0, 4:9, 2:12] = 1.0
    C = O * M + I * (1 - M)
    terms = losses.L_rfr(I, O, M, pyramid)
    assert set(terms) == set(losses.RFR_WEIGHTS)
    torch.testing.assert_close(terms["valid"] + terms["hole"], (I - O).abs().mean())
    torch.testing.assert_close(terms["hole"], (I - C).abs().mean())
    sides = [pyramid(I), pyramid(O), pyramid(C)]
    expected = sum((a - x).abs().mean() for side in sides[1:] for a, x in zip(sides[0], side, strict=True))
    torch.testing.assert_close(terms["perc"], expected)

    def gram(x: Tensor) -> Tensor:
        return torch.einsum("bchw,bdhw->bcd", x, x) / x[0].numel()

    expected = sum((gram(a) - gram(x)).abs().mean() for side in sides[1:] for a, x in zip(sides[0], side, strict=True))
    torch.testing.assert_close(terms["style"], expected)
    torch.stack(list(terms.values())).sum().backward()
    assert O.grad is not None
    assert O.grad.isfinite().all()


def test_total_variation_counts_neighbours_of_the_hole_only() -> None:
    C, M = torch.zeros(1, 3, 6, 6), torch.zeros(1, 1, 6, 6)
    C[..., 3, 3] = 1.0
    assert losses.total_variation(C, M) == 0
    M[..., 3, 2] = 1.0  # to the left of the point
    assert losses.total_variation(C, M).item() == pytest.approx(1 / 30)
    M[..., 3, 3] = 1.0  # all four of its sides
    assert losses.total_variation(C, M).item() == pytest.approx(4 / 30)
    M[..., :, :] = 0.0
    M[..., 0, 0] = 1.0
    assert losses.total_variation(C, M) == 0


def test_losses_are_float32_whatever_the_networks() -> None:
    half = [x.bfloat16() for x in pyramid(image())]
    assert losses.L_hrf(half, half).dtype == torch.float32
    assert losses.perceptual(half, half).dtype == torch.float32
    assert losses.L_fid(half[0][:, 0], torch.zeros(16)).dtype == torch.float32
    assert losses.edge_entropy(half[0][:, :1], torch.zeros(2, 1, 16, 16)).dtype == torch.float32
    assert losses.L_adv(half[0]).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.gram(half[0]).dtype == torch.float32
