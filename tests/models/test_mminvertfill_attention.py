"""Gated mask-aware attention and auxiliary denormalization against loops and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.mminvertfill.attention import GMA, FeedForward, PatchAttention, attend, tokenize, untokenize
from zoo.models.mminvertfill.denormalization import (
    ADN,
    SPADE,
    AdaIN,
    Denormalization,
    denormalization,
    in_float,
    instance_norm,
    layer_norm,
)  # fmt: skip

B, C, A, H, W = 2, 6, 5, 8, 12
DENORM = pytest.mark.parametrize("name", ["adn", "adain", "spade", "layer"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps() -> tuple[Tensor, Tensor, Tensor]:
    """x, a and M."""
    M = torch.zeros(B, 1, H, W)
    M[0, :, :4, 2:7], M[1, :, 3:, :5] = 1, 1
    return draw(B, C, H, W), draw(B, A, H, W, seed=1), M


def shaken(module: Any) -> Any:
    """With all parameters drawn, those that start at zero too."""
    for k, parameter in enumerate(module.parameters()):
        parameter.data = 0.4 * draw(*parameter.shape, seed=k)
    return module


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1, 2, 4])
def test_tokens_are_patches_and_come_back(p: int) -> None:
    x = draw(B, C, H, W)
    tokens = tokenize(x, p)
    assert tokens.shape == (B, H * W // p**2, p * p * C)
    j = 1 * (W // p) + 2  # the patch in row 1, column 2
    patch = x[1, :, p : 2 * p, 2 * p : 3 * p]
    assert sorted(tokens[1, j].tolist()) == sorted(patch.flatten().tolist())
    assert torch.equal(untokenize(tokens, p, (H, W)), x)
    assert torch.equal(untokenize(tokenize(x.to(memory_format=torch.channels_last), p), p, (H, W)), x)


# --- attention ------------------------------------------------------------------------------------------------------


def naive_attend(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, d: int) -> Tensor:
    """Eq. 3 as a weighted mean, one query at a time."""
    out = torch.zeros(*q.shape[:2], v.shape[-1], dtype=q.dtype)
    for b in range(len(q)):
        for i in range(q.shape[1]):
            weights = torch.exp(k[b] @ q[b, i] / math.sqrt(d)) * (1.0 if g is None else g[b])
            out[b, i] = (weights / weights.sum()) @ v[b]
    return out


@pytest.mark.parametrize(("d", "width"), [(7, 7), (8, 3), (3, 16)])
@pytest.mark.parametrize("gated", [True, False])
def test_attend_is_the_gated_softmax(d: int, width: int, gated: bool) -> None:
    q, k, v = draw(B, 9, d), draw(B, 9, d, seed=1), draw(B, 9, width, seed=2)
    g = torch.rand(B, 9, generator=torch.Generator().manual_seed(3)) if gated else None
    ours = attend(q, k, v, None if g is None else g.log(), d**-0.5)
    torch.testing.assert_close(ours, naive_attend(q, k, v, g, d), rtol=1e-5, atol=1e-5)


def test_attend_has_the_gradients_of_the_formula() -> None:
    def problem() -> list[Tensor]:
        q, k, v, g = draw(B, 5, 3), draw(B, 5, 3, seed=1), draw(B, 5, 4, seed=2), draw(B, 5, seed=3).sigmoid()
        return [t.double().requires_grad_() for t in (q, k, v, g)]

    results = []
    for compute in (lambda q, k, v, g: attend(q, k, v, g.log(), 3**-0.5), lambda *t: naive_attend(*t, d=3)):
        inputs = problem()
        compute(*inputs).square().sum().backward()
        results.append([t.grad for t in inputs])
    for ours, naive in zip(*results, strict=True):
        torch.testing.assert_close(ours, naive, rtol=1e-9, atol=1e-9)


def test_a_constant_gate_changes_nothing_and_a_closed_one_takes_all_weight_away() -> None:
    q, k = draw(B, 12, 8), draw(B, 12, 8, seed=1)
    inside = torch.zeros(B, 12)
    inside[0, :2], inside[1, 5:] = 1, 1
    for constant in (1e-4, 0.3, 1.0):
        log_g = torch.full((B, 12), constant).log()
        torch.testing.assert_close(attend(q, k, k, log_g, 0.3), attend(q, k, k, None, 0.3), rtol=0, atol=1e-6)
    mass = attend(q, k, inside[:, :, None], (0.5 * inside + 1e-6).log(), 0.3)
    assert mass.min() > 0.999
    assert attend(q, k, inside[:, :, None], None, 0.3).max() < 0.9


def test_the_gate_keeps_its_digits_in_half_precision() -> None:
    """A gate in one bf16 number alone would be off by 1 % here."""
    zeros = torch.zeros(1, 64, 128, dtype=torch.bfloat16)
    g = torch.linspace(0.001, 1.0, 64)[None]
    marks = torch.eye(64)[None, :, :40].bfloat16()
    weights = attend(zeros, zeros, marks, g.log(), 128**-0.5)[0, 0].float()
    torch.testing.assert_close(weights, (g / g.sum())[0, :40], rtol=6e-3, atol=0)


@pytest.mark.parametrize("gate", ["attention", "post", "value", "none"])
@pytest.mark.parametrize("order", ["conv", "adn"])
def test_patch_attention_is_eq_3_head_by_head(gate: str, order: str) -> None:
    x, a, M = maps()
    layer = shaken(PatchAttention(C, A, gate=gate, adn_order=order))
    context = layer.denorm.context(a)
    if order == "conv":
        q, k, v = (layer.denorm(f(x), context) for f in (layer.query, layer.key, layer.value))
    else:
        q, k, v = (f(layer.denorm(x, context)) for f in (layer.query, layer.key, layer.value))
    G = torch.ones(B, 1, H, W) if gate == "none" else layer.gate(torch.cat([x, M], 1)).sigmoid()
    if gate == "value":
        v = v * G
    heads = []
    for head, p in ((slice(0, 3), 2), (slice(3, 6), 4)):
        g = tokenize(G, p).mean(-1)
        tokens = [tokenize(t[:, head], p) for t in (q, k, v)]
        if gate == "post":
            tokens[2] = tokens[2] * g[:, :, None]
        y = naive_attend(*tokens, g if gate == "attention" else None, d=p * p * 3)
        heads.append(untokenize(y, p, (H, W)))
    torch.testing.assert_close(layer(x, a, M), torch.cat(heads, 1), rtol=1e-4, atol=1e-4)
    assert (layer.gate is None) == (gate == "none")


def test_the_mask_moves_attention_only_through_the_gate() -> None:
    x, a, M = maps()
    for gate in ("attention", "post", "value", "none"):
        layer = shaken(GMA(C, A, gate=gate))
        assert torch.equal(layer(x, a, M), layer(x, a, 1 - M)) == (gate == "none")


def test_swapping_edge_and_segmentation_changes_the_output() -> None:
    x, _, M = maps()
    e, s = draw(B, 3, H, W, seed=1), draw(B, 3, H, W, seed=2)
    layer = shaken(GMA(C, 6))
    assert (layer(x, torch.cat([e, s], 1), M) - layer(x, torch.cat([s, e], 1), M)).abs().max() > 0.1


@pytest.mark.parametrize("variant", ["gated", "mmt"])
def test_feed_forward_formula(variant: str) -> None:
    layer = shaken(FeedForward(C, variant))
    y, z = draw(B, C, H, W), draw(B, C, H, W, seed=1)
    hidden = F.gelu(F.conv2d(z, layer.dilated.weight, layer.dilated.bias, padding=2, dilation=2))
    gate = F.conv2d(z, layer.gate.weight, layer.gate.bias, padding=1)
    if variant == "gated":
        wanted = y + F.conv2d(hidden * gate.sigmoid(), layer.out.weight, layer.out.bias)
    else:
        wanted = y * gate.tanh() + F.conv2d(hidden, layer.out.weight, layer.out.bias, padding=1)
    torch.testing.assert_close(layer(y, z), wanted)


def test_gma_adds_attention_and_uses_two_denormalizations() -> None:
    x, a, M = maps()
    layer = shaken(GMA(C, A))
    y = x + layer.attention(x, a, M)
    z = layer.denorm(y, layer.denorm.context(a))
    torch.testing.assert_close(layer(x, a, M), layer.feed_forward(y, z))
    assert layer.denorm is not layer.attention.denorm


# --- denormalization ------------------------------------------------------------------------------------------------


def test_adn_formula() -> None:
    x, a, _ = maps()
    adn = shaken(ADN(C, A))
    u = F.conv2d(a, adn.embed.weight, adn.embed.bias)
    γ = F.conv2d(u, adn.gamma.weight, adn.gamma.bias)
    joined = torch.cat([adn.beta_x.weight, adn.beta_u.weight], 1)
    β = F.conv2d(torch.cat([x, u], 1), joined, adn.beta_u.bias)
    mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)
    wanted = γ * (x - mean) / (variance + 1e-5).sqrt() + β
    torch.testing.assert_close(adn(x, adn.context(a)), wanted, rtol=1e-5, atol=1e-5)


def test_adn_starts_with_gamma_one_and_without_beta_is_layer_norm() -> None:
    x, a, _ = maps()
    adn = ADN(C, A)
    γ, _ = adn.context(a)
    assert torch.equal(γ, torch.ones(B, C, H, W))
    for parameter in (adn.beta_x.weight, adn.beta_u.weight, adn.beta_u.bias):
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(adn(x, adn.context(a)), F.layer_norm(x, (C, H, W)), rtol=1e-5, atol=1e-5)


def test_adain_gives_x_the_statistics_of_u() -> None:
    x, a, _ = maps()
    adain = shaken(AdaIN(C, A))
    u, y = adain.embed(a), adain(5 * x + 3, adain.context(a))
    torch.testing.assert_close(y.mean((2, 3)), u.mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y.std((2, 3)), u.std((2, 3)), rtol=1e-3, atol=1e-3)


def test_spade_formula() -> None:
    x, a, _ = maps()
    spade = shaken(SPADE(C, A))
    u = F.conv2d(a, spade.embed.weight, spade.embed.bias, padding=1).relu()
    γ, β = (F.conv2d(u, f.weight, f.bias, padding=1) for f in (spade.gamma, spade.beta))
    wanted = (1 + γ) * F.instance_norm(x, eps=1e-5) + β
    torch.testing.assert_close(spade(x, spade.context(a)), wanted, rtol=1e-5, atol=1e-5)


@DENORM
def test_without_guides_all_are_layer_norm_with_weights(name: str) -> None:
    x, _, M = maps()
    layer: Denormalization = denormalization(name, C, 0)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"weight": (1, C, 1, 1), "bias": (1, C, 1, 1)}
    torch.testing.assert_close(layer(x, layer.context(x[:, :0])), F.layer_norm(x, (C, H, W)), rtol=1e-5, atol=1e-5)
    assert GMA(C, 0, name)(x, x[:, :0], M).shape == x.shape


# --- types and errors -----------------------------------------------------------------------------------------------


@DENORM
def test_statistics_are_float_under_autocast(name: str) -> None:
    """Far from zero bf16 keeps no digits of the variance; the inputs themselves are exact in bf16."""
    x = (512 + 2 * draw(B, C, H, W).round()).bfloat16()
    layer = denormalization(name, C, A)
    normal = layer_norm(x) if name in ("adn", "layer") else instance_norm(x)
    assert normal.dtype == torch.bfloat16
    exact = layer.normalize(x.double())
    assert exact.dtype == torch.double
    torch.testing.assert_close(normal.double(), exact, rtol=0.01, atol=0.01)
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        in_float(lambda t: seen.append((t.dtype, torch.is_autocast_enabled("cpu"))) or t, x)
    assert seen == [(torch.float32, False)]


@DENORM
def test_gma_under_autocast_is_close_and_channels_last_is_equal(name: str) -> None:
    x, a, M = maps()
    layer = shaken(GMA(C, A, name))
    exact = layer(x, a, M)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x, a, M)
        assert layer.attention.trust(x, M).dtype == torch.float32
    assert (half - exact).abs().mean() < 0.03 * exact.abs().mean()
    last = layer(*(t.to(memory_format=torch.channels_last) for t in (x, a, M)))
    torch.testing.assert_close(last, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate": "post-"}, "unknown gma_gate 'post-'"),
        ({"adn_order": "both"}, "unknown adn_order"),
        ({"denorm": "and"}, "did you mean 'adn'"),
        ({"ff_variant": "m"}, "unknown ff_variant"),
        ({"patches": (1, 2, 4, 8)}, "6 channels cannot be split into 4 heads"),
    ],
)
def test_unknown_options_are_usage_errors(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        GMA(C, A, **changes)
