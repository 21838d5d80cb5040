"""The judge of caption fidelity: its calibration, what it sees in wrong and in poor pictures, and when it is silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.data.shapes import Scene, SceneObject, Shapes, draw_scene, judge_scene
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.draw import draw
from zoo.data.shapes.geometry import SHAPES
from zoo.data.shapes.scene import GROWTH
from zoo.data.shapes.texture import draw_background
from zoo.errors import DataError
from zoo.keyed import numpy_generator

Image = NDArray[np.uint8]
CHANCE = 1 / 8
SCENES = 128


def object_mask(scene: Scene, size: int) -> tuple[int, Image]:
    """A keyed object's box grown by 10 to 25 % of its side on each side, and which object it is."""
    rng = numpy_generator("test", scene.id)
    chosen = int(rng.integers(len(scene.objects)))
    x0, y0, x1, y1 = (size * value for value in scene.objects[chosen].box)
    margins = rng.uniform(0.10, GROWTH, 4) * (x1 - x0)
    mask = np.zeros((size, size), np.uint8)
    rows = slice(round(y0 - margins[0]), round(y1 + margins[1]))
    mask[rows, round(x0 - margins[2]) : round(x1 + margins[3])] = 1
    return chosen, mask


def paste(truth: Image, painted: Image, mask: Image) -> Image:
    return np.where(mask[..., None] == 1, painted, truth).astype(np.uint8)


def repainted(scene: Scene, chosen: int, size: int, **changes: str) -> Image:
    """The picture with one object replaced by another."""
    objects = list(scene.objects)
    objects[chosen] = replace(objects[chosen], **changes)  # type: ignore[arg-type]
    return draw(replace(scene, objects=tuple(objects)), size)[0]


def fidelity(
    paint: Callable[[Scene, Image, Image, int], Image], size: int = 64, count: int = SCENES
) -> tuple[float, float]:
    """Mean colour and shape fidelity over test scenes of what `paint(scene, truth, mask, chosen)` puts in the hole."""
    scores = []
    dataset = Shapes("test", size=size)
    for index in range(count):
        scene, truth = dataset.scene(index), dataset.sample(index).image
        chosen, mask = object_mask(scene, size)
        result = dataset.judge(scene.id, paste(truth, paint(scene, truth, mask, chosen), mask), mask)
        assert result["objects"] == len(scene.objects)
        scores.append((result["colour_fidelity"], result["shape_fidelity"]))
    colour, shape = np.mean(scores, 0)
    return float(colour), float(shape)


def other(names: tuple[str, ...], name: str, scene: Scene) -> str:
    step = 1 + int(numpy_generator("other", scene.id).integers(len(names) - 1))
    return names[(names.index(name) + step) % len(names)]


@pytest.mark.parametrize(("size", "count"), [(64, SCENES), (128, 48), (32, 48)])
def test_the_truth_is_faithful(size: int, count: int) -> None:
    colour, shape = fidelity(lambda scene, truth, mask, chosen: truth, size, count)
    assert colour >= 0.99
    assert shape >= 0.99


def test_mean_and_telea_stay_at_chance() -> None:
    def mean(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        return np.full_like(truth, truth[mask == 0].mean(0).round())

    def telea(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        return np.asarray(cv2.inpaint(truth, mask, 3, cv2.INPAINT_TELEA), np.uint8)

    for paint in (mean, telea):
        colour, shape = fidelity(paint)
        assert colour <= CHANCE + 0.05
        assert shape <= CHANCE + 0.05


def test_the_background_redrawn_is_no_object() -> None:
    for index in range(SCENES):
        scene = draw_scene("test", index)
        truth = draw(scene, 64)[0]
        _, mask = object_mask(scene, 64)
        verdict = judge_scene(scene, paste(truth, draw_background(scene.background, 64).astype(np.uint8), mask), mask)
        assert verdict is not None
        assert (verdict.colour, verdict.shape) == ("none", "none")


def test_guesses_stay_at_chance() -> None:
    def guess(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        rng = numpy_generator("guess", scene.id)
        return repainted(scene, chosen, 64, colour=COLOURS[rng.integers(8)], shape=SHAPES[rng.integers(8)])

    colour, shape = fidelity(guess, count=400)
    assert 0.06 < colour <= CHANCE + 0.05
    assert 0.06 < shape <= CHANCE + 0.05


def test_another_colour_is_named_and_counts_as_wrong() -> None:
    for index in range(SCENES):
        scene = draw_scene("test", index)
        chosen, mask = object_mask(scene, 64)
        colour = other(COLOURS, scene.objects[chosen].colour, scene)
        composite = paste(draw(scene, 64)[0], repainted(scene, chosen, 64, colour=colour), mask)
        verdict = judge_scene(scene, composite, mask)
        assert verdict is not None
        assert (verdict.removed, verdict.colour, verdict.shape) == (chosen, colour, scene.objects[chosen].shape)
        assert (verdict.colour_fidelity, verdict.shape_fidelity) == (0, 1)
        assert verdict.colour_distance > 25


def test_another_shape_is_never_taken_for_the_true_one() -> None:
    named = 0
    for index in range(SCENES):
        scene = draw_scene("test", index)
        chosen, mask = object_mask(scene, 64)
        shape = other(SHAPES, scene.objects[chosen].shape, scene)
        verdict = judge_scene(scene, paste(draw(scene, 64)[0], repainted(scene, chosen, 64, shape=shape), mask), mask)
        assert verdict is not None
        assert verdict.shape_fidelity == 0
        named += verdict.shape == shape
    assert named > 0.85 * SCENES  # where it leaves most of the true support bare, nothing counts as painted


def test_a_good_but_imperfect_painting_is_faithful() -> None:
    def blurred(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        return np.asarray(cv2.GaussianBlur(truth, (0, 0), 0.8), np.uint8)

    def shifted(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        return np.roll(truth, (1, -1), (0, 1))

    def noisy(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        noise = numpy_generator("noisy", scene.id).normal(0, 12, truth.shape)
        return np.clip(truth + noise, 0, 255).astype(np.uint8)

    def pale(scene: Scene, truth: Image, mask: Image, chosen: int) -> Image:
        return (0.7 * truth + 0.3 * draw_background(scene.background, 64)).astype(np.uint8)

    for paint in (blurred, shifted, noisy, pale):
        colour, shape = fidelity(paint, count=64)
        assert colour >= 0.95
        assert shape >= 0.95


def test_silent_unless_one_whole_object_is_gone() -> None:
    dataset = Shapes("test", count=60)
    scene = next(dataset.scene(i) for i in range(60) if len(dataset.scene(i).objects) == 2)
    image, segments = draw(scene, 64)

    def judged(mask: NDArray[np.bool_]) -> dict[str, float]:
        return dataset.judge(scene.id, image, mask.astype(np.uint8))

    first, second = segments
    assert judged(first) == {"colour_fidelity": 1.0, "shape_fidelity": 1.0, "objects": 2.0}
    assert judged(np.zeros_like(first)) == {}
    assert judged(~(first | second)) == {}
    assert judged(np.ones_like(first)) == {}
    one_pixel = np.zeros_like(first)
    one_pixel[tuple(np.argwhere(second)[0])] = True
    assert judged(first | one_pixel) == {}
    partly = first.copy()
    partly[tuple(np.argwhere(first)[0])] = False
    assert judged(partly) == {}


def test_wrong_input_is_refused() -> None:
    dataset = Shapes("test")
    image, mask = np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8)
    for wrong in ("coco/val2017/000001", "shapes/test/17", "shapes/other/000017"):
        with pytest.raises(DataError, match="not an id of shapes"):
            dataset.judge(wrong, image, mask)
    with pytest.raises(DataError, match="the judge needs"):
        dataset.judge("shapes/test/000017", image[:32], mask)
    with pytest.raises(DataError, match="the judge needs"):
        dataset.judge("shapes/test/000017", image.astype(np.float32), mask)
    with pytest.raises(DataError, match="the judge needs"):
        dataset.judge("shapes/test/000017", image, mask[None])


def test_verdicts_compare_shapes_and_know_the_object() -> None:
    scene = draw_scene("test", 2)
    chosen, mask = object_mask(scene, 64)
    verdict = judge_scene(scene, draw(scene, 64)[0], mask)
    assert verdict is not None
    assert isinstance(verdict.truth, SceneObject)
    assert verdict.truth == scene.objects[chosen]
    assert set(verdict.ious) == set(SHAPES)
    assert max(verdict.ious, key=lambda name: verdict.ious[name]) == verdict.truth.shape
    assert verdict.ious[verdict.truth.shape] > 0.85
