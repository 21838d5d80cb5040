"""The law of a scene: counts, independence, places; and that it knows neither process nor image size."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from zoo.data.shapes import Shapes, draw_scene
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.geometry import FILLS, SHAPES
from zoo.data.shapes.scene import GROWTH, SIDES, SIZES, TEXTURES

GOLDEN = "301e9fc4dfeeb74f"


def fingerprint() -> str:
    """One hash over pictures, annotations and captions of a few scenes at two sizes."""
    digest = hashlib.sha256()
    for split, size in (("train", 64), ("test", 64), ("test", 100)):
        dataset = Shapes(split, size=size)
        for index in (0, 1, 2, 3, 17, 511):
            sample = dataset.sample(index)
            assert sample.segments is not None
            assert sample.segmentation is not None
            for part in (sample.image, sample.segments, sample.segmentation, sample.boxes.round(3)):
                digest.update(part.tobytes())
            digest.update("\n".join((sample.id, *sample.captions)).encode())
    return digest.hexdigest()[:16]


def test_pictures_are_those_of_the_first_release() -> None:
    """Changing a scene makes another dataset: raise VERSION, and make weights and masks anew."""
    assert fingerprint() == GOLDEN


def test_another_process_draws_the_same() -> None:
    code = "import test_shapes_scene as t; print(t.fingerprint())"
    here = __file__.rsplit("/", 1)[0]
    made = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{here!r}, {here + '/../..'!r}]; {code}"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert made.stdout.strip() == fingerprint()


def test_order_and_count_do_not_matter() -> None:
    alone = Shapes("train", count=10).sample(7)
    dataset = Shapes("train", count=1_000_000)
    for index in (999_999, 7, 3):
        dataset.sample(index)
    np.testing.assert_array_equal(dataset.sample(7).image, alone.image)
    assert dataset.sample(7).captions == alone.captions


def test_splits_differ() -> None:
    assert len({draw_scene(split, 3).objects for split in ("train", "val", "test")}) == 3


@pytest.mark.parametrize("size", [32, 128, 333])
def test_the_scene_does_not_depend_on_the_size(size: int) -> None:
    small, large = Shapes("test", size=64), Shapes("test", size=size)
    for index in range(12):
        assert small.scene(index) == large.scene(index)
        one, other = small.sample(index), large.sample(index)
        assert one.captions == other.captions
        np.testing.assert_allclose(one.boxes / 64, other.boxes / size, atol=1e-6)
        assert one.segments is not None
        assert other.segments is not None
        np.testing.assert_allclose(
            one.segments.mean((1, 2)), other.segments.mean((1, 2)), rtol=0.25 if size < 64 else 0.12
        )


def test_a_scene_drawn_twice_as_large_is_the_same_picture() -> None:
    for index in range(12):
        small = Shapes("test", size=64).sample(index).image.astype(float)
        large = Shapes("test", size=128).sample(index).image.astype(float)
        halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(halved - small).mean() < 1.5  # grey levels: antialiasing only


def test_counts_and_attributes_follow_the_law() -> None:
    scenes = [draw_scene("test", index) for index in range(4000)]
    counts = Counter(len(scene.objects) for scene in scenes)
    for count, share in ((1, 0.5), (2, 0.3), (3, 0.2)):
        assert abs(counts[count] / 4000 - share) < 0.03
    objects = [obj for scene in scenes for obj in scene.objects]
    for attribute, names in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("fill", FILLS)):
        seen = Counter(getattr(obj, attribute) for obj in objects)
        assert set(seen) == set(names)
        for name in names:
            assert abs(seen[name] / len(objects) - 1 / len(names)) < 0.02
    assert {scene.background.kind for scene in scenes} == set(TEXTURES)


def test_colours_of_a_scene_tell_nothing_of_each_other() -> None:
    pairs = Counter(
        (a.colour == b.colour, a.shape == b.shape)
        for scene in (draw_scene("test", index) for index in range(4000))
        for a, b in zip(scene.objects, scene.objects[1:], strict=False)
    )
    total = sum(pairs.values())
    assert abs(sum(n for (colour, _), n in pairs.items() if colour) / total - 1 / 8) < 0.025
    assert abs(sum(n for (_, shape), n in pairs.items() if shape) / total - 1 / 8) < 0.025


def test_grown_boxes_stay_inside_and_clear_of_each_other() -> None:
    for index in range(3000):
        boxes = np.array([obj.box for obj in draw_scene("train", index).objects])
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            margin = GROWTH * (x1 - x0)
            assert min(x0, y0) - margin > 0
            assert max(x1, y1) + margin < 1
            for ax, ay, bx, by in np.delete(boxes, i, 0):
                assert ax >= x1 + margin or bx <= x0 - margin or ay >= y1 + margin or by <= y0 - margin


def test_objects_are_everywhere() -> None:
    """Placing by construction leaves no part of the image empty and takes both directions alike."""
    for count in (1, 2, 3):
        scenes = [draw_scene("train", index) for index in range(3000)]
        centres = np.array([o.centre for scene in scenes if len(scene.objects) == count for o in scene.objects])
        heat, _, _ = np.histogram2d(*centres.T, bins=4, range=[[0.18, 0.82]] * 2)
        assert heat.min() > 0.003 * heat.sum()
        np.testing.assert_allclose(centres.mean(0), 0.5, atol=0.03)


def test_the_box_does_not_tell_the_shape() -> None:
    sides: dict[str, set[tuple[str, float]]] = {shape: set() for shape in SHAPES}
    for index in range(600):
        for obj in draw_scene("test", index).objects:
            x0, y0, x1, y1 = obj.box
            assert x1 - x0 == pytest.approx(y1 - y0)
            sides[obj.shape].add((obj.size, round(x1 - x0, 9)))
    assert all(found == set(SIDES.items()) for found in sides.values())
