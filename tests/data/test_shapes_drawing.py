"""Pictures, supports and segmentation of `shapes`, its outlines and its colours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import rgb2lab

from zoo.batch import KEYS
from zoo.data.shapes import Shapes, draw_scene
from zoo.data.shapes.colour import COLOURS, PALETTE, PALETTE_LAB, lab, rgb
from zoo.data.shapes.draw import draw
from zoo.data.shapes.geometry import FILLS, SHAPES, all_coverages, object_coverage, outlines
from zoo.data.shapes.texture import draw_background
from zoo.errors import DataError, UsageError


def polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


@pytest.mark.parametrize("size", [32, 64, 101, 512])
def test_a_sample_keeps_the_contract(size: int) -> None:
    dataset = Shapes("val", size=size, count=6)
    for index, sample_id in enumerate(dataset.ids):
        sample = dataset.sample(index)
        assert sample.id == sample_id == f"shapes/val/{index:06d}"
        assert sample.segments is not None
        assert sample.segmentation is not None
        assert sample.image.shape == (size, size, 3)
        assert (sample.image.dtype, sample.segmentation.dtype) == (np.uint8, np.uint8)
        assert (sample.segments.dtype, sample.boxes.dtype) == (np.bool_, np.float32)
        assert sample.segments.shape == (len(sample.boxes), size, size)


def test_segmentation_agrees_with_the_segments() -> None:
    dataset = Shapes("test")
    for index in range(60):
        sample, scene = dataset.sample(index), dataset.scene(index)
        assert sample.segments is not None
        assert sample.segmentation is not None
        assert sample.segments.sum(0).max() == 1
        np.testing.assert_array_equal(sample.segmentation > 0, sample.segments.any(0))
        for segment, obj, box in zip(sample.segments, scene.objects, sample.boxes, strict=True):
            assert set(sample.segmentation[segment].tolist()) == {dataset.classes.index(obj.shape)}
            rows, columns = np.nonzero(segment)
            assert columns.min() >= box[0] - 0.5
            assert rows.min() >= box[1] - 0.5
            assert columns.max() + 1 <= box[2] + 0.5
            assert rows.max() + 1 <= box[3] + 0.5


def test_the_median_of_a_support_is_its_colour() -> None:
    for index in range(60):
        scene = draw_scene("test", index)
        image, segments = draw(scene, 128)
        for obj, segment in zip(scene.objects, segments, strict=True):
            distances = np.linalg.norm(PALETTE_LAB - np.median(lab(image[segment]), axis=0), axis=1)
            assert COLOURS[int(distances.argmin())] == obj.colour
            assert distances.min() < 12  # where thin parts leave few pixels without a share of the second tone


def test_outside_the_objects_there_is_only_background() -> None:
    for index in range(10):
        scene = draw_scene("test", index)
        image, _ = draw(scene, 64)
        clear = np.ones((64, 64), bool)
        for obj in scene.objects:
            x0, y0, x1, y1 = (64 * value for value in obj.box)
            clear[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
        background = draw_background(scene.background, 64)
        assert np.abs(image[clear] - background[clear]).max() <= 0.51
        assert image[clear].std(0).max() > 2  # a texture, not a flat colour


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [13.44, 19.84, 158.72])
def test_coverage_adds_up_to_the_area(shape: str, side: float) -> None:
    """Antialiasing is exact: wherever the cell lies between the pixels, the covered area is the polygon's."""
    sign = [1, -1] if shape == "ring" else [1]
    area = sum(s * polygon_area(p) for s, p in zip(sign, outlines()[shape], strict=True))
    for x, y in ((0.0, 0.0), (0.37, 0.81)):
        whole, second = object_coverage(shape, "dotted", x, y, side, 0, 0, int(side) + 2, int(side) + 2)
        assert whole.sum() / side**2 == pytest.approx(area, abs=2e-4)
        assert whole.max() <= 1 + 1e-9
        assert whole.min() >= -1e-9
        assert (second <= whole + 1e-9).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_second_tones_are_the_lesser_part(shape: str) -> None:
    for fill in FILLS:
        whole, second = object_coverage(shape, fill, 0, 0, 100, 0, 0, 100, 100)
        share = second.sum() / whole.sum()
        assert share == 0 if fill == "solid" else 0.2 < share < 0.42


@pytest.mark.parametrize("side", [13.44, 19.84, 80.0])
def test_shapes_fill_their_cell_and_differ(side: float) -> None:
    covers = all_coverages(0.3, 0.3, side, 0, 0, int(side) + 2, int(side) + 2) >= 0.5
    for (name, first), (other, second) in itertools.combinations(zip(SHAPES, covers, strict=True), 2):
        assert (first & second).sum() / (first | second).sum() < 0.82, (name, other)
    for name, polygons in outlines().items():
        points = np.concatenate(polygons)
        assert np.ptp(points, 0).max() == pytest.approx(1), name
        assert points.min() >= -1e-9
        assert points.max() <= 1 + 1e-9


def test_lab_is_that_of_scikit_image() -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    np.testing.assert_allclose(lab(values), rgb2lab(values), atol=0.02)
    np.testing.assert_allclose(lab(values.astype(float)), lab(values), atol=1e-9)
    np.testing.assert_allclose(lab(rgb(60, 9, 1.0)), [60, 9 * np.cos(1), 9 * np.sin(1)], atol=0.01)


def test_colours_are_clear_of_each_other_and_of_the_backgrounds() -> None:
    distances = np.linalg.norm(PALETTE_LAB[:, None] - PALETTE_LAB, axis=-1) + 1e9 * np.eye(8)
    assert distances.min() > 38
    second = lab([PALETTE[name].second for name in COLOURS])
    np.testing.assert_array_equal(
        np.linalg.norm(second[:, None] - PALETTE_LAB, axis=-1).argmin(1), np.arange(len(COLOURS))
    )
    grounds = np.concatenate(
        [lab(draw_background(draw_scene("val", i).background, 32)).reshape(-1, 3) for i in range(150)]
    )
    to_main = np.linalg.norm(grounds[:, None] - PALETTE_LAB, axis=-1).min(0)
    to_second = np.linalg.norm(grounds[:, None] - second, axis=-1).min(0)
    assert to_main.min() > 28
    assert (to_second > np.linalg.norm(second - PALETTE_LAB, axis=-1)).all()


def test_what_the_dataset_says_of_itself() -> None:
    assert [len(Shapes(split)) for split in ("train", "val", "test")] == [20_000, 256, 512]
    dataset = Shapes("test", count=30)
    assert dataset.provides == KEYS
    assert dataset.classes == ("background", *SHAPES)
    assert (dataset.name, dataset.object_rule) == ("shapes", "grown")
    assert "CC0" in dataset.licence
    assert list(dataset.ids[28:]) == ["shapes/test/000028", "shapes/test/000029"]
    assert dataset.ids[-1] == "shapes/test/000029"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"split": "tset"}, "did you mean 'test'"),
        ({"size": 16}, "32 to 512"),
        ({"size": 513}, "32 to 512"),
        ({"count": 0}, "at least 1"),
        ({"root": "somewhere"}, "somewhere"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Shapes(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(DataError, match="no scene"):
        Shapes("test", count=4).sample(index)
