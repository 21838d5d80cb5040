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


# --- against the caption that was given ------------------------------------------------------------------------------


def test_what_a_given_caption_asks_for_is_another_question_than_the_truth() -> None:
    dataset = Shapes("test")
    for index in range(60):
        scene, truth = dataset.scene(index), dataset.sample(index).image
        chosen, mask = object_mask(scene, 64)
        free = [name for name in COLOURS if name not in {obj.colour for obj in scene.objects}]
        asked, other_colour = free[0], free[1]
        composite = paste(truth, repainted(scene, chosen, 64, colour=asked), mask)
        caption = f"a large {asked} {scene.objects[chosen].shape}"
        found = dataset.judge(scene.id, composite, mask, caption)
        assert (found["colour_fidelity"], found["colour_given"]) == (0, 1)
        assert dataset.judge(scene.id, composite, mask, f"a {other_colour} ball")["colour_given"] == 0
        assert dataset.judge(scene.id, truth, mask, caption)["colour_given"] == 0
        assert dataset.judge(scene.id, truth, mask, caption)["colour_fidelity"] == 1
        without = dataset.judge(scene.id, composite, mask)
        assert without == {name: found[name] for name in ("colour_fidelity", "shape_fidelity", "objects")}


def test_what_is_to_be_seen_already_cannot_be_held_against_the_caption() -> None:
    dataset = Shapes("test")
    judged = 0
    for index in range(100):
        scene, truth = dataset.scene(index), dataset.sample(index).image
        chosen, mask = object_mask(scene, 64)
        removed, rest = scene.objects[chosen], [obj for obj in scene.objects if obj is not scene.objects[chosen]]
        if not rest or removed.colour in {obj.colour for obj in rest}:
            continue
        caption = " and ".join(f"a {obj.colour} {obj.shape}" for obj in rest)
        silent = dataset.judge(scene.id, truth, mask, caption)
        assert np.isnan(silent["colour_given"])
        assert np.isnan(silent["shape_given"])
        both = f"{caption} and a {removed.colour} thing"
        copied = paste(truth, repainted(scene, chosen, 64, colour=rest[0].colour), mask)
        assert dataset.judge(scene.id, copied, mask, both)["colour_given"] == 0
        assert dataset.judge(scene.id, truth, mask, f"A {removed.colour}, then.")["colour_given"] == 1
        judged += 1
    assert judged > 20


def test_the_background_is_nothing_that_a_caption_asks_for() -> None:
    dataset = Shapes("test")
    scene, truth = dataset.scene(0), dataset.sample(0).image
    _, mask = object_mask(scene, 64)
    empty = paste(truth, draw_background(scene.background, 64).astype(np.uint8), mask)
    found = dataset.judge(scene.id, empty, mask, " ".join([*COLOURS, *SHAPES]))
    assert (found["colour_given"], found["shape_given"]) == (0, 0)
    assert dataset.judge(scene.id, truth, np.zeros_like(mask), "a red star") == {}
