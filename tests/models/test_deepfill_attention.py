"""Contextual attention against loops written from the definition, and what must hold of it whatever the features."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError
from zoo.models.deepfill import attention
from zoo.models.deepfill.attention import AttentionOptions, ContextualAttention, align_corners_nearest
from zoo.models.deepfill.factored import DiagonalSum, Paste, PatchScores

Array = NDArray[np.float64]
NEIGHBOURS = list(itertools.product((-1, 0, 1), repeat=2))


def features(seed: int = 0, batch: int = 2, channels: int = 3, height: int = 8, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def one_hole(batch: int = 2, height: int = 8, width: int = 12) -> Tensor:
    """Another hole in each sample, in pixels of the feature map."""
    mask = torch.zeros(batch, 1, height, width, dtype=torch.float64)
    for i in range(batch):
        mask[i, :, 0 : 2 + i, 2 * i : 2 * i + 2] = 1
    return mask


def at(x: Array, y: int, x_: int) -> Array:
    inside = 0 <= y < x.shape[1] and 0 <= x_ < x.shape[2]
    return x[:, y, x_] if inside else np.zeros(x.shape[0])


def naive(foreground: Tensor, background: Tensor, mask: Tensor, options: AttentionOptions) -> tuple[Array, Array]:
    """One sample, from the definition: patches, cosine, propagation, softmax, overlap-add; and the matrix."""
    f, b = foreground.numpy(), background.numpy()
    n, m = f.shape[1] // 2, f.shape[2] // 2
    cells = list(itertools.product(range(n), range(m)))
    low_f, low_b = f[:, ::2, ::2], b[:, ::2, ::2]
    hole = mask.numpy()[0].reshape(n, 2, m, 2).max((1, 3))

    def patch(x: Array, y: int, x_: int) -> Array:
        return np.stack([at(x, y + dy, x_ + dx) for dy, dx in NEIGHBOURS], 1)

    valid = np.array([max(at(hole[None], y + dy, x + dx)[0] for dy, dx in NEIGHBOURS) == 0 for y, x in cells])
    scores = np.zeros((len(cells), len(cells)))
    for (i, (qy, qx)), (j, (ky, kx)) in itertools.product(enumerate(cells), enumerate(cells)):
        query, key = patch(low_f, qy, qx), patch(low_b, ky, kx)
        if options.normalize_query:
            query = query / max(np.linalg.norm(query), 1e-4)
        scores[i, j] = (query * key).sum() / max(np.linalg.norm(key), 1e-4)
    if options.fuse:
        scores = naive_wrapping_fuse(scores, n, m) if options.fuse_wrap else naive_fuse(scores, n, m)
    logits = options.scale * scores
    if options.masking == "official":
        weights = np.exp(logits * valid - (logits * valid).max(1, keepdims=True))
    else:
        weights = np.exp(logits - logits.max(1, keepdims=True)) * valid
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300) * valid
    out, count = np.zeros_like(f), np.zeros(f.shape[1:])
    for i, (qy, qx) in enumerate(cells):
        for dy, dx in itertools.product(range(-1, 3), repeat=2):
            y, x = 2 * qy + dy, 2 * qx + dx
            if 0 <= y < f.shape[1] and 0 <= x < f.shape[2]:
                out[:, y, x] += sum(weights[i, j] * at(b, 2 * ky + dy, 2 * kx + dx) for j, (ky, kx) in enumerate(cells))
                count[y, x] += 1
    return out / (count if options.overlap == "coverage" else 4.0), weights


def naive_fuse(scores: Array, n: int, m: int) -> Array:
    """Σ over the 3x3 neighbourhood of S(q + d, k + d), zero outside the map."""
    grid = np.pad(scores.reshape(n, m, n, m), 1)
    parts = [grid[1 + a : 1 + a + n, 1 + c : 1 + c + m, 1 + a : 1 + a + n, 1 + c : 1 + c + m] for a, c in NEIGHBOURS]
    return np.sum(parts, 0).reshape(n * m, n * m)


def naive_wrapping_fuse(scores: Array, n: int, m: int) -> Array:
    """A 3x3 identity kernel over the matrix flattened by rows, then over that flattened by columns."""

    def convolve(x: Array) -> Array:
        padded = np.pad(x, 1)
        return padded[:-2, :-2] + padded[1:-1, 1:-1] + padded[2:, 2:]

    by_columns = convolve(scores).reshape(n, m, n, m).transpose(1, 0, 3, 2).reshape(n * m, n * m)
    return convolve(by_columns).reshape(m, n, m, n).transpose(1, 0, 3, 2).reshape(n * m, n * m)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fuse": False},
        {"fuse_wrap": True},
        {"masking": "official", "overlap": "quarter", "fuse_wrap": True},
        {"normalize_query": True},
        {"normalize_query": True, "query_chunk": 1},
        {"query_chunk": 1},
        {"query_chunk": 3},
        {"query_chunk": 2, "fuse_wrap": True},
        {"query_chunk": 1, "fuse": False, "masking": "official"},
        {"scale": 2.5},
    ],
    ids=str,
)
def test_equals_loops_from_the_definition(changes: dict[str, Any]) -> None:
    options = AttentionOptions(**changes)
    f, b, mask = features(0), features(1), one_hole()
    out = ContextualAttention(options)(f, b, mask)
    weights = ContextualAttention(options).weights(f, b, mask)
    for i in range(2):
        expected, matrix = naive(f[i], b[i], mask[i], options)
        np.testing.assert_allclose(out[i], expected, atol=1e-12)
        np.testing.assert_allclose(weights[i], matrix, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2), (2, 8), (8, 2), (4, 4)])
@pytest.mark.parametrize("wrap", [False, True])
def test_equals_loops_on_the_smallest_maps(shape: tuple[int, int], wrap: bool) -> None:
    f = features(3, 1, 2, *shape)
    mask = torch.zeros(1, 1, *shape, dtype=torch.float64)
    expected, _ = naive(f[0], f[0], mask[0], AttentionOptions(fuse_wrap=wrap))
    np.testing.assert_allclose(
        ContextualAttention(AttentionOptions(fuse_wrap=wrap))(f, f, mask)[0], expected, atol=1e-12
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"fuse_wrap": True}, {"masking": "official", "overlap": "quarter"}, {"normalize_query": True}],
    ids=str,
)
@pytest.mark.parametrize("chunk", [0, 1])
def test_gradients_are_those_of_finite_differences(changes: dict[str, Any], chunk: int) -> None:
    f, b = (features(s, 2, 2, 6, 4).requires_grad_() for s in (0, 1))
    module = ContextualAttention(AttentionOptions(**changes, query_chunk=chunk, scale=1.0))
    assert torch.autograd.gradcheck(lambda f, b: module(f, b, one_hole(2, 6, 4)), (f, b))


def test_gradients_of_the_operations() -> None:
    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))

    assert torch.autograd.gradcheck(DiagonalSum.apply, (matrix(2, 6, 9).requires_grad_(), 2))
    query, key = matrix(2, 2, 6).requires_grad_(), matrix(2, 2, 9).requires_grad_()
    scale = matrix(2, 1, 9).square().requires_grad_()
    assert torch.autograd.gradcheck(PatchScores.apply, (query, key, scale, 3))
    raw = matrix(2, 4, 2, 9).requires_grad_()
    wiped = torch.ones(6, 1, dtype=torch.float64)
    wiped[2::3] = 0  # the queries in the empty column take no part
    assert torch.autograd.gradcheck(lambda a, r: Paste.apply(a * wiped, r, 3), (matrix(2, 6, 9).requires_grad_(), raw))


@pytest.mark.parametrize("wrap", [False, True])
def test_blocks_are_exact_with_their_gradients(wrap: bool) -> None:
    results = []
    for chunk in (0, 1, 2):
        f = features(0, 2, 3, 12, 8).requires_grad_()
        out = ContextualAttention(AttentionOptions(query_chunk=chunk, fuse_wrap=wrap))(f, f, one_hole(2, 12, 8))
        (out * features(5, 2, 3, 12, 8)).sum().backward()
        results.append((out.detach(), f.grad))
    for out, grad in results[1:]:
        torch.testing.assert_close(out, results[0][0])
        torch.testing.assert_close(grad, results[0][1])


def test_large_maps_are_done_in_blocks_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WHOLE_UP_TO", 8)
    monkeypatch.setattr(attention, "BLOCK_SCORES", 4 * 6 * 6)  # a row of queries of a 4x6 map at once
    module = ContextualAttention()
    assert module._blocks(4, 6) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    f = features()
    in_blocks = module(f, f, one_hole())
    torch.testing.assert_close(in_blocks, ContextualAttention(AttentionOptions(query_chunk=4))(f, f, one_hole()))


def test_weights_sum_to_one_over_known_keys() -> None:
    weights = ContextualAttention().weights(features(), features(), one_hole())
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 24, dtype=torch.float64))
    grown = torch.nn.functional.max_pool2d(torch.nn.functional.max_pool2d(one_hole(), 2), 3, 1, 1).flatten(1)
    assert grown.any()
    assert (weights.amax(1)[grown > 0] == 0).all()
    assert (weights.amax(1)[grown == 0] > 0).all()


@pytest.mark.parametrize("masking", ["masked", "official"])
def test_all_hole_gives_zeros_and_finite_gradients(masking: Any) -> None:
    f = features().requires_grad_()
    mask = one_hole()
    mask[0] = 1
    module = ContextualAttention(AttentionOptions(masking=masking))
    out = module(f, f, mask)
    out.square().sum().backward()
    assert (out[0] == 0).all()
    assert out[1].abs().max() > 0
    assert f.grad is not None
    assert f.grad.isfinite().all()
    assert (module.weights(f, f, mask)[0] == 0).all()


def test_zero_features_have_finite_gradients() -> None:
    f = torch.zeros(1, 3, 8, 8, requires_grad=True)
    ContextualAttention()(f, f, torch.zeros(1, 1, 8, 8)).sum().backward()
    assert f.grad is not None
    assert f.grad.isfinite().all()


def test_official_masking_leaks_where_scores_are_small() -> None:
    tiny = 1e-3 * features()
    sums = {
        masking: ContextualAttention(AttentionOptions(masking=masking)).weights(tiny, tiny, one_hole()).sum(2).mean()
        for masking in ("masked", "official")
    }
    assert sums["masked"] == pytest.approx(1.0)
    assert sums["official"] < 0.9


@pytest.mark.parametrize("fuse", [True, False])
def test_a_tiled_texture_is_continued(fuse: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.randn(1, 8, 6, 6, generator=generator).repeat(1, 1, 6, 6)
    mask = torch.zeros(1, 1, 36, 36)
    mask[..., 12:22, 12:22] = 1
    module = ContextualAttention(AttentionOptions(fuse=fuse))
    out = module(texture, texture, mask)
    interior = (..., slice(6, -6), slice(6, -6))
    assert (out[interior] - texture[interior]).abs().max() < 1e-5
    offsets = module.offsets(texture, texture, mask)[..., 4:-4, 4:-4]
    assert (offsets % 3 == 0).all()  # the period is 6 pixels, 3 cells
    hole = torch.nn.functional.max_pool2d(mask, 2)[0, 0, 4:-4, 4:-4] > 0
    assert (offsets.abs().sum(1)[0][hole] > 0).all()  # from elsewhere, not from the hole itself


def test_scaling_the_background_scales_the_result() -> None:
    f, b = features(0), features(1)
    module = ContextualAttention()
    torch.testing.assert_close(module(f, 3 * b, one_hole()), 3 * module(f, b, one_hole()))
    torch.testing.assert_close(module.weights(f, 3 * b, one_hole()), module.weights(f, b, one_hole()))


def test_without_propagation_keys_may_come_in_any_order() -> None:
    """Two known islands of 3x3 cells, which hold one key each, change places."""
    f, b = features(0, 1, 3, 16, 16), features(1, 1, 3, 16, 16)
    one, other = (..., slice(2, 8), slice(2, 8)), (..., slice(8, 14), slice(8, 14))
    mask = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    mask[one] = mask[other] = 0
    swapped = b.clone()
    swapped[one], swapped[other] = b[other], b[one]
    module = ContextualAttention(AttentionOptions(fuse=False))
    assert (module.weights(f, b, mask).amax(1) > 0).sum() == 2
    torch.testing.assert_close(module(f, swapped, mask), module(f, b, mask))
    fused = ContextualAttention(AttentionOptions(scale=1.0))
    assert not torch.allclose(fused(f, swapped, mask), fused(f, b, mask))


@pytest.mark.parametrize("fuse", [True, False])
def test_transposed_maps_give_the_transposed_result(fuse: bool) -> None:
    f, mask = features(), one_hole()
    module = ContextualAttention(AttentionOptions(fuse=fuse))
    torch.testing.assert_close(module(f.mT, f.mT, mask.mT), module(f, f, mask).mT)


def test_mirrored_maps_give_the_mirrored_result_with_area_only() -> None:
    f, mask = features(), one_hole()
    for down, holds in (("area", True), ("stride", False)):
        module = ContextualAttention(AttentionOptions(down=down))  # type: ignore[arg-type]
        mirrored = module(f.flip(3), f.flip(3), mask.flip(3)).flip(3)
        assert torch.allclose(mirrored, module(f, f, mask)) == holds


def test_constant_features_stay_constant_but_for_quarters_on_the_frame() -> None:
    constant = torch.full((1, 4, 16, 16), 2.0, dtype=torch.float64)
    mask = torch.zeros(1, 1, 16, 16)
    out = ContextualAttention()(constant, constant, mask)
    torch.testing.assert_close(out, constant)
    quarter = ContextualAttention(AttentionOptions(overlap="quarter"))(constant, constant, mask) / 2
    assert quarter[0, 0, 0, 0] == pytest.approx(0.25)
    assert quarter[0, 0, 0, 5] == pytest.approx(0.5)
    assert quarter[0, 0, 5, 5] == pytest.approx(1.0)


def test_a_batch_of_masks_equals_single_runs() -> None:
    f, mask = features().float(), one_hole()
    module = ContextualAttention()
    alone = torch.cat([module(f[i : i + 1], f[i : i + 1], mask[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(module(f, f, mask), alone, atol=1e-6, rtol=1e-5)


def test_scores_are_float32_under_autocast() -> None:
    """A near-tie between large logits that bfloat16 scores would decide by rounding."""
    f = 20 * features(0, 1, 64, 16, 16).float().relu()
    mask = torch.zeros(1, 1, 16, 16)
    module = ContextualAttention(AttentionOptions(scale=0.05))
    with torch.autocast("cpu", torch.bfloat16):
        out = module(f, f, mask)
        low = module(f.bfloat16(), f.bfloat16(), mask)
        weights = module.weights(f, f, mask)
    assert out.dtype == torch.float32
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(out, module(f, f, mask), atol=0.0, rtol=0.0)
    assert weights.dtype == torch.float32


def test_tensorflow_indices() -> None:
    index = align_corners_nearest(torch.arange(64.0).view(1, 1, 64, 1), 32, 1).flatten().tolist()
    assert index[:3] == [0, 2, 4]
    assert index[16:18] == [33, 35]
    assert index[-1] == 63
    assert align_corners_nearest(torch.arange(4.0).view(1, 1, 4, 1), 1, 1).item() == 0


def test_masks_shrink_by_any_pixel_or_by_the_nearest() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 21, 21] = 1  # one pixel of a 64 pixel image, features 16x16, cells 8x8
    f = features(0, 1, 3, 16, 16)
    counts = {}
    for name in ("max", "nearest"):
        weights = ContextualAttention(AttentionOptions(mask_down=name)).weights(f, f, mask)  # type: ignore[arg-type]
        counts[name] = int((weights.amax(1) == 0).sum())
    assert counts == {"max": 9, "nearest": 0}


@pytest.mark.parametrize(("down", "seen"), [("stride", 8), ("tf_align", 9)])
def test_nearest_masks_are_sampled_where_features_are(down: Any, seen: int) -> None:
    f = features(0, 1, 3, 16, 16)
    module = ContextualAttention(AttentionOptions(mask_down="nearest", down=down))
    for row in (8, 9):
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., row, row] = 1
        excluded = 9 if row == seen else 0
        for factor in (1, 4):
            larger = mask.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            assert (module.weights(f, f, larger).amax(1) == 0).sum() == excluded


def test_odd_maps_are_refused() -> None:
    with pytest.raises(DataError, match="7 x 8"):
        ContextualAttention()(torch.zeros(1, 1, 7, 8), torch.zeros(1, 1, 7, 8), torch.zeros(1, 1, 7, 8))
