"""The residual blocks of PICNet against a plain reimplementation, and their spectral normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers import residual
from zoo.layers.residual import Conv, EnlargingConv, Output, Residual, Score, down, first, same, up


def weights(layer: Any) -> Tensor:
    """The weight of a layer divided by the estimate of its largest singular value, by hand."""
    made = layer.parametrizations.weight
    original: Tensor = made.original
    matrix = (original.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else original).flatten(1)
    normalized: Tensor = original / (made[0]._u @ matrix @ made[0]._v)
    return normalized


def conv(x: Tensor, layer: Any, padding: int) -> Tensor:
    return F.conv2d(x, weights(layer), layer.bias, padding=padding)


def enlarge(x: Tensor, layer: Any) -> Tensor:
    return F.conv_transpose2d(x, weights(layer), layer.bias, 2, 1, 1)


def normalize(x: Tensor, layer: Any) -> Tensor:
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    scale, shift = (p.view(1, -1, 1, 1) for p in (layer.weight, layer.bias))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def leaky(x: Tensor, slope: float = 0.1) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def halve(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).mean((3, 5))


def layers(branch: nn.Module) -> list[Any]:
    """The layers of a branch that have weights, in their order."""
    return [m for m in branch.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.InstanceNorm2d)]


def plain_first(block: Residual, x: Tensor) -> Tensor:
    (a, b), (s,) = layers(block.main), layers(block.shortcut)
    return halve(conv(leaky(conv(x, a, 1)), b, 1)) + conv(halve(x), s, 0)


def plain_down(block: Residual, x: Tensor) -> Tensor:
    (a, b), (s,) = layers(block.main), layers(block.shortcut)
    return halve(conv(leaky(conv(leaky(x), a, 1)), b, 1)) + halve(conv(x, s, 0))


def plain_same(block: Residual, x: Tensor, slope: float = 0.1) -> Tensor:
    (a, b), (s,) = layers(block.main), layers(block.shortcut)
    return conv(leaky(conv(leaky(x, slope), a, 1), slope), b, 1) + conv(x, s, 0)


def plain_up(block: Residual, x: Tensor) -> Tensor:
    (m, a, n, b), (s,) = layers(block.main), layers(block.shortcut)
    hidden = conv(leaky(normalize(x, m)), a, 1)
    return enlarge(leaky(normalize(hidden, n)), b) + enlarge(x, s)


def lively(block: nn.Module) -> nn.Module:
    """Every parameter away from where it starts, so that a bias or a scale that is forgotten shows."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.eval()


@pytest.mark.parametrize(
    ("make", "plain", "hidden", "scale"),
    [
        (first, plain_first, 7, 0.5),
        (down, plain_down, 5, 0.5),
        (same, plain_same, 7, 1),
        (lambda c, d: same(c, d, hidden=6), plain_same, 6, 1),
        (lambda c, d: same(c, d, slope=0.01), lambda block, x: plain_same(block, x, 0.01), 7, 1),
        (up, plain_up, 7, 2),
    ],
    ids=["first", "down", "same", "same with a hidden width", "same with another slope", "up"],
)
def test_a_block_is_what_its_layers_say(
    make: Callable[[int, int], Residual], plain: Callable[[Any, Tensor], Tensor], hidden: int, scale: float
) -> None:
    torch.manual_seed(0)
    block, x = make(5, 7), torch.randn(2, 5, 8, 12)
    lively(block)
    y = block(x)
    assert y.shape == (2, 7, int(8 * scale), int(12 * scale))
    torch.testing.assert_close(y, plain(block, x), atol=1e-5, rtol=1e-5)
    inner = next(m for m in block.main.modules() if isinstance(m, nn.Conv2d))
    assert inner.out_channels == hidden


@pytest.mark.parametrize(
    ("make", "plain"),
    [(first, plain_first), (down, plain_down), (same, plain_same), (up, plain_up)],
    ids=["first", "down", "same", "up"],
)
def test_the_shortcut_is_learned_where_the_widths_agree_too(
    make: Callable[[int, int], Residual], plain: Callable[[Any, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    block, x = make(4, 4), torch.randn(2, 4, 8, 8)
    lively(block)
    torch.testing.assert_close(block(x), plain(block, x), atol=1e-5, rtol=1e-5)


def test_the_head_makes_an_image() -> None:
    torch.manual_seed(0)
    head, x = Output(5), torch.randn(2, 5, 6, 9)
    lively(head)
    padded = torch.cat([leaky(x)[..., 1:2], leaky(x), leaky(x)[..., -2:-1]], 3)
    padded = torch.cat([padded[..., 1:2, :], padded, padded[..., -2:-1, :]], 2)
    torch.testing.assert_close(head(x), torch.tanh(conv(padded, head.conv, 0)))
    assert head(100 * x).abs().max() <= 1


def test_the_score_is_linear_in_normalized_weights() -> None:
    torch.manual_seed(0)
    score, x = Score(6), torch.randn(4, 6)
    lively(score)
    torch.testing.assert_close(score(x), x @ weights(score).T + score.bias)


@pytest.mark.parametrize(
    "make", [lambda: Conv(4, 6), lambda: EnlargingConv(4, 6), lambda: Score(6)], ids=["conv", "enlarging", "score"]
)
def test_the_largest_singular_value_becomes_one(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    layer = make()
    with torch.no_grad():
        original = layer.parametrizations.weight.original
        original.mul_(3.0).add_(torch.randn_like(original))
    x = torch.randn(2, 6) if isinstance(layer, Score) else torch.randn(2, 4, 8, 8)
    for _ in range(200):
        layer(x)
    weight = layer.eval().weight
    matrix = (weight.transpose(0, 1) if isinstance(layer, EnlargingConv) else weight).flatten(1)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("dim", [0, 1])
def test_rows_of_a_transposed_convolution_are_its_inputs_or_its_outputs(dim: int) -> None:
    torch.manual_seed(0)
    layer: Any = EnlargingConv(4, 6, dim=dim)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.randn(6, 3, 3).expand(4, 6, 3, 3))  # all inputs alike
    for _ in range(200):
        layer(torch.zeros(1, 4, 2, 2))
    weight = layer.eval().weight
    norms = [torch.linalg.matrix_norm(m.flatten(1), 2).item() for m in (weight, weight.transpose(0, 1))]
    assert norms[dim] == pytest.approx(1.0, abs=1e-3)
    assert abs(norms[1 - dim] - 1.0) > 0.1
    assert [len(m.parametrizations.weight[0]._u) for m in _transposed(up(4, 6, dim=dim))] == (
        [6, 4] if dim == 0 else [6, 6]
    )


def _transposed(block: Residual) -> list[Any]:
    return [m for m in block.modules() if isinstance(m, nn.ConvTranspose2d)]


@pytest.mark.parametrize(
    "make", [first, down, same, up, lambda c, d: Output(c)], ids=["first", "down", "same", "up", "output"]
)
def test_every_convolution_of_a_block_is_normalized_or_none(make: Callable[..., Any]) -> None:
    for spectral in (True, False):
        block = make(4, 6, spectral=spectral) if make in (first, down, same, up) else Output(4, spectral)
        convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(convolutions) == (1 if isinstance(block, Output) else 3)
        assert all(hasattr(m, "parametrizations") == spectral for m in convolutions)


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("make", [Conv, EnlargingConv])
def test_weights_start_orthogonal_and_biases_at_zero(make: Callable[..., Any], spectral: bool) -> None:
    torch.manual_seed(0)
    layer = make(3, 8, spectral=spectral)
    weight = layer.parametrizations.weight.original if spectral else layer.weight
    matrix = weight.detach().flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5, rtol=0.0)
    assert layer.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("make", "shape"), [(lambda: Conv(4, 6), (2, 4, 8, 8)), (lambda: EnlargingConv(4, 6), (2, 4, 8, 8)),
                        (lambda: Score(6), (2, 6))], ids=["conv", "enlarging", "score"]
)  # fmt: skip
def test_the_power_iteration_is_float32_under_autocast(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    """CPUs keep products of matrix and vector in float32 by themselves, GPUs do not: the switch is looked at too."""
    estimates, outputs, cast = [], [], []
    for enabled in (False, True):
        torch.manual_seed(0)
        layer, x = make(), torch.randn(shape)
        layer.parametrizations.weight[0].register_forward_pre_hook(
            lambda *_: cast.append(torch.is_autocast_enabled("cpu"))
        )
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(torch.rand(()) + 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs.append(layer(x).dtype)
        estimates.append({k: v for k, v in layer.state_dict().items() if k.endswith(("_u", "_v"))})
    assert len(estimates[0]) == 2
    for name, value in estimates[0].items():
        assert torch.equal(estimates[1][name], value)
    assert cast == [False, False]
    assert outputs == [torch.float32, torch.bfloat16]  # the layer itself does run in low precision


def test_the_power_iteration_moves_in_training_only() -> None:
    torch.manual_seed(0)
    layer: Any = Conv(4, 6)
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        original = layer.parametrizations.weight.original
        original.add_(torch.randn_like(original))

    name = "parametrizations.weight.0._u"
    before = layer.state_dict()[name].clone()
    layer.eval()(x)
    assert torch.equal(layer.state_dict()[name], before)
    layer.train()(x)
    assert not torch.equal(layer.state_dict()[name], before)


def test_the_slope_is_picnets() -> None:
    assert residual.SLOPE == 0.1
    torch.testing.assert_close(residual.activation()(torch.tensor([-2.0, 3.0])), torch.tensor([-0.2, 3.0]))
