"""What StyleGAN2 is pre-trained with: its discriminator, and its losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.mminvertfill.generator import StyleGenerator
from zoo.models.mminvertfill.layers import Conv
from zoo.models.mminvertfill.stylegan_discriminator import Block, StyleDiscriminator, minibatch_std
from zoo.models.mminvertfill.stylegan_losses import R1, logistic_discriminator, logistic_generator, path_length

SMALL = {4: 6, 8: 5, 16: 4}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_sizes_are_those_of_the_specification() -> None:
    nano = StyleDiscriminator(64, {4: 48, 8: 48, 16: 48, 32: 32, 64: 16})
    assert sum(parameter.numel() for parameter in nano.parameters()) == 178_113
    assert nano(torch.randn(3, 3, 64, 64)).shape == (3,)


def test_halving_convolutions_filter_first() -> None:
    x, taps = torch.randn(2, 4, 8, 8), torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    fir = torch.outer(taps, taps).expand(4, 1, 4, 4)
    wide, narrow = Conv(4, 5, 3, down=True), Conv(4, 5, 1, down=True, active=False)
    y = F.conv2d(F.conv2d(F.pad(x, (2, 2, 2, 2)), fir, groups=4), wide.weight / 6, stride=2)
    torch.testing.assert_close(wide(x), F.leaky_relu(y, 0.2) * math.sqrt(2), atol=1e-5, rtol=1e-5)
    filtered = F.conv2d(F.pad(x, (1, 1, 1, 1)), fir, groups=4)
    torch.testing.assert_close(narrow(x), F.conv2d(filtered[..., ::2, ::2], narrow.weight / 2), atol=1e-5, rtol=1e-5)
    block = Block(4, 5)
    wanted = (block.main(x) + block.shortcut(x)) / math.sqrt(2)
    torch.testing.assert_close(block(x), wanted)
    assert block(x).shape == (2, 5, 4, 4)


@pytest.mark.parametrize(("batch", "members"), [(8, 4), (6, 3), (5, 1), (2, 2), (1, 1)])
def test_minibatch_deviation_by_a_loop_over_groups(batch: int, members: int) -> None:
    x, groups = torch.randn(batch, 3, 4, 4), batch // members
    found = minibatch_std(x)
    assert found.shape == (batch, 1, 4, 4)
    for i in range(batch):
        of_group = x[i % groups :: groups]
        assert len(of_group) == members
        wanted = (of_group - of_group.mean(0)).square().mean(0).add(1e-8).sqrt().mean()
        torch.testing.assert_close(found[i], wanted.expand(1, 4, 4))


def test_logistic_losses() -> None:
    D_x, D_G = torch.tensor([2.0, -1.0]), torch.tensor([0.5])
    said = [math.log1p(math.exp(v)) for v in (-2.0, 1.0, 0.5, -0.5)]
    assert logistic_discriminator(D_x, D_G).item() == pytest.approx((said[0] + said[1]) / 2 + said[2])
    assert logistic_generator(D_G).item() == pytest.approx(said[3])


def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_norm() -> None:
    a = torch.randn(3, 4, 4, requires_grad=True)
    x = torch.randn(5, 3, 4, 4, requires_grad=True)
    loss = R1((a * x).sum((1, 2, 3)), x, γ=3.0)
    assert loss.item() == pytest.approx(1.5 * a.square().sum().item(), rel=1e-5)
    loss.backward()
    torch.testing.assert_close(a.grad, 3.0 * a.detach())


def test_r1_is_a_mean_over_samples() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = R1(x.square().sum((1, 2, 3)), x)  # the gradient is 2x
    assert loss.item() == pytest.approx(5.0 * 4 * x.square().sum((1, 2, 3)).mean().item(), rel=1e-5)


def test_path_length_of_a_linear_generator() -> None:
    """g(w)_p = <A_p, w>: then Jᵀy is the sum of y_p A_p, whatever w."""
    A, w = torch.randn(3 * 16, 2, 5, requires_grad=True), torch.randn(3, 2, 5, requires_grad=True)
    y = torch.randn(3, 3, 4, 4)
    images = torch.einsum("plv,blv->bp", A, w).view(3, 3, 4, 4)
    loss, a = path_length(images, w, torch.tensor(0.7), 0.1, y)
    J_y = torch.einsum("bp,plv->blv", y.flatten(1), A) / 4
    lengths = J_y.square().sum(2).mean(1).sqrt()
    assert a.item() == pytest.approx(0.63 + 0.1 * lengths.mean().item(), rel=1e-5)
    assert not a.requires_grad
    wanted = (lengths - a).square().mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    (found,), (right,) = torch.autograd.grad(loss, A, retain_graph=True), torch.autograd.grad(wanted, A)
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def test_path_length_draws_noise_and_survives_an_image_that_ignores_w() -> None:
    w = torch.randn(2, 4, 5, requires_grad=True)
    images = w.square().sum((1, 2))[:, None, None, None].expand(-1, 3, 4, 4)
    torch.manual_seed(1)
    first = path_length(images, w, torch.zeros(()))[0]
    assert path_length(images, w, torch.zeros(()))[0] != first
    loss, _ = path_length(0 * images, w, torch.ones(()))
    loss.backward()
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()


def test_regularisers_reach_the_parameters_of_real_networks() -> None:
    generator, D = StyleGenerator(16, 8, 2, SMALL), StyleDiscriminator(16, SMALL)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    R1(D(x), x).backward()
    w = generator.mix(torch.randn(2, 8))
    path_length(generator.synthesize(w, generator.fresh_noise(2, "cpu")), w, torch.zeros(()))[0].backward()

    def idle(module: nn.Module) -> set[str]:
        return {n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}

    # activations are linear in pieces: what is added to all of them moves no gradient, but for the deviation's root
    assert idle(D) == {"last.bias", "score.0.bias", "score.1.bias"}
    assert idle(generator) == {f"rgb.{i}.bias" for i in range(3)}  # styles multiply all the others


def test_penalties_gradients_are_those_of_finite_differences() -> None:
    D = StyleDiscriminator(8, {4: 2, 8: 2}).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = D.features[1].main[0].weight

    def penalty(_: Tensor) -> Tensor:
        return R1(D(x), x)

    assert torch.autograd.gradcheck(penalty, weight, atol=1e-4)
