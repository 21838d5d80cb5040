"""Dual multi-modal attention: cells, Eq. 3 to 7 against loops, what a path may not see, padding, holes everywhere."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.nigdt.attention import RULES, SOFTMAXES, DualAttention, valid_cells
from zoo.models.nigdt.text import Described

B, CHANNELS, WIDTH, T, H, W = 3, 5, 6, 4, 3, 2
LENGTHS = (2, 4, 1)
POSITIVE, NEGATIVE = 1.0, -1.0
SIGNS = pytest.mark.parametrize("sign", [POSITIVE, NEGATIVE], ids=["positive", "negative"])


def make(**changes: Any) -> DualAttention:
    """With a Q large enough for weights that are far from uniform."""
    torch.manual_seed(0)
    attention = DualAttention(CHANNELS, WIDTH, **changes)
    if attention.query is not None:
        torch.nn.init.normal_(attention.query.weight)
    return attention


def described(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> Described:
    """Captions of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.arange(T)[None] < torch.tensor(lengths)[:, None]
    words = torch.randn(len(lengths), WIDTH, T, generator=generator) * known[:, None]
    return Described(words, torch.randn(len(lengths), WIDTH, generator=generator), known)


def features(seed: int = 2) -> Tensor:
    return torch.randn(B, CHANNELS, H, W, generator=torch.Generator().manual_seed(seed))


def cells() -> Tensor:
    """Valid cells: some, one, all but one."""
    valid = torch.zeros(B, 1, H, W, dtype=torch.bool)
    valid[0, 0, :2] = True
    valid[1, 0, 2, 1] = True
    valid[2] = True
    valid[2, 0, 0, 0] = False
    return valid


def mean_of_words(text: Described) -> Tensor:
    return torch.stack([w[:, k].mean(1) for w, k in zip(text.words, text.known, strict=True)])


def naive(
    Q: Tensor, v: Tensor, text: Described, valid: Tensor, sign: float, softmax: str, pool: bool, invalid_as_zero: bool
) -> Tensor:
    """Eq. 3 to 7, one sample, cell, word and channel at a time."""
    out = torch.zeros(len(v), WIDTH, H, W)
    for b in range(len(v)):
        inside = [(y, x) for y, x in product(range(H), range(W)) if valid[b, 0, y, x]]
        words = [text.words[b, :, j] for j in range(T) if text.known[b, j]]
        if not inside:
            out[b] = torch.stack(words).mean(0)[:, None, None]
            continue
        raised = {(i, j): torch.exp(sign * ((Q @ v[b, :, *i]) @ w)) for i in inside for j, w in enumerate(words)}
        t = {}
        for i in inside:
            t[i] = torch.zeros(WIDTH)
            for j, w in enumerate(words):
                over = [(i, k) for k in range(len(words))] if softmax == "words" else [(k, j) for k in inside]
                t[i] = t[i] + raised[i, j] / sum(raised[key] for key in over) * w
        if pool:
            candidates = list(t.values()) + [torch.zeros(WIDTH)] * (invalid_as_zero and len(inside) < H * W)
            out[b] = torch.stack(candidates).amax(0)[:, None, None]
        else:
            for i in inside:
                out[b, :, *i] = t[i]
    return out


# --- valid cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_cells_follow_from_counting_pixels(rule: str) -> None:
    mask = (torch.rand(4, 1, 12, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    mask[0, 0, :4, :4], mask[1, 0, 4:8, 4:] = 1, 0
    mask[2, 0, :4, :4] = torch.tensor([1.0, 0.0]).repeat(8).view(4, 4)  # exactly half
    found = valid_cells(mask, (3, 2), rule)
    for b, y, x in product(range(4), range(3), range(2)):
        count = sum(int(mask[b, 0, 4 * y + i, 4 * x + j]) for i, j in product(range(4), range(4)))
        hole, known = (count >= 8, count < 8) if rule == "majority" else (count == 16, count == 0)
        assert (bool(found.hole[b, 0, y, x]), bool(found.known[b, 0, y, x])) == (hole, known)


@pytest.mark.parametrize("rule", RULES)
def test_a_centre_hole_on_the_grid_is_the_middle_of_the_cells(rule: str) -> None:
    mask, middle = torch.zeros(1, 1, 256, 256), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 64:192, 64:192] = 1
    middle[..., 2:6, 2:6] = True
    found = valid_cells(mask, (8, 8), rule)
    assert torch.equal(found.hole, middle)
    assert torch.equal(found.known, ~middle)


def test_a_thin_stroke_gives_the_hole_the_cells_where_it_has_most() -> None:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, 0, 12:14, 4:20] = 1  # 2x4, 2x8 and 2x4 pixels of the cells 0, 1 and 2 of row 1
    mask[1, 0, 8:16, :8] = 1
    found = valid_cells(mask, (4, 4), "majority")
    assert found.hole[:, 0].nonzero().tolist() == [[0, 1, 1], [1, 1, 0]]
    assert found.known[:, 0].sum((1, 2)).tolist() == [16, 15]
    assert valid_cells(mask, (4, 4), "strict").hole.sum((1, 2, 3)).tolist() == [0, 1]


def test_a_thin_known_part_gets_cells_too_and_equals_share() -> None:
    mask = torch.ones(1, 1, 32, 32)
    mask[0, 0, 3, 3] = mask[0, 0, 20, 20] = 0
    found = valid_cells(mask, (4, 4), "majority")
    assert found.known[0, 0].nonzero().tolist() == [[0, 0], [2, 2]]
    assert found.hole.all()


@pytest.mark.parametrize("rule", RULES)
def test_a_part_without_a_pixel_has_no_cell(rule: str) -> None:
    found = valid_cells(torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]), (2, 2), rule)
    assert found.hole.flatten(1).all(1).tolist() == found.hole.flatten(1).any(1).tolist() == [False, True]
    assert torch.equal(found.known, ~found.hole)


def test_counts_are_exact_for_masks_in_half_precision() -> None:
    mask = torch.zeros(1, 1, 32, 64, dtype=torch.bfloat16)
    mask[..., :16, :] = 1
    mask[..., 0, 0] = 0  # 511 of 1024 pixels, which bfloat16 rounds to 512
    found = valid_cells(mask, (1, 2))
    assert found.hole.flatten().tolist() == [False, True]
    assert found.known.flatten().tolist() == [True, False]


def test_cells_are_of_each_sample_alone() -> None:
    mask = (torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    mask[3], mask[4, :, 1:] = 1, 1
    for rule in RULES:
        together = valid_cells(mask, (2, 2), rule)
        alone = [valid_cells(m[None], (2, 2), rule) for m in mask]
        assert torch.equal(together.known, torch.cat([a.known for a in alone]))
        assert torch.equal(together.hole, torch.cat([a.hole for a in alone]))


def test_wrong_rules_and_sides_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown rule for cells 'soft'"):
        valid_cells(torch.zeros(1, 1, 8, 8), (2, 2), "soft")
    for side in ((3, 2), (2, 3)):
        with pytest.raises(UsageError, match="8x8 pixels has no"):
            valid_cells(torch.zeros(1, 1, 8, 8), side)


# --- Eq. 3 to 7 -------------------------------------------------------------------------------------------------------


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize(("pool", "zero"), [(True, False), (True, True), (False, False)], ids=["max", "floor", "each"])
def test_eq_3_to_7_are_a_loop_in_value_and_gradient(sign: float, softmax: str, pool: bool, zero: bool) -> None:
    attention = make(softmax=softmax, pool=pool, invalid_as_zero=zero)
    assert attention.query is not None
    v, text, valid = features().requires_grad_(), described(), cells()
    given = [v, text.words.requires_grad_(), attention.query.weight]
    made = attention(v, text, valid, sign)
    wanted = naive(attention.query.weight[..., 0, 0], v, text, valid, sign, softmax, pool, zero)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(5))
    for ours, theirs in zip(
        torch.autograd.grad((made * weight).sum(), given),
        torch.autograd.grad((wanted * weight).sum(), given),
        strict=True,
    ):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_n2_the_paths_are_reciprocal() -> None:
    attention = make()
    v = torch.randn(1, CHANNELS, 1, 1)
    one_hot = torch.eye(WIDTH)[None]  # as many words as channels, so that t_e is the weights
    text = Described(one_hot, torch.zeros(1, WIDTH), torch.ones(1, WIDTH, dtype=torch.bool))
    assert attention.query is not None
    s = attention.query(v)[0, :, 0, 0]
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    for sign in (POSITIVE, NEGATIVE):
        made = attention(v, text, everywhere, sign)[0, :, 0, 0]
        torch.testing.assert_close(made, torch.softmax(sign * s, 0))


def test_printed_eq_5_adds_up_over_the_valid_cells() -> None:
    attention = make(softmax="area", pool=False)
    one_hot = torch.eye(WIDTH)[None, :, :T].expand(B, -1, -1)
    text = Described(one_hot, torch.zeros(B, WIDTH), torch.ones(B, T, dtype=torch.bool))
    beta = attention(features(), text, cells(), POSITIVE)
    torch.testing.assert_close(beta[:, :T].sum((2, 3)), torch.ones(B, T))
    assert (beta.masked_select(~cells()) == 0).all()


def test_a_cell_that_is_left_out_is_no_floor_unless_asked_for() -> None:
    text = Described(torch.full((1, WIDTH, T), -0.08), torch.zeros(1, WIDTH), torch.ones(1, T, dtype=torch.bool))
    valid = torch.ones(1, 1, H, W, dtype=torch.bool)
    v = features()[:1]
    assert (make(invalid_as_zero=True)(v, text, valid, NEGATIVE) < -0.07).all()
    valid[0, 0, 0, 0] = False
    assert (make(invalid_as_zero=True)(v, text, valid, NEGATIVE) == 0).all()
    torch.testing.assert_close(make()(v, text, valid, NEGATIVE), torch.full((1, WIDTH, H, W), -0.08))


def test_the_call_chooses_pooling_for_its_path() -> None:
    v, text, valid = features(), described(), cells()
    for own in (True, False):
        for asked in (True, False):
            made = make(pool=own)(v, text, valid, POSITIVE, pool=asked)
            assert torch.equal(made, make(pool=asked)(v, text, valid, POSITIVE))
    each, pooled = make(pool=False)(v, text, valid, POSITIVE), make()(v, text, valid, POSITIVE)
    assert not torch.allclose(each, pooled)
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))


def test_without_attention_the_text_is_the_mean_of_the_words() -> None:
    attention = make(attend=False)
    made = attention(features(), described(), cells(), NEGATIVE)
    torch.testing.assert_close(made, mean_of_words(described())[:, :, None, None].expand(-1, -1, H, W))
    assert not attention.state_dict()


def test_an_unknown_softmax_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be over 'places'"):
        DualAttention(CHANNELS, WIDTH, softmax="places")


def test_q_starts_small_and_orthogonal_so_that_words_weigh_the_same() -> None:
    attention = DualAttention(256, 256)
    assert list(attention.state_dict()) == ["query.weight"]
    W = attention.state_dict()["query.weight"][:, :, 0, 0]
    torch.testing.assert_close(W @ W.T, 0.02**2 * torch.eye(256), atol=1e-8, rtol=0.0)
    attention = DualAttention(CHANNELS, WIDTH)
    made = attention(features(), described(), cells(), NEGATIVE)
    wanted = mean_of_words(described())[:, :, None, None].expand_as(made)
    torch.testing.assert_close(made, wanted, atol=0.2, rtol=0.0)


# --- what a path may not see ------------------------------------------------------------------------------------------


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("pool", [True, False], ids=["max", "each"])
@pytest.mark.parametrize("other", [1e3, float("inf"), float("nan")])
def test_n1_cells_of_the_other_part_change_nothing(sign: float, softmax: str, pool: bool, other: float) -> None:
    mask = torch.zeros(B, 1, 4 * H, 4 * W)
    mask[..., :5, :] = 1
    found = valid_cells(mask, (H, W))
    valid = found.hole if sign == POSITIVE else found.known
    attention, v, text = make(softmax=softmax, pool=pool), features(), described()
    changed = torch.where(valid, v, torch.tensor(other)).requires_grad_()
    made = attention(changed, text, valid, sign)
    assert torch.equal(made, attention(v, text, valid, sign))
    made.square().sum().backward()
    assert attention.query is not None
    assert attention.query.weight.grad is not None
    assert attention.query.weight.grad.isfinite().all()
    assert changed.grad is not None
    assert (changed.grad.masked_select(~valid) == 0).all()
    assert changed.grad.masked_select(valid).abs().max() > 0


@SIGNS
def test_n1_valid_cells_do_change_the_text(sign: float) -> None:
    attention, v, text, valid = make(), features(), described(), cells()
    moved = attention(torch.where(valid, 2 * v, v), text, valid, sign)
    assert ((moved - attention(v, text, valid, sign)).abs().amax((1, 2, 3))[:2] > 1e-3).all()


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("padding", [7.0, float("nan")])
def test_n3_padding_weighs_nothing_in_any_sample(sign: float, softmax: str, padding: float) -> None:
    attention, v, text, valid = make(softmax=softmax), features(), described(), cells()
    words = torch.where(text.known[:, None], text.words, torch.tensor(padding)).requires_grad_()
    made = attention(v, text._replace(words=words), valid, sign)
    for b, length in enumerate(LENGTHS):
        cut = Described(text.words[b : b + 1, :, :length], text.sentence[b : b + 1], text.known[b : b + 1, :length])
        alone = attention(v[b : b + 1], cut, valid[b : b + 1], sign)
        torch.testing.assert_close(made[b : b + 1], alone, atol=1e-6, rtol=1e-5)
    made.square().sum().backward()
    assert words.grad is not None
    assert (words.grad.masked_select(~text.known[:, None]) == 0).all()
    assert words.grad.isfinite().all()


def test_n3_weights_add_up_to_one_over_the_words_of_each_caption() -> None:
    attention = make(pool=False)
    ones = Described(torch.ones(B, WIDTH, T), torch.zeros(B, WIDTH), described().known)
    made = attention(features(), ones, torch.ones(B, 1, H, W, dtype=torch.bool), NEGATIVE)
    torch.testing.assert_close(made, torch.ones_like(made))


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize(("pool", "zero"), [(True, False), (True, True), (False, False)], ids=["max", "floor", "each"])
def test_n4_without_a_valid_cell_the_text_is_the_mean_and_gradients_are_finite(
    sign: float, softmax: str, pool: bool, zero: bool
) -> None:
    attention, text, valid = make(softmax=softmax, pool=pool, invalid_as_zero=zero), described(), cells()
    valid[1] = False
    v = features().requires_grad_()
    text.words.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        made = attention(v, text, valid, sign)
        made.square().sum().backward()
    torch.testing.assert_close(made[1], mean_of_words(text)[1][:, None, None].expand(-1, H, W))
    assert attention.query is not None
    for tensor in (v, text.words, attention.query.weight):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert v.grad is not None
    assert (v.grad[1] == 0).all()
    assert text.words.grad is not None
    assert text.words.grad[1].abs().max() > 0


def test_n4_a_hole_over_everything_is_finite_on_both_paths() -> None:
    found = valid_cells(torch.ones(B, 1, 4 * H, 4 * W), (H, W))
    attention, v = make(), features().requires_grad_()
    total = sum(attention(v, described(), valid, sign).sum() for valid, sign in zip(found, (-1.0, 1.0), strict=True))
    assert total.isfinite()
    total.backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()
    assert v.grad.abs().max() > 0  # of the positive path


# --- numbers ----------------------------------------------------------------------------------------------------------


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_enormous_scores_are_finite(sign: float, softmax: str) -> None:
    attention = make(softmax=softmax)
    v = (1e6 * features()).requires_grad_()
    made = attention(v, described(), cells(), sign)
    made.sum().backward()
    assert made.isfinite().all()
    assert v.grad is not None
    assert v.grad.isfinite().all()


@SIGNS
@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_autocast_takes_no_digits_away(sign: float, softmax: str) -> None:
    attention, text, valid = make(softmax=softmax), described(), cells()
    v = 10 * features()
    plain = attention(v, text, valid, sign)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(v, text, valid, sign), plain)
        half = v.bfloat16().requires_grad_()
        made = attention(half, text._replace(words=text.words.bfloat16()), valid, sign)
    assert made.dtype == torch.bfloat16
    rounded = text._replace(words=text.words.bfloat16().float())
    assert torch.equal(made, attention(half.float(), rounded, valid, sign).bfloat16())
    made.float().sum().backward()
    assert half.grad is not None
    assert half.grad.isfinite().all()


def test_a_module_in_half_precision_attends_too() -> None:
    attention, text, valid = make(), described(), cells()
    plain = attention(features(), text, valid, NEGATIVE)
    made = attention.bfloat16()(features().bfloat16(), text, valid, NEGATIVE)
    torch.testing.assert_close(made.float(), plain, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_a_sample_gets_the_same_text_alone_and_in_a_batch(softmax: str) -> None:
    attention, v, text, valid = make(softmax=softmax), features(), described(), cells()
    valid[1] = False
    together = attention(v, text, valid, NEGATIVE)
    for b in range(B):
        alone = attention(v[b : b + 1], Described(*(t[b : b + 1] for t in text)), valid[b : b + 1], NEGATIVE)
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-6, rtol=1e-5)
