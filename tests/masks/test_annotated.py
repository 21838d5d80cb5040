"""Masks from annotations: one instance, or all of a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from every import canvas
from scipy import ndimage

from zoo.data.masked import canvas_of
from zoo.data.shapes import Shapes
from zoo.errors import DataError, UsageError
from zoo.masks import draw_mask


def test_an_instance_is_any_of_them() -> None:
    one = canvas(0)
    assert one.segments is not None
    counts = [0, 0]
    for seed in range(60):
        mask = draw_mask("instance:0", one, seed)
        which = [index for index in range(2) if np.array_equal(mask, one.segments[index])]
        counts[which[0]] += 1
    assert min(counts) > 15


def test_an_instance_without_a_pixel_is_never_chosen() -> None:
    one = canvas(0)
    assert one.segments is not None
    segments = one.segments.copy()
    segments[0] = False
    for seed in range(20):
        assert np.array_equal(draw_mask("instance:0", replace(one, segments=segments), seed), segments[1])
    none = replace(one, segments=np.zeros_like(segments))
    assert np.array_equal(draw_mask("instance", none), draw_mask("center", none))
    empty = replace(one, segments=segments[:0], boxes=one.boxes[:0])
    assert np.array_equal(draw_mask("instance", empty), draw_mask("center", empty))


@pytest.mark.parametrize("kind", ["instance", "class:thing"])
def test_the_dilation_is_a_disc_that_scales(kind: str) -> None:
    for radius in ("", ":12"):
        mask, core = draw_mask(kind + radius, canvas(0), 3), draw_mask(f"{kind}:0", canvas(0), 3)
        reach = 1.25 if not radius else 3.0  # 5 and 12 pixels at 256, at 64
        if kind == "instance":  # another radius is another key, and may choose another object
            core = max((canvas(0).segments), key=lambda s: int((s & (mask > 0)).sum())).astype(np.uint8)  # type: ignore[arg-type]
        distance = ndimage.distance_transform_edt(1 - core)
        assert np.array_equal(mask, distance <= reach + 1e-3)


def test_a_class_is_all_of_its_pixels() -> None:
    one = canvas(0)
    assert one.segmentation is not None
    assert np.array_equal(draw_mask("class:thing:0", one), one.segmentation == 1)
    for name in ("traffic light", "traffic_light"):
        assert np.array_equal(draw_mask(f"class:{name}:0", one), one.segmentation == 2)
    without = replace(one, segmentation=np.zeros_like(one.segmentation))
    assert np.array_equal(draw_mask("class:thing", without), draw_mask("center", without))
    unknown = replace(one, segmentation=np.full_like(one.segmentation, 255))
    assert np.array_equal(draw_mask("class:thing", unknown), draw_mask("center", unknown)), "255 is no class"


def test_what_is_missing_is_named() -> None:
    one = canvas(0)
    with pytest.raises(UsageError, match="unknown class of every 'thinf'") as caught:
        draw_mask("class:thinf", one)
    assert "did you mean 'thing'" in caught.value.remedy
    for bare in (replace(one, segmentation=None), replace(one, classes=())):
        with pytest.raises(DataError, match="no segmentation with named classes"):
            draw_mask("class:thing", bare)
    with pytest.raises(DataError, match="must be"):
        draw_mask("class:thing", replace(one, segmentation=np.zeros((3, 3), np.uint8)))
    with pytest.raises(DataError, match="no segments"):
        draw_mask("instance", replace(one, segments=None))
    with pytest.raises(DataError, match="one per box"):
        draw_mask("instance", replace(one, boxes=one.boxes[:1]))


def test_a_class_of_a_dataset_reaches_the_mask() -> None:
    data = Shapes("test", size=32, count=12)
    found = 0
    for index in range(len(data)):
        sample = data.sample(index)
        assert sample.segmentation is not None
        name = data.classes[int(sample.segmentation.max())]
        if name != "background":
            mask = draw_mask(f"class:{name}:0", canvas_of(data, sample))
            assert np.array_equal(mask, sample.segmentation == sample.segmentation.max())
            found += 1
    assert found == 12
