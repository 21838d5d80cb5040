"""Short and long term attention: the steps against a loop over cells, its start, what is built, numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.nigdt.shortlong import ShortLongAttention

B, C, H, W = 2, 8, 3, 4


def make(gamma: float = 0.7, alpha: float = -1.3, **changes: Any) -> ShortLongAttention:
    """In eval mode, so that spectral normalization stands still, with scores far from uniform."""
    torch.manual_seed(0)
    layer = ShortLongAttention(C, **changes).eval()
    with torch.no_grad():
        nn.init.normal_(layer.query.weight)
        assert layer.query.bias is not None
        nn.init.normal_(layer.query.bias)
        layer.gamma.fill_(gamma)
        if layer.long:
            layer.alpha.fill_(alpha)
    return layer


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """x, e and the hole map: one sample with a hole, one without."""
    generator = torch.Generator().manual_seed(1)
    hole = torch.zeros(B, 1, H, W)
    hole[0, 0, :2, 1:] = 1
    return torch.randn(B, C, H, W, generator=generator), torch.randn(B, C, H, W, generator=generator), hole


def naive(layer: ShortLongAttention, x: Tensor, e: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms, one cell at a time."""
    bias = layer.query.bias
    assert bias is not None
    short, long = torch.zeros_like(x), torch.zeros_like(x)
    places = [(y, z) for y in range(H) for z in range(W)]
    for b in range(len(x)):
        q = {i: layer.query.weight[..., 0, 0] @ x[b, :, *i] + bias for i in places}
        for i in places:
            a = torch.softmax(torch.stack([q[i] @ q[j] for j in places]), 0)
            from_x = torch.stack([w * x[b, :, *j] for w, j in zip(a, places, strict=True)]).sum(0)
            short[b, :, *i] = layer.gamma * from_x + x[b, :, *i]
            if layer.long:
                from_e = torch.stack([w * e[b, :, *j] for w, j in zip(a, places, strict=True)]).sum(0)
                h = hole[b, 0, *i]
                long[b, :, *i] = layer.alpha * h * from_e + (1 - h) * e[b, :, *i]
    return short, long


def assert_same_gradients(made: Tensor, wanted: Tensor, given: list[Tensor]) -> None:
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((made * weight).sum(), given)
    theirs = torch.autograd.grad((wanted * weight).sum(), given)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# --- the steps --------------------------------------------------------------------------------------------------------


def test_the_short_term_is_a_loop_in_value_and_gradient() -> None:
    layer = make(long=False)
    x, e, hole = inputs()
    x.requires_grad_()
    made, wanted = layer(x), naive(layer, x, e, hole)[0]
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert_same_gradients(made, wanted, [x, *layer.parameters()])


@pytest.mark.parametrize("mixed", [False, True], ids=["encoder", "mixed"])
@pytest.mark.parametrize("spectral", [True, False], ids=["spectral", "plain"])
def test_both_terms_are_a_loop_in_value_and_gradient(mixed: bool, spectral: bool) -> None:
    layer = make(mixed=mixed, spectral=spectral)
    x, e, hole = inputs()
    x.requires_grad_()
    e.requires_grad_()
    made = layer(x, e, hole)
    source = hole * x + (1 - hole) * e if mixed else e
    wanted = layer.fuse(torch.cat(naive(layer, x, source, hole), 1))
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert_same_gradients(made, wanted, [x, e, *layer.parameters()])


def test_the_encoder_fills_the_hole_by_attention_and_is_kept_elsewhere() -> None:
    layer = make(gamma=0.0)
    x, e, hole = inputs()
    seen: list[Tensor] = []
    layer.fuse.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    layer(x, e, hole)
    short, long = seen[0].chunk(2, 1)
    assert torch.equal(short, x)
    outside = (hole == 0).expand_as(e)
    assert torch.equal(long[outside], e[outside])
    assert not torch.isclose(long[~outside], e[~outside]).any()


def test_the_mixed_source_does_not_read_the_encoder_in_the_hole() -> None:
    x, e, hole = inputs()
    other = torch.where(hole > 0.5, 9.0, e)
    for mixed in (True, False):
        layer = make(mixed=mixed)
        assert torch.equal(layer(x, e, hole), layer(x, other, hole)) is mixed


def test_a_boolean_hole_map_is_as_good() -> None:
    x, e, hole = inputs()
    assert torch.equal(make()(x, e, hole.bool()), make()(x, e, hole))


def test_fusing_leaks_a_hundredth() -> None:
    layer = make(spectral=False)
    assert [m.negative_slope for m in layer.fuse.modules() if isinstance(m, nn.LeakyReLU)] == [0.01, 0.01]
    first, second = (m for m in layer.fuse.main if isinstance(m, nn.Conv2d))
    x = torch.randn(1, 2 * C, H, W)
    wanted = second(F.leaky_relu(first(F.leaky_relu(x, 0.01)), 0.01)) + layer.fuse.shortcut(x)
    torch.testing.assert_close(layer.fuse(x), wanted)


# --- what is built ----------------------------------------------------------------------------------------------------


def test_at_first_the_map_passes_and_holes_are_empty() -> None:
    layer = ShortLongAttention(C).eval()
    x, e, hole = inputs()
    torch.testing.assert_close(layer(x, e, hole), layer.fuse(torch.cat([x, (1 - hole) * e], 1)))
    assert torch.equal(ShortLongAttention(C, long=False)(x), x)


def test_the_query_is_orthogonal_small_and_without_spectral_normalization() -> None:
    layer = ShortLongAttention(64)
    weight = layer.state_dict()["query.weight"][:, :, 0, 0]
    torch.testing.assert_close(weight @ weight.T, 0.02**2 * torch.eye(16), atol=1e-8, rtol=0.0)
    assert (layer.state_dict()["query.bias"] == 0).all()


def test_a_layer_without_the_long_term_has_nothing_to_fuse() -> None:
    assert set(ShortLongAttention(C, long=False).state_dict()) == {"gamma", "query.weight", "query.bias"}
    parameters = [name for name, _ in ShortLongAttention(C).named_parameters()]
    assert {name.split(".")[0] for name in parameters} == {"gamma", "alpha", "query", "fuse"}


def test_spectral_normalization_of_the_fusing_block_can_be_left_out() -> None:
    for spectral in (True, False):
        convolutions = [m for m in make(spectral=spectral).fuse.modules() if isinstance(m, nn.Conv2d)]
        assert [hasattr(m, "parametrizations") for m in convolutions] == [spectral] * 3


@pytest.mark.parametrize("long", [True, False], ids=["long", "short"])
def test_every_parameter_gets_a_gradient(long: bool) -> None:
    layer = make(long=long)
    x, e, hole = inputs()
    (layer(x, e, hole) if long else layer(x)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_parameter_counts_at_the_paper_s_width() -> None:
    def count(layer: nn.Module) -> int:
        return sum(p.numel() for p in layer.parameters())

    query = 256 * 64 + 64
    fuse = (512 * 256 * 9 + 256) + (256 * 256 * 9 + 256) + (512 * 256 + 256)
    assert count(ShortLongAttention(256)) == query + fuse + 2
    assert count(ShortLongAttention(128, long=False)) == 128 * 32 + 32 + 1


def test_what_does_not_fit_the_layer_is_refused() -> None:
    x, e, hole = inputs()
    for given in ((x,), (x, e), (x, None, hole)):
        with pytest.raises(UsageError, match="needs encoder features and a hole map"):
            make()(*given)
    for given in ((x, e), (x, None, hole)):
        with pytest.raises(UsageError, match="has no long term"):
            make(long=False)(*given)
    with pytest.raises(UsageError, match="at least 4 channels, not 3"):
        ShortLongAttention(3)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [0.0, 1.0], ids=["no hole", "all hole"])
def test_holes_nowhere_and_everywhere_are_finite(full: float) -> None:
    layer = make()
    x, e, hole = inputs()
    x.requires_grad_()
    made = layer(x, e, torch.full_like(hole, full))
    made.sum().backward()
    assert made.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_enormous_scores_are_finite() -> None:
    layer = make(long=False)
    x = (1e4 * inputs()[0]).requires_grad_()
    made = layer(x)
    made.sum().backward()
    assert made.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_autocast_takes_no_digits_from_the_attention() -> None:
    layer = make(long=False)
    x = 2 * inputs()[0]
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain)


def test_both_terms_work_under_autocast() -> None:
    layer = make()
    x, e, hole = inputs()
    plain = layer(x, e, hole)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x.bfloat16(), e.bfloat16(), hole)
    torch.testing.assert_close(made.float(), plain, atol=0.1, rtol=0.05)
    made.float().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("long", [True, False], ids=["long", "short"])
def test_a_layer_in_half_precision_attends_too(long: bool) -> None:
    given = inputs()[: 3 if long else 1]
    plain = make(long=long, spectral=False)(*given)
    made = make(long=long, spectral=False).bfloat16()(*(g.bfloat16() for g in given))
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), plain, atol=0.2, rtol=0.1)


def test_a_sample_comes_out_the_same_alone_and_in_a_batch() -> None:
    layer = make()
    x, e, hole = inputs()
    alone = torch.cat([layer(x[b : b + 1], e[b : b + 1], hole[b : b + 1]) for b in range(B)])
    torch.testing.assert_close(layer(x, e, hole), alone, atol=1e-5, rtol=1e-5)
