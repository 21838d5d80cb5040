"""The law of each family: what its masks look like, and that its draws are bounded."""

from __future__ import annotations

import numpy as np
import pytest
from every import plain
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zoo.masks import chains, comodgan, draw_mask, lama, words
from zoo.masks.canvas import Mask


def extent(mask: Mask) -> tuple[int, int, int, int]:
    """Rows and columns of the smallest box around a hole: top, bottom, left, right; the ends excluded."""
    ys, xs = np.nonzero(mask)
    return int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1


def is_box(mask: Mask) -> bool:
    top, bottom, left, right = extent(mask)
    return bool(mask[top:bottom, left:right].all())


# --- draws that end ---------------------------------------------------------------------------------------------------


def test_draws_end_with_the_one_that_came_nearest() -> None:
    drawn = []

    def draw(number: int) -> Mask:
        drawn.append(number)
        mask = np.zeros((10, 10), np.uint8)
        mask.ravel()[: 1 + number % 5] = 1
        return mask

    assert words.first_within(draw, 0.5, 1.0).sum() == 5
    assert drawn == list(range(words.TRIES))
    drawn.clear()
    assert words.first_within(draw, 0.02, 0.04).sum() == 3
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize(("module", "kind"), [(comodgan, "mat"), (comodgan, "comodgan"), (chains, "mmagic")])
@pytest.mark.parametrize("fill", [0, 1])
def test_generators_that_accept_only_some_end(
    module: object, kind: str, fill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(canvas: object, kind: str, *_: object) -> Mask:
        drawn.append(kind)
        return np.full((32, 32), fill, np.uint8)

    monkeypatch.setattr(module, "_mmagic" if kind == "mmagic" else "_draw", draw)
    assert draw_mask(kind, plain(0, 32)).mean() == fill
    assert drawn == [kind, *(f"{kind} try {number}" for number in range(1, words.TRIES))]


def test_words_cover_their_range_evenly() -> None:
    assert [words.whole(word, 3, 5) for word in (0, 21845, 21846, 43691, 65535)] == [3, 3, 4, 5, 5]
    assert words.real(0, -1.0, 1.0) == -1.0
    assert words.real(65535, -1.0, 1.0) < 1.0
    assert words.thicknesses(1, 9, 2, 1.0) == (1, 3, 5, 7, 9), "at 256 what the papers ask for"
    assert words.thicknesses(10, 10, 1, 2.0) == (21,)
    assert words.thicknesses(10, 10, 1, 0.01) == (1,)


# --- strokes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "parts"), [("lama:thick", (1, 6)), ("lama:thin", (1, 51)), ("mmt:strokes", (1, 15))])
def test_there_are_no_more_pieces_than_strokes(kind: str, parts: tuple[int, int]) -> None:
    pieces = [ndimage.label(draw_mask(kind, plain(index)), np.ones((3, 3)))[1] for index in range(60)]
    assert parts[0] <= min(pieces)
    assert max(pieces) <= parts[1]


def test_thin_medium_and_thick_are() -> None:
    """How far inside a hole a pixel can lie: half of the widest stroke, at least where strokes do not meet."""
    depth = {
        name: np.mean([ndimage.distance_transform_edt(draw_mask(f"lama:{name}", plain(i))).max() for i in range(40)])
        for name in ("thin", "medium", "thick")
    }
    assert depth["thin"] < 0.6 * depth["medium"] < 0.6 * depth["thick"]


def test_training_masks_are_half_boxes() -> None:
    """The edges of a union of boxes run along rows and columns; every hole of strokes has others."""

    def straight(mask: Mask) -> bool:
        corners = mask[:-1, :-1] + mask[1:, :-1] + mask[:-1, 1:] + mask[1:, 1:]
        return int(np.isin(corners, (1, 3)).sum()) <= 4 * 4 * 4

    share = np.mean([straight(draw_mask("lama:train", plain(index))) for index in range(300)])
    assert share == pytest.approx(lama.RECIPES["train"].share, abs=0.08)


def test_mmagic_holes_lie_in_their_range() -> None:
    ratios = [draw_mask("mmagic", plain(index)).mean() for index in range(200)]
    assert min(ratios) > 0.15
    assert max(ratios) < 0.65


# --- boxes and sides --------------------------------------------------------------------------------------------------


def test_lama_outpaints_from_the_border() -> None:
    sides = np.zeros(4)
    for index in range(300):
        mask = draw_mask("lama:outpaint", plain(index))
        top, bottom, left, right = extent(1 - mask)
        assert is_box(1 - mask), "what is known is a rectangle"
        depths = np.array([left, top, 256 - right, 256 - bottom]) / 256
        assert depths.any()
        assert ((depths == 0) | (abs(depths - 0.145) <= 0.108)).all()
        sides += depths > 0
    assert sides / 300 == pytest.approx(np.full(4, 0.5 + 1 / 64), abs=0.1)


@pytest.mark.parametrize("kind", ["rectangle", "rectangle:40-60", "mmt:square"])
def test_a_rectangle_is_one(kind: str) -> None:
    places = set()
    for index in range(60):
        mask = draw_mask(kind, plain(index, 60, 90))
        top, bottom, left, right = extent(mask)
        assert is_box(mask)
        places.add((top, left))
        if kind == "mmt:square":
            assert bottom - top == right - left
            assert 20 <= bottom - top <= 30
        elif kind == "rectangle":
            assert 0.45 < (bottom - top) / (right - left) * 90 / 60 < 2.2
    assert len(places) > 30


def test_regular_holes_are_rectangles() -> None:
    for index in range(60):
        mask = draw_mask("picnet:regular", plain(index))
        changes = np.abs(np.diff(mask.astype(int), axis=0)).sum() + np.abs(np.diff(mask.astype(int), axis=1)).sum()
        assert changes <= 5 * 4 * 256
        top, bottom, left, right = extent(mask)
        assert min(bottom - top, right - left) >= 256 // 12


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["left", "right", "top", "bottom", "all", "random"]),
    st.floats(0.01, 0.99),
    st.integers(2, 70),
    st.integers(2, 70),
)
def test_outpainting_hides_its_share(side: str, share: float, height: int, width: int) -> None:
    mask = draw_mask(f"outpaint:{side}:{share}", plain(0, height, width))
    assert 0 < mask.sum() < height * width
    assert is_box(1 - mask), "what is known is a rectangle"
    step = max(height, width) * (2 if side == "all" else 1)
    assert abs(int(mask.sum()) - share * height * width) <= step


def test_half_is_half_of_the_side_it_names() -> None:
    for side, rows, columns in (
        ("left", slice(None), slice(32)),
        ("right", slice(None), slice(32, None)),
        ("top", slice(24), slice(None)),
        ("bottom", slice(24, None), slice(None)),
    ):
        wanted = np.zeros((48, 64), np.uint8)
        wanted[rows, columns] = 1
        assert np.array_equal(draw_mask(f"half:{side}", plain(0, 48, 64)), wanted)
    drawn = [draw_mask("half", plain(index, 48, 64)).tobytes() for index in range(80)]
    assert sorted(drawn.count(mask) > 8 for mask in set(drawn)) == [True] * 4, "every side comes"


def test_outpaint_all_leaves_the_middle() -> None:
    mask = draw_mask("outpaint:all:0.75", plain(0, 64))
    assert not mask[16:48, 16:48].any()
    assert mask.sum() == 64 * 64 * 3 / 4
    assert np.array_equal(draw_mask("outpaint", plain(0, 64)), draw_mask("outpaint:right:0.25", plain(0, 64)))
    assert draw_mask("outpaint", plain(0, 64))[:, 48:].all()
