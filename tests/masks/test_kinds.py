"""Every kind of mask: keyed, exact, bounded, scaled."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zoo.errors import DataError, UsageError
from zoo.masks import Canvas, check_kind, draw_mask, draw_mixture, kinds, parse_mixture
from zoo.masks.irregular import MAX_STROKES, irregular
from zoo.masks.manifest import bits_sha
from zoo.masks.mixtures import MIXTURES

BOXES = np.array([[10, 12, 24, 26], [40, 34, 60, 54]], np.float32)
ALL = [
    "center", "center:0.5", "box", "object", "object:segmentation", "object:segmentation:12", "freeform", "deepfill",
    "irregular:10-20", "irregular:50-60", "file",
]  # fmt: skip


def canvas(index: int = 0, size: int = 64, **changes: object) -> Canvas:
    segments = np.zeros((2, size, size), bool)
    segments[0, 14:20, 14:20] = True
    segments[1, 40:50, 44:58] = True
    arguments = {"boxes": BOXES, "segments": segments, "mask": np.eye(size, dtype=np.uint8), **changes}
    return Canvas("fake", f"fake/test/{index}", size, size, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ALL)
def test_a_mask_is_binary_and_a_function_of_its_key(kind: str) -> None:
    drawn = [draw_mask(kind, canvas(i), 1) for i in range(4)]
    again = [draw_mask(kind, canvas(i), 1) for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert all(m.shape == (64, 64) and m.dtype == np.uint8 and set(np.unique(m)) <= {0, 1} and m.any() for m in drawn)


@pytest.mark.parametrize("kind", ["box", "freeform", "deepfill", "irregular:10-20"])
def test_another_image_or_seed_gives_another_mask(kind: str) -> None:
    first = draw_mask(kind, canvas(0), 1)
    assert not np.array_equal(first, draw_mask(kind, canvas(1), 1))
    assert not np.array_equal(first, draw_mask(kind, canvas(0), 2))


def test_golden_hashes_hold_in_every_process() -> None:
    code = (
        "from tests.masks.test_kinds import canvas, ALL, fingerprint\n"
        "print(','.join(fingerprint(kind) for kind in ALL))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split(",") == [fingerprint(kind) for kind in ALL] == GOLDEN


def fingerprint(kind: str) -> str:
    shas = [bits_sha(draw_mask(kind, canvas(i), 0)) for i in range(8)]
    return hashlib.sha256("".join(shas).encode()).hexdigest()[:12]


GOLDEN = [
    "1b1e2c78fbd3",
    "941acb12e2ae",
    "5166e52cc66e",
    "e47a2369bb9d",
    "fcbaab5a1eea",
    "5b520f3ca193",
    "241f64c43907",
    "4bca36b6156a",
    "5241f89538e3",
    "9c24e1280adc",
    "bd03227c01de",
]


@pytest.mark.parametrize("size", [16, 64, 256])
@pytest.mark.parametrize("bucket", [(0, 10), (10, 20), (30, 40), (50, 60), (90, 100), (10, 11)])
def test_irregular_buckets_are_exact(size: int, bucket: tuple[int, int]) -> None:
    low, high = bucket
    for index in range(12):
        ratio = 100 * draw_mask(f"irregular:{low}-{high}", Canvas("fake", f"{index}", size, size)).mean()
        assert low < ratio <= high


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 80), st.integers(4, 80), st.floats(0, 99), st.floats(0.1, 60), st.integers(0, 9))
def test_irregular_holds_for_any_size_and_bucket(height: int, width: int, low: float, step: float, index: int) -> None:
    high = min(100.0, low + step)
    one, area = Canvas("fake", str(index), height, width), height * width
    wanted = [n for n in range(1, area + 1) if low < 100 * n / area <= high]
    if not wanted:
        with pytest.raises(UsageError, match="no number of pixels"):
            irregular(one, "irregular", 0, low, high)
        return
    count = int(irregular(one, "irregular", 0, low, high).sum())
    assert min(wanted) <= count <= max(wanted)


def test_irregular_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the strokes fall, at most MAX_STROKES are drawn: here none ever covers anything new."""
    import zoo.masks.irregular as module

    drawn = []
    monkeypatch.setattr(module, "paint", lambda mask, points, width: drawn.append(width))
    start = time.perf_counter()
    ratio = draw_mask("irregular:50-60", canvas()).mean()
    assert 0.5 < ratio <= 0.6
    assert len(drawn) == MAX_STROKES
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("kind", "mean"), [("freeform", 0.154), ("deepfill", 0.310), ("center", 0.25)])
def test_hole_ratios_agree_with_the_reference_at_any_size(kind: str, mean: float) -> None:
    for size in (64, 256, 512):
        ratios = [draw_mask(kind, Canvas("fake", str(i), size, size)).mean() for i in range(600)]
        assert np.mean(ratios) == pytest.approx(mean, abs=0.02)


def test_center_takes_half_of_each_side_or_a_share_of_the_area() -> None:
    mask = draw_mask("center", canvas(size=64))
    assert mask[16:48, 16:48].all()
    assert mask.sum() == 32 * 32
    assert draw_mask("center:0.5", canvas(size=256)).mean() == pytest.approx(0.5, abs=0.005)
    assert draw_mask("center", Canvas("fake", "0", 10, 20)).sum() == 5 * 10


def test_box_sides_are_those_of_deepfill() -> None:
    for index in range(50):
        ys, xs = np.nonzero(draw_mask("box", Canvas("fake", str(index), 256, 256)))
        sides = np.ptp(ys) + 1, np.ptp(xs) + 1
        assert all(96 <= side <= 128 for side in sides)
        assert len(ys) == sides[0] * sides[1]


def test_object_takes_the_largest_that_leaves_context() -> None:
    boxes = np.array([[0, 0, 64, 60], [1.4, 2.6, 20.2, 30.1], [3, 3, 9, 9]], np.float32)
    mask = draw_mask("object", canvas(boxes=boxes))
    ys, xs = np.nonzero(mask)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (1, 2, 21, 31), "floor and ceil outward"
    only_large = draw_mask("object", canvas(boxes=boxes[:1]))
    assert only_large.sum() == 64 * 60, "where none qualifies, the nearest to the range"
    assert np.array_equal(draw_mask("object", canvas(boxes=boxes[:0])), draw_mask("center", canvas()))
    outside = draw_mask("object", canvas(boxes=np.array([[50, 50, 90, 90]], np.float32)))
    assert outside.sum() == 14 * 14, "clipped to the image"


def test_grown_boxes_keep_margins_and_touch_nothing_else() -> None:
    chosen = set()
    for index in range(200):
        mask = draw_mask("object", canvas(index, object_rule="grown"))
        ys, xs = np.nonzero(mask)
        hole = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)
        which = int(np.argmin(np.abs(BOXES - hole).sum(1)))
        chosen.add(which)
        side = BOXES[which][2] - BOXES[which][0]
        margins = (hole - BOXES[which]) * [-1, -1, 1, 1]
        assert (margins >= 0.1 * side - 1e-6).all()
        assert (margins <= 0.25 * side + 1).all(), "at most a quarter, rounded outward"
        other = BOXES[1 - which].astype(int)
        assert not mask[other[1] : other[3], other[0] : other[2]].any()
    assert chosen == {0, 1}


def test_margins_shrink_where_another_object_is_near() -> None:
    near = np.array([[10, 10, 30, 30], [31, 10, 51, 30]], np.float32)
    for index in range(30):
        mask = draw_mask("object", canvas(index, boxes=near, object_rule="grown"))
        inside = [mask[10:30, 10:30], mask[10:30, 31:51]]
        assert sorted(part.mean() for part in inside) == [0.0, 1.0]
        ys, _ = np.nonzero(mask)
        assert ys.min() <= 8, "only the side that would touch is drawn in"
        assert ys.max() >= 31


def test_segments_are_dilated_by_a_disc_that_scales() -> None:
    one = canvas()
    mask = draw_mask("object:segmentation:12", one)  # 12 pixels at 256 are 3 at 64
    distance = ndimage.distance_transform_edt(~one.segments[1])  # type: ignore[index]
    assert mask[distance <= 2.5].all()
    assert not mask[distance > 3.5].any()
    assert np.array_equal(draw_mask("object:segmentation:0", one), one.segments[1])  # type: ignore[index]
    with pytest.raises(DataError, match="no segments"):
        draw_mask("object:segmentation", canvas(segments=None))


def test_both_object_masks_remove_the_same_object() -> None:
    for index in range(40):
        one = canvas(index, object_rule="grown")
        assert not (draw_mask("object:segmentation:0", one) & ~draw_mask("object", one)).any()


def test_naming_a_mask_imports_no_torch() -> None:
    code = "import sys; from zoo.masks import parse_mixture; parse_mixture('object'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_file_is_the_users_mask() -> None:
    assert np.array_equal(draw_mask("file", canvas()), np.eye(64))
    with pytest.raises(DataError, match="no mask file"):
        draw_mask("file", canvas(mask=None))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("centre", "did you mean 'center'"),
        ("center:2", r"lies in \(0, 1\]"),
        ("center:x", "is no number"),
        ("irregular", "needs a bucket"),
        ("irregular:20-10", "LO < HI"),
        ("irregular:10-nan", "no finite number"),
        ("object:box", "unknown object mask"),
        ("object:segmentation:-1", "cannot be negative"),
        ("freeform:3", "is no option"),
        ("rectangle:40", "needs a bucket"),
        ("instance:x", "is no number"),
        ("instance:-1", "cannot be negative"),
        ("class", "needs the name of a class"),
        ("class:hair:x", "is no number"),
        ("lama", "lama:thin lama:medium"),
        ("lama:thik", "did you mean 'thick'"),
        ("mmt:", "several kinds"),
        ("half:up", "unknown half mask 'up'"),
        ("outpaint:all:1", r"lies in \(0, 1\)"),
        ("outpaint:0.5", "unknown outpaint mask"),
        ("nvidia:", "nvidia needs a bucket"),
        ("nvidia:10-20:edge", "unknown option of nvidia masks 'edge'"),
    ],
)
def test_wrong_kinds_are_usage_errors(kind: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        check_kind(kind)


def test_mixtures_pick_by_weight_and_by_key() -> None:
    mixture = parse_mixture("2*object, freeform,center")
    assert mixture.kinds == ("object", "freeform", "center")
    assert mixture.probabilities == (0.5, 0.25, 0.25)
    picked = [mixture.pick(str(i), 0) for i in range(2000)]
    assert picked == [mixture.pick(str(i), 0) for i in range(2000)]
    assert [picked.count(kind) / 2000 for kind in mixture.kinds] == pytest.approx([0.5, 0.25, 0.25], abs=0.035)
    assert picked != [mixture.pick(str(i), 1) for i in range(2000)]
    one = canvas()
    assert np.array_equal(draw_mixture(parse_mixture("box"), one, 5), draw_mask("box", one, 5))
    for text in ("x*object", "0*object", "inf*object", ""):
        with pytest.raises(UsageError):
            parse_mixture(text)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_by_name_is_the_mixture_it_stands_for(name: str) -> None:
    text = MIXTURES[name][0]
    named, written = parse_mixture(f"mixture:{name}"), parse_mixture(text)
    assert named.kinds == written.kinds
    assert named.probabilities == pytest.approx(written.probabilities)
    assert [named.pick(str(i), 3) for i in range(200)] == [written.pick(str(i), 3) for i in range(200)]


def test_a_mixture_by_name_may_be_a_part_of_another() -> None:
    mixture = parse_mixture("3*mixture:nano, box")
    assert mixture.kinds == ("object", "freeform", "center", "box")
    assert mixture.probabilities == pytest.approx((0.375, 0.1875, 0.1875, 0.25))
    with pytest.raises(UsageError, match="unknown mixture 'cmma'"):
        parse_mixture("mixture:cmma")


def test_every_kind_is_described() -> None:
    names = [name for name, _ in kinds()]
    assert set(names) >= {kind.partition(":")[0] for kind in ALL}
    assert len(names) == len(set(names))
    assert all(len(text) > 10 for _, text in kinds())
