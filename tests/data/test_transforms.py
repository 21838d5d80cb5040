"""Image, boxes, class maps and masks move together."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fakes import photograph, picture
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


def _pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def test_the_resize_is_pillows_bicubic_and_the_crop_is_central() -> None:
    image = picture(60, 101)
    resized = _pillow(image, (48, 81))
    assert np.array_equal(fit(60, 101, 48).image(image), resized[:, 16:64])
    turned = image.transpose(1, 0, 2).copy()
    assert np.array_equal(fit(101, 60, 48).image(turned), _pillow(turned, (81, 48))[16:64])


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("shape", [(480, 640), (427, 640), (640, 480), (900, 1200)])
def test_a_shrunken_photograph_is_pillows_within_one_level(name: str, shape: tuple[int, int]) -> None:
    image = _pillow(photograph(name), shape)
    placed = fit(*shape, 256)
    apart = _apart(placed.image(image), placed._crop(_pillow(image, placed.scaled)))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01
    assert (apart > 0).any()  # it is not Pillow that resized


@pytest.mark.parametrize("kind", ["noise", "black and white"])
def test_shrunken_patterns_are_pillows_within_two_levels_and_nearly_everywhere_within_one(kind: str) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (500, 700, 3)) if kind == "noise" else 255 * rng.integers(0, 2, (500, 700, 3))
    for size in (64, 100, 256, 333):
        placed = fit(500, 700, size)
        image = levels.astype(np.uint8)
        apart = _apart(placed.image(image), placed._crop(_pillow(image, placed.scaled)))
        assert apart.max() <= 2
        assert (apart > 1).mean() < 1e-4


@pytest.mark.parametrize(
    ("shape", "size"),
    [((300, 300), 201), ((100, 140), 256), ((500, 333), 256), ((2000, 300), 100)],
    ids=["shrinks little", "grows", "a photograph of Flickr30k", "a tower"],
)
def test_what_pillow_resizes_itself(shape: tuple[int, int], size: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    placed = fit(*shape, size)
    assert np.array_equal(placed.image(image), placed._crop(_pillow(image, placed.scaled)))


def test_pictures_that_cannot_be_written_to_are_resized_too() -> None:
    image = np.asarray(Image.fromarray(picture(90, 120)))
    assert not image.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = fit(90, 120, 30).image(image)
    assert np.array_equal(small, fit(90, 120, 30).image(image.copy()))
    assert np.array_equal(small, fit(90, 120, 30).image(np.asfortranarray(image)))


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


def test_labels_are_the_nearest_pixels_of_one_map_and_of_a_stack() -> None:
    stack = np.random.default_rng(2).integers(0, 256, (3, 41, 60)).astype(np.uint8)
    placed = fit(41, 60, 17)
    rows = [int((y + placed.top + 0.5) * 41 / placed.scaled[0]) for y in range(17)]
    columns = [int((x + placed.left + 0.5) * 60 / placed.scaled[1]) for x in range(17)]
    want = np.array([[[layer[y, x] for x in columns] for y in rows] for layer in stack])
    assert np.array_equal(placed.labels(stack), want)
    assert np.array_equal(placed.labels(stack[1]), want[1])
    assert placed.labels(stack).flags.c_contiguous


@pytest.mark.parametrize("size", [16, 100])
def test_down_and_up(size: int) -> None:
    image = picture(40, 40)
    back = fit(size, size, 40).image(fit(40, 40, size).image(image))
    assert np.abs(back.astype(int) - image.astype(int)).mean() < 8
