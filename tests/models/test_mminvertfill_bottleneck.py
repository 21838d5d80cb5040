"""Adaptive contextual bottlenecks: Eq. 1, its bounds and special cases, and the blocks it is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.mminvertfill.bottleneck import ACB, AOT, Bottleneck, CodeACB, Dilated, Res

B, C, H, W = 2, 6, 9, 7


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs() -> tuple[Tensor, Tensor]:
    """f and the gate before."""
    return draw(B, C, H, W), draw(B, C, H, W, seed=1).sigmoid()


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_acb_formula() -> None:
    torch.manual_seed(0)
    acb, (f, g_prev) = ACB(C), inputs()
    g = F.conv2d(f, acb.gate.weight, acb.gate.bias, padding=1).sigmoid()
    conv = torch.cat([acb.mix_path.weight, acb.mix_gate.weight], 1)
    paths, a = [], []
    for r, path in zip((1, 2, 3, 4), acb.paths, strict=True):
        f_r = F.conv2d(F.pad(f, [r] * 4, mode="reflect"), path.weight, path.bias, dilation=r).relu()
        g_r = F.conv2d(torch.cat([f_r, g, g_prev], 1), conv, acb.mix_gate.bias)
        pooled = (F.adaptive_avg_pool2d(g_r, 1), F.adaptive_max_pool2d(g_r, 1))
        a.append(sum(acb.fc(t.flatten(1)) for t in pooled).sigmoid())
        paths.append(f_r)
    total = sum(a_r.exp() for a_r in a)
    wanted = sum((a_r.exp() / total)[:, :, None, None] * f_r for a_r, f_r in zip(a, paths, strict=True)) + f
    ours, passed = acb(f, g_prev)
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(passed, g)


@pytest.mark.parametrize(("tau", "low", "high"), [(1.0, 0.1091, 0.4754), (0.1, 0.0, 1.0)])
def test_weights_add_up_to_one_within_their_bounds(tau: float, low: float, high: float) -> None:
    """The bounds are reached where one a is 1 and all others 0, or the other way round."""
    acb = ACB(C, tau=tau)
    acb.fc.weight.data = 100 * torch.eye(C)
    acb.fc.bias.data.zero_()
    acb.mix_path.weight.data = torch.eye(C)[:, :, None, None]
    acb.mix_gate.weight.data.zero_()
    acb.mix_gate.bias.data.zero_()
    f, g = inputs()
    for signs in ((1, -1, -1, -1), (-1, 1, 1, 1), (1, 1, -1, -1)):
        α = acb.weights([sign * torch.ones_like(f) for sign in signs], g, g)
        torch.testing.assert_close(α.sum(0), torch.ones(B, C))
        assert low <= α.min()
        assert α.max() <= high + 1e-4
    extreme = acb.weights([s * torch.ones_like(f) for s in (1, -1, -1, -1)], g, g)[0]
    torch.testing.assert_close(extreme, torch.full((B, C), math.exp(1 / tau) / (math.exp(1 / tau) + 3)))


def test_zero_paths_keep_f_and_one_path_is_added() -> None:
    f, g = inputs()
    acb = ACB(C)
    for path in acb.paths:
        torch.nn.init.zeros_(path.weight)
        torch.nn.init.zeros_(path.bias)
    assert torch.equal(acb(f, g)[0], f)
    one = ACB(C, rates=(3,))
    torch.testing.assert_close(one(f, g)[0], f + one.paths[0](f))


def test_code_variant_formula() -> None:
    torch.manual_seed(0)
    acb, (f, g_prev) = CodeACB(C), inputs()
    acb.norm.running_mean += 0.3
    acb.eval()
    raw = acb.gate(f)
    u = acb.fuse(torch.cat([f, raw, g_prev], 1)).mean((2, 3))
    ours, passed = acb(f, g_prev)
    for b in range(B):
        w = torch.tanh(u[b] @ acb.W).softmax(0)
        mixed = sum(w[r] * path(f[b : b + 1]) for r, path in enumerate(acb.paths))
        g = raw[b : b + 1].sigmoid()
        wanted = F.leaky_relu((f[b : b + 1] * (1 - g) + g * mixed - 0.3) / (1 + 1e-5) ** 0.5, 0.2)
        torch.testing.assert_close(ours[b : b + 1], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(passed, raw.sigmoid())


def test_a_border_wider_than_the_map_is_replicated() -> None:
    path, x = Dilated(C, C, 4), draw(B, C, 4, 4)
    torch.testing.assert_close(
        path(x), F.conv2d(F.pad(x, [4] * 4, mode="replicate"), path.weight, path.bias, dilation=4).relu()
    )


def test_res_and_aot_formulas_pass_the_gate_on() -> None:
    f, g = inputs()
    res = Res(C)
    torch.testing.assert_close(res(f, g)[0], f + res.paths[0](f))
    aot = AOT(C, (1, 2, 3))
    mixed = aot.fuse(torch.cat([path(f) for path in aot.paths], 1))
    keep = aot.gate(f).sigmoid()
    torch.testing.assert_close(aot(f, g)[0], f * keep + mixed * (1 - keep))
    assert aot.paths[0].weight.shape[0] == C // 3
    assert res(f, g)[1] is g
    assert aot(f, g)[1] is g


def test_matched_variants_have_the_paths_of_acb() -> None:
    res, aot = Bottleneck(C, "res", 1, matched=True), Bottleneck(C, "aot", 1, matched=True)
    assert count(res) == 4 * count(Bottleneck(C, "res", 1))
    assert [path.weight.shape[0] for path in aot[0].paths] == [C] * 4


def test_the_gate_of_the_tail_reaches_the_first_block_and_blocks_pass_theirs_on() -> None:
    torch.manual_seed(0)
    f, g = inputs()
    stack = Bottleneck(C, n_blocks=2)
    (f1, g1) = stack[0](f, g)
    torch.testing.assert_close(stack(f, g), stack[1](f1, g1)[0])
    assert not torch.equal(stack[1](f1, g1)[0], stack[1](f1, g)[0])
    assert not torch.equal(stack(f, g), stack(f, 1 - g))


@pytest.mark.parametrize("n_blocks", [2, 4, 6, 8])
@pytest.mark.parametrize("options", [{}, {"variant": "code"}, {"kind": "res"}, {"kind": "aot"}])
def test_any_number_of_blocks(n_blocks: int, options: dict[str, Any]) -> None:
    f, g = inputs()
    stack = Bottleneck(C, n_blocks=n_blocks, **options)
    assert len(stack) == n_blocks
    assert stack(f, g).shape == f.shape


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "abc"}, "did you mean 'acb'"),
        ({"variant": "codes"}, "unknown acb_variant"),
        ({"n_blocks": 0}, "of 0 blocks"),
        ({"rates": ()}, r"rates \[\]"),
        ({"tau": 0.0}, "temperature 0.0"),
    ],
)
def test_impossible_bottlenecks_are_usage_errors(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Bottleneck(C, **options)
