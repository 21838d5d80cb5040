"""The resampling filter, the layers and the generator of StyleGAN2 against their definitions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.mminvertfill.fir import blur, down2, kernel, up2
from zoo.models.mminvertfill.generator import StyleGenerator, config_f
from zoo.models.mminvertfill.layers import Conv, Linear, StyledConv, ToRGB

NANO = {4: 48, 8: 48, 16: 48, 32: 32, 64: 16}
SMALL = {4: 6, 8: 5, 16: 4}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> StyleGenerator:
    """A small one, with biases and noise that matter."""
    made = StyleGenerator(16, 8, 2, SMALL)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim < 2:
                parameter += 0.2 * torch.randn(parameter.shape)
    return made


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- the filter -----------------------------------------------------------------------------------------------------


def filtered(x: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
    """By a loop over the taps, after padding."""
    x = F.pad(x, (before, after, before, after))
    h, w = x.shape[-2] - 3, x.shape[-1] - 3
    taps = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    return gain * sum(a * b * x[..., i : i + h, j : j + w] for i, a in enumerate(taps) for j, b in enumerate(taps))


def stuffed(x: Tensor) -> Tensor:
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[..., ::2, ::2] = x
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filters_are_those_of_the_definition(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 6, 10, dtype=dtype)
    torch.testing.assert_close(up2(x), filtered(stuffed(x), 2, 1, 4.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(down2(x), filtered(x, 1, 1)[..., ::2, ::2], atol=1e-6, rtol=0)
    for padding, gain in ((1, 4.0), (2, 1.0)):
        torch.testing.assert_close(blur(x, padding, gain), filtered(x, padding, padding, gain), atol=1e-6, rtol=0)


def test_a_constant_stays_inside_and_darkens_at_the_border() -> None:
    y = up2(torch.ones(1, 1, 4, 4))[0, 0]
    torch.testing.assert_close(y[1:-1, 1:-1], torch.ones(6, 6))
    torch.testing.assert_close(y[0, 1:-1], torch.full((6,), 0.75))
    assert y[0, 0].item() == y[-1, 0].item() == 0.5625


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_kernel_is_exact_in_every_precision(dtype: torch.dtype) -> None:
    assert (64 * kernel(dtype, torch.device("cpu"))[0, 0, 1]).tolist() == [3.0, 9.0, 9.0, 3.0]


def test_a_kernel_first_used_for_inference_can_be_trained_through() -> None:
    kernel.cache_clear()
    with torch.inference_mode():
        up2(torch.ones(1, 1, 4, 4))
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    down2(up2(x)).sum().backward()
    assert x.grad is not None


def test_filters_are_differentiable_twice() -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    for work in (up2, down2, lambda v: blur(v, 1, 4.0)):
        assert torch.autograd.gradgradcheck(lambda v, work=work: work(v).square(), x)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_equalised_layers_scale_weights_when_they_are_used() -> None:
    layer, x = Linear(50, 400, lr=0.01, bias=0.3, active=True), torch.randn(7, 50)
    assert layer.weight.std().item() == pytest.approx(100.0, rel=0.05)
    wanted = F.leaky_relu(x @ (layer.weight * 0.01 / math.sqrt(50)).T + 0.3, 0.2) * math.sqrt(2)
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)
    conv, x = Conv(5, 6, 3), torch.randn(2, 5, 8, 8)
    wanted = F.leaky_relu(F.conv2d(x, conv.weight / math.sqrt(45), padding=1), 0.2) * math.sqrt(2)
    torch.testing.assert_close(conv(x), wanted, atol=1e-5, rtol=1e-5)


def explicit(layer: StyledConv, s: Tensor, d: Tensor) -> Tensor:
    return layer.weight * s[:, None, :, None, None] * d[:, :, None, None, None]


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_a_grouped_one_with_each_samples_weights(up: bool) -> None:
    layer, x, w = StyledConv(6, 5, 8, up), torch.randn(3, 6, 7, 7), torch.randn(3, 8)
    with torch.no_grad():
        layer.strength.fill_(0.3)
        layer.bias.normal_()
    style = (w @ layer.affine.weight.T / math.sqrt(8) + 1)[:, None, :, None, None]
    weights = style * layer.weight / math.sqrt(54)
    weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    noise = torch.randn(3, 1, *(2 * [14 if up else 7]))
    grouped = x.reshape(1, 18, 7, 7)
    if up:
        y = F.conv_transpose2d(grouped, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=3)
        y = filtered(y.view(3, 5, 15, 15), 1, 1, 4.0)
    else:
        y = F.conv2d(grouped, weights.flatten(0, 1), padding=1, groups=3).view(3, 5, 7, 7)
    wanted = F.leaky_relu(y + 0.3 * noise + layer.bias[:, None, None], 0.2) * math.sqrt(2)
    torch.testing.assert_close(layer(x, w, noise), wanted, atol=1e-5, rtol=1e-5)


def test_demodulated_weights_have_norm_one_and_ignore_the_scale_of_the_style() -> None:
    layer, w = StyledConv(12, 9, 8), torch.randn(4, 8)
    weights = explicit(layer, *layer.modulation(w))
    torch.testing.assert_close(weights.flatten(2).norm(dim=2), torch.ones(4, 9), atol=1e-6, rtol=0)
    with torch.no_grad():
        layer.affine.weight *= 7
        layer.affine.bias *= 7
    torch.testing.assert_close(explicit(layer, *layer.modulation(w)), weights, atol=1e-6, rtol=1e-6)


def test_a_style_of_zeros_gives_no_nan() -> None:
    layer = StyledConv(4, 3, 8)
    torch.nn.init.zeros_(layer.affine.bias)
    w = torch.zeros(2, 8, requires_grad=True)
    layer(torch.randn(2, 4, 4, 4), w).square().sum().backward()
    assert w.grad is not None
    assert torch.isfinite(w.grad).all()


def test_rgb_is_linear_in_its_style() -> None:
    layer, x, w = ToRGB(6, 8), torch.randn(2, 6, 5, 5), torch.randn(2, 8)
    s = layer.affine(w)
    wanted = torch.einsum("oi,bi,bihw->bohw", layer.weight.flatten(1), s, x) / math.sqrt(6)
    torch.testing.assert_close(layer(x, w), wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        layer.affine.weight *= 7
        layer.affine.bias *= 7
    torch.testing.assert_close(layer(x, w), 7 * wanted, atol=1e-4, rtol=1e-5)


def test_layers_do_not_depend_on_the_memory_layout() -> None:
    x, w = torch.randn(2, 6, 8, 8), torch.randn(2, 8)
    strided = torch.randn(2, 6, 8, 16)[..., ::2].copy_(x)
    for layer in (StyledConv(6, 5, 8), StyledConv(6, 5, 8, up=True), ToRGB(6, 8)):
        for y in (x.to(memory_format=torch.channels_last), strided):
            torch.testing.assert_close(layer(y, w), layer(x, w), atol=1e-5, rtol=1e-5)


# --- the generator --------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_specification() -> None:
    with torch.device("meta"):
        assert count(StyleGenerator()) == 30_034_338
        assert [StyleGenerator(n, 8, 1, dict.fromkeys(config_f(n), 2)).styles for n in (64, 256, 512)] == [10, 14, 16]
    assert count(StyleGenerator(64, 48, 4, NANO)) == 172_184
    assert config_f(1024) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


def test_initial_values() -> None:
    made = StyleGenerator(64, 48, 4, NANO)
    for layer in made.layers:
        assert layer.weight.std().item() == pytest.approx(1.0, rel=0.05)
        assert layer.strength.item() == layer.bias.abs().max().item() == 0.0
        assert (layer.affine.bias == 1).all()
    assert all((rgb.affine.bias == 1).all() and (rgb.bias == 0).all() for rgb in made.rgb)
    assert made.constant.std().item() == pytest.approx(1.0, rel=0.1)
    assert made.mapping[0].weight.std().item() == pytest.approx(100.0, rel=0.05)
    images = made(torch.randn(4, 48))
    assert 0.05 < images.std().item() < 20  # equalised: neither vanishing nor exploding


def by_hand(g: StyleGenerator, w: Tensor, noise: list[Tensor], structure: dict[int, Tensor], first: Tensor) -> Tensor:
    """Sixteen pixels, layer by layer."""
    x = g.layers[0](first, w[:, 0], noise[0])
    image = g.rgb[0](x, w[:, 1])
    for n, up, same, rgb in ((8, 1, 2, 3), (16, 3, 4, 5)):
        x = g.layers[up](x, w[:, up], noise[up]) + structure[n]
        x = g.layers[same](x, w[:, same], noise[same])
        image = up2(image) + g.rgb[rgb // 2](x, w[:, rgb])
    return image


def test_styles_noise_and_structure_enter_where_they_should(generator: StyleGenerator) -> None:
    w, noise = torch.randn(2, 6, 8), generator.fresh_noise(2, "cpu")
    structure = {n: torch.randn(2, c, n, n) for n, c in SMALL.items()}
    for replace in (False, True):
        first = structure[4] if replace else structure[4] + generator.constant
        wanted = by_hand(generator, w, noise, structure, first)
        image = generator.synthesize(w, noise, structure, replace)
        torch.testing.assert_close(image, wanted, atol=1e-5, rtol=1e-5)
    zeros = {n: torch.zeros(2, c, n, n) for n, c in SMALL.items()}
    assert torch.equal(generator.synthesize(w, noise, zeros), generator.synthesize(w, noise))
    assert set(structure) == {4, 8, 16}


def test_gradients_reach_every_entrance(generator: StyleGenerator) -> None:
    generator.requires_grad_(False)
    w = torch.randn(2, 6, 8, requires_grad=True)
    structure = {n: torch.zeros(2, c, n, n, requires_grad=True) for n, c in SMALL.items()}
    generator.synthesize(w, None, structure).square().sum().backward()
    assert w.grad is not None
    assert (w.grad.abs().sum((0, 2)) > 0).all()
    for x in structure.values():
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_noises(generator: StyleGenerator) -> None:
    w = torch.randn(1, 6, 8).expand(2, -1, -1)
    shapes = [(4, 4), (8, 8), (8, 8), (16, 16), (16, 16)]
    assert [tuple(n.shape) for n in generator.fresh_noise(2, "cpu")] == [(2, 1, *s) for s in shapes]
    assert [tuple(n.shape) for n in generator.fixed_noise()] == [(1, 1, *s) for s in shapes]
    first, second = generator.synthesize(w, generator.fixed_noise())
    torch.testing.assert_close(first, second)
    first, second = generator.synthesize(w, generator.fresh_noise(2, "cpu"))
    assert (first - second).abs().max() > 1e-3
    draws = [generator.fresh_noise(1, "cpu", torch.Generator().manual_seed(5))[3] for _ in range(2)]
    assert torch.equal(*draws)
    again = StyleGenerator(16, 8, 2, SMALL)
    again.load_state_dict(generator.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.fixed_noise(), generator.fixed_noise(), strict=True))


def test_mapping_normalises_and_mixing_crosses_over(generator: StyleGenerator) -> None:
    z, other = torch.randn(2, 3, 8)
    torch.testing.assert_close(generator.map(5 * z), generator.map(z), atol=1e-5, rtol=1e-5)
    styles = generator.mix(z, other, 2)
    torch.testing.assert_close(styles[:, :2], generator.map(z)[:, None].expand(-1, 2, -1))
    torch.testing.assert_close(styles[:, 2:], generator.map(other)[:, None].expand(-1, 4, -1))
    torch.testing.assert_close(generator(z, None, other, 2), generator.synthesize(styles))
    torch.testing.assert_close(generator(z), generator.synthesize(generator.mix(z)))


def test_a_sample_alone_is_as_in_a_batch(generator: StyleGenerator) -> None:
    w = torch.randn(3, 6, 8)
    alone = torch.cat([generator.synthesize(v[None], generator.fixed_noise()) for v in w])
    torch.testing.assert_close(generator.synthesize(w, generator.fixed_noise()), alone, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_w_is_differentiable_again() -> None:
    made = StyleGenerator(8, 3, 1, {4: 2, 8: 2}).double()
    w = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    f = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    parameters = [made.layers[1].weight, made.layers[1].affine.weight]

    def image(w: Tensor, f: Tensor, *_: Tensor) -> Tensor:
        return made.synthesize(w, None, {4: f})

    assert torch.autograd.gradcheck(image, (w, f, *parameters))
    assert torch.autograd.gradgradcheck(image, (w, f, *parameters), atol=1e-4, fast_mode=True)


def unlike(x: Tensor, wanted: Tensor) -> float:
    return ((x - wanted).abs().max() / wanted.abs().max()).item()


def test_autocast_leaves_styles_and_sums_in_float32(generator: StyleGenerator) -> None:
    z, w = torch.randn(2, 8), torch.randn(2, 6, 8)
    layer, rgb, x = generator.layers[1], generator.rgb[0], torch.randn(2, 6, 4, 4)
    wanted = generator.map(z), *layer.modulation(w[:, 0]), rgb(x, w[:, 0])
    image = generator.synthesize(w)
    with torch.autocast("cpu", torch.bfloat16):
        found = generator.map(z), *layer.modulation(w[:, 0]), rgb(x, w[:, 0])
        assert layer(x, w[:, 0]).dtype == torch.float32
        half = generator.synthesize(w)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert half.dtype == torch.float32
    assert 1e-5 < unlike(half, image) < 0.03


def test_large_styles_overflow_no_half_precision() -> None:
    layer = StyledConv(64, 4, 8)
    x, w = 300 * torch.randn(1, 64, 4, 4), torch.randn(1, 8)
    with torch.no_grad():
        layer.affine.weight *= 1e4
    wanted = layer(x, w)
    with torch.autocast("cpu", torch.float16):
        found = layer(x, w)
    assert unlike(found, wanted) < 0.01


def sizes_that_are_wrong() -> Iterator[tuple[int, dict[int, int] | None, str]]:
    yield 96, None, "power of two"
    yield 4, None, "power of two"
    yield 16, {4: 2, 16: 2}, "channels at 8"


@pytest.mark.parametrize(("size", "channels", "said"), sizes_that_are_wrong())
def test_impossible_sizes_are_refused(size: int, channels: dict[int, int] | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        StyleGenerator(size, 8, 1, channels)


def test_wrong_inputs_are_refused(generator: StyleGenerator) -> None:
    w = torch.randn(1, 6, 8)
    with pytest.raises(UsageError, match="B 6 8"):
        generator.synthesize(w[:, :5])
    with pytest.raises(UsageError, match="5 layers"):
        generator.synthesize(w, generator.fixed_noise()[:3])
    with pytest.raises(UsageError, match="resolution 32"):
        generator.synthesize(w, None, {32: w})
