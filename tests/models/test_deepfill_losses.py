"""The losses of DeepFill against their closed forms."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from zoo.models.deepfill import losses


def box(top: int = 4, left: int = 6, height: int = 9, width: int = 7, size: int = 24) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., top : top + height, left : left + width] = 1
    return mask


def test_hinge_is_zero_once_both_sides_are_told_apart() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -5.0])
    assert losses.hinge_discriminator(real, fake) == 0
    assert losses.hinge_discriminator(torch.zeros(2), torch.zeros(2)) == 1
    assert losses.hinge_discriminator(real - 1, fake) == pytest.approx(0.25)
    assert losses.hinge_generator(fake) == 3


def test_wasserstein_terms_oppose_each_other() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 0.0])
    assert losses.wasserstein_critic(real, fake) == -2.5
    assert losses.wasserstein_generator(fake) == -0.5


def test_interpolation_ends_at_both_images() -> None:
    truth, made = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    t = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(losses.interpolate(truth, made, t), torch.stack([truth[0], made[1]]))


@pytest.mark.parametrize("mode", ["masked", "plain", "per_pixel"])
def test_penalty_of_a_linear_critic(mode: str) -> None:
    torch.manual_seed(0)
    a, mask = torch.randn(3, 24, 24), box().repeat(2, 1, 1, 1)
    penalty = losses.gradient_penalty(lambda x: (a * x).sum((1, 2, 3)), torch.randn(2, 3, 24, 24), mask, mode)
    expected = {
        "masked": ((a * mask[0]).norm() - 1) ** 2,
        "plain": (a.norm() - 1) ** 2,
        "per_pixel": ((a.norm(dim=0) - 1) ** 2)[mask[0, 0] > 0].mean(),
    }
    torch.testing.assert_close(penalty, expected[mode])


def test_penalty_leaves_out_samples_without_a_hole() -> None:
    a = torch.randn(3, 24, 24)
    masks = torch.cat([box(), torch.zeros(1, 1, 24, 24)])
    critic = lambda x: (a * x).sum((1, 2, 3))  # noqa: E731
    both = losses.gradient_penalty(critic, torch.randn(2, 3, 24, 24), masks)
    torch.testing.assert_close(both, ((a * masks[0]).norm() - 1) ** 2)
    assert losses.gradient_penalty(critic, torch.randn(1, 3, 24, 24), masks[1:]) == 0


@pytest.mark.parametrize("mode", ["masked", "plain", "per_pixel"])
def test_penalty_of_a_flat_critic_has_finite_gradients(mode: str) -> None:
    weight = torch.zeros(3, 24, 24, requires_grad=True)
    losses.gradient_penalty(
        lambda x: (weight * x).sum((1, 2, 3)), torch.randn(2, 3, 24, 24), box().repeat(2, 1, 1, 1), mode
    ).backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_penalty_is_taken_in_float32() -> None:
    seen = []

    def critic(x: Tensor) -> Tensor:
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return x.square().sum((1, 2, 3))

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        losses.gradient_penalty(critic, torch.randn(1, 3, 24, 24, dtype=torch.bfloat16), box())
    assert seen == [(torch.float32, False)]


def test_discount_equals_the_table_of_a_box() -> None:
    """The published table for a rectangle is exact on its top-left quadrant."""
    height, width, gamma = 9, 7, 0.9
    weight = losses.discount(box(4, 6, height, width), gamma)[0, 0, 4 : 4 + height, 6 : 6 + width]
    for i, j in product(range(height // 2 + 1), range(width // 2 + 1)):
        table = max(gamma ** min(i, height - i), gamma ** min(j, width - j))
        assert weight[i, j].item() == pytest.approx(table)


def test_discount_falls_inwards_from_one() -> None:
    mask = box()
    weight = losses.discount(mask, 0.9)
    hole = weight[0, 0, 4:13, 6:13]
    assert (hole[0] == 1).all()
    assert (hole[:, -1] == 1).all()
    assert hole[4, 3].item() == pytest.approx(0.9**3)
    assert (hole[:5, 3].diff() <= 0).all()
    assert (weight[mask == 0] == 0).all()
    assert torch.equal(losses.discount(mask, 1.0), mask)


def test_discount_at_the_border_counts_from_the_inner_side() -> None:
    weight = losses.discount(box(0, 0, 24, 4), 0.5)[0, 0, 10]
    assert weight[:5].tolist() == [0.125, 0.25, 0.5, 1.0, 0.0]


def test_discount_of_a_sample_does_not_depend_on_the_others() -> None:
    masks = torch.cat([box(), torch.ones(1, 1, 24, 24), torch.zeros(1, 1, 24, 24), box(1, 1, 20, 20)])
    together = losses.discount(masks, 0.9)
    torch.testing.assert_close(together, torch.cat([losses.discount(m[None], 0.9) for m in masks]))
    assert (together[1] == 1).all()  # nothing is known: no distance, no discount


def test_reconstruction_terms_look_where_they_should() -> None:
    truth, mask = torch.zeros(1, 3, 24, 24), box()
    off = 0.5 * mask.expand_as(truth) + 0.25 * (1 - mask)
    assert losses.discounted_l1(truth, off, mask, torch.ones_like(mask)) == pytest.approx(0.5)
    assert losses.discounted_l1(truth, off, mask, 0.5 * mask) == pytest.approx(0.25)
    assert losses.autoencoding_l1(truth, off, mask) == pytest.approx(0.25)
    hole = mask.mean().item()
    assert losses.reconstruction(truth, off).item() == pytest.approx(0.5 * hole + 0.25 * (1 - hole))


def test_losses_are_finite_without_a_hole_and_with_nothing_else() -> None:
    truth, made = torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24, 24)
    for mask in (torch.zeros(2, 1, 24, 24), torch.ones(2, 1, 24, 24)):
        weight = losses.discount(mask)
        for value in (losses.discounted_l1(truth, made, mask, weight), losses.autoencoding_l1(truth, made, mask)):
            assert value.isfinite()
            assert value >= 0
