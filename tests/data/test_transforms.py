"""Image, boxes, class maps and masks move together."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.data.transforms import fit

sides = st.integers(1, 90)


@given(sides, sides, st.integers(1, 40))
def test_everything_has_the_size_asked_for(height: int, width: int, size: int) -> None:
    placed = fit(height, width, size)
    assert placed.image(np.zeros((height, width, 3), np.uint8)).shape == (size, size, 3)
    assert placed.labels(np.zeros((height, width), np.uint8)).shape == (size, size)
    assert placed.labels(np.zeros((3, height, width), np.bool_)).shape == (3, size, size)
    assert placed.mask(np.zeros((height, width), np.uint8)).shape == (size, size)
    assert min(placed.scaled) == size


def test_the_resize_is_pillows_bicubic_and_the_crop_is_central() -> None:
    image = picture(60, 101)
    resized = np.asarray(Image.fromarray(image).resize((54, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(fit(60, 101, 32).image(image), resized[:, 11:43])
    turned = fit(101, 60, 32).image(image.transpose(1, 0, 2).copy())
    assert np.abs(turned.astype(int) - resized[:, 11:43].transpose(1, 0, 2).astype(int)).max() <= 1


def test_native_size_changes_nothing() -> None:
    image, placed = picture(21, 34), fit(21, 34, None)
    mask = (image[..., 0] > 99).astype(np.uint8)
    assert np.array_equal(placed.image(image), image)
    assert np.array_equal(placed.mask(mask), mask)
    assert np.array_equal(placed.labels(mask), mask)
    boxes, kept = placed.boxes(np.array([[1, 2, 30, 20]], np.float32))
    assert boxes.tolist() == [[1, 2, 30, 20]]
    assert kept.all()


def test_a_white_rectangle_stays_under_its_box_and_map() -> None:
    height, width, box = 120, 200, (80, 30, 140, 90)
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    placed = fit(height, width, 60)
    moved, _ = placed.boxes(np.array([box], np.float32))
    assert moved.tolist() == [[20, 15, 50, 45]]
    small = placed.image(image)[..., 0]
    inside = np.zeros((60, 60), np.bool_)
    inside[15:45, 20:50] = True
    assert np.array_equal(small > 127, inside)
    assert np.array_equal(placed.labels(image[..., 0] > 0), inside)
    assert np.array_equal(placed.mask(image[..., 0] // 255) > 0, inside)


def test_boxes_are_clipped_and_degenerate_ones_dropped() -> None:
    boxes = np.array([[0, 0, 200, 100], [0, 0, 40, 100], [60, 10, 60.5, 50], [150, 20, 400, 30]], np.float32)
    moved, kept = fit(100, 200, 100).boxes(boxes)
    assert kept.tolist() == [True, False, False, False]
    assert moved.tolist() == [[0, 0, 100, 100]]
    assert fit(100, 200, 100).boxes(np.zeros((0, 4), np.float32))[0].shape == (0, 4)


@given(st.integers(8, 90), st.integers(8, 90), st.integers(4, 40), st.integers(0, 10**6))
def test_a_hole_pixel_is_never_lost(height: int, width: int, size: int, place: int) -> None:
    placed = fit(height, width, size)
    y, x = divmod(place % (height * width), width)
    mask = np.zeros((height, width), np.uint8)
    mask[y, x] = 1
    small = placed.mask(mask)
    top, left = y * placed.scaled[0] / height - placed.top, x * placed.scaled[1] / width - placed.left
    if 0 <= top <= size - 1 and 0 <= left <= size - 1:
        assert small[int(top), int(left)] == 1
    assert set(np.unique(small)) <= {0, 1}


def test_labels_invent_no_class() -> None:
    labels = np.random.default_rng(0).choice([0, 7, 255], (50, 70)).astype(np.uint8)
    assert set(np.unique(fit(50, 70, 33).labels(labels))) <= {0, 7, 255}


@pytest.mark.parametrize("size", [16, 100])
def test_down_and_up(size: int) -> None:
    image = picture(40, 40)
    back = fit(size, size, 40).image(fit(40, 40, size).image(image))
    assert np.abs(back.astype(int) - image.astype(int)).mean() < 8
