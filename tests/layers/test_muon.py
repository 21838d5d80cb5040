"""Muon: PyTorch's on matrices, and the same on kernels as on the matrices they flatten to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.layers.muon import Muon, orthogonal

STEPS = 4


def gradients(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(STEPS)]


def trained(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, shape: tuple[int, ...]) -> torch.Tensor:
    for gradient in gradients(shape):
        parameter.grad = gradient.reshape(parameter.shape)
        optimizer.step()
    return parameter.detach()


def start(shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_on_matrices_it_is_pytorchs(shape: tuple[int, ...]) -> None:
    ours, theirs = start(shape), start(shape)
    a = trained(Muon([ours], lr=0.02, weight_decay=0.1), ours, shape)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    assert torch.equal(a, trained(reference, theirs, shape))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_the_matrix_of_its_outputs(layout: torch.memory_format) -> None:
    shape = (8, 5, 3, 3)
    kernel = nn.Parameter(start(shape).detach().to(memory_format=layout))
    matrix = nn.Parameter(start(shape).detach().flatten(1))
    a = trained(Muon([kernel], lr=0.02, weight_decay=0.1), kernel, shape)
    b = trained(Muon([matrix], lr=0.02, weight_decay=0.1), matrix, shape)
    assert torch.equal(a.flatten(1), b)


def test_an_update_has_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(16, 40, generator=torch.Generator().manual_seed(0))).float())
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_parameters_without_gradients_stay_and_the_closure_is_called() -> None:
    still, moved = start((4, 4)), start((4, 4))
    optimizer = Muon([still, moved], lr=0.1)
    moved.grad = torch.ones(4, 4)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(still, start((4, 4)))
    assert not torch.equal(moved, start((4, 4)))


def test_its_state_goes_on_where_it_was_saved() -> None:
    whole, half = start((4, 6)), start((4, 6))
    a = trained(Muon([whole], lr=0.1), whole, (4, 6))
    first = Muon([half], lr=0.1)
    for gradient in gradients((4, 6))[:2]:
        half.grad = gradient
        first.step()
    second = Muon([half], lr=0.1)
    second.load_state_dict(first.state_dict())
    for gradient in gradients((4, 6))[2:]:
        half.grad = gradient
        second.step()
    assert torch.equal(a, half.detach())
