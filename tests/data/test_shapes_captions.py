"""Captions of `shapes`: what they say, in which words, and how many."""

from __future__ import annotations

import re
from collections import Counter

from zoo.data.shapes import Scene, Shapes, draw_scene
from zoo.data.shapes.captions import CAPTIONS_PER_SCENE, captions
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.geometry import SHAPES

PHRASE = re.compile(
    rf"a (small|little|large|big)(?: solid)? ({'|'.join(COLOURS)})(?: (striped|dotted))? ({'|'.join(SHAPES)})"
    r"(?: with (stripes|dots))?"
)
SIZES = {"small": "small", "little": "small", "large": "large", "big": "large"}
FILLS = {"stripes": "striped", "dots": "dotted"}


def scenes(count: int) -> list[Scene]:
    return [draw_scene("test", index) for index in range(count)]


def test_every_caption_names_every_object_and_no_other() -> None:
    for scene in scenes(400):
        wanted = Counter((obj.size, obj.colour, obj.shape) for obj in scene.objects)
        for caption in captions(scene):
            found = [match.groups() for match in PHRASE.finditer(caption)]
            assert Counter((SIZES[size], colour, shape) for size, colour, _, shape, _ in found) == wanted, caption
            words = caption.split()
            assert sum(word in COLOURS for word in words) == len(scene.objects), caption
            assert sum(word in SHAPES for word in words) == len(scene.objects), caption


def test_a_fill_that_is_said_is_true_and_often_said() -> None:
    said = total = 0
    for scene in scenes(200):
        patterned = {(o.size, o.colour, o.shape, o.fill) for o in scene.objects}
        for caption in captions(scene):
            for size, colour, before, shape, behind in PHRASE.findall(caption):
                total += 1
                fill = before or FILLS.get(behind, "")
                if fill:
                    said += 1
                    assert (SIZES[size], colour, shape, fill) in patterned, caption
    assert 0.25 < said / total < 0.55  # of all objects, a third of which are solid


def test_six_paraphrases_in_lower_case_words() -> None:
    for scene in scenes(400):
        texts = captions(scene)
        assert len(texts) == len(set(texts)) == CAPTIONS_PER_SCENE >= 5
        for text in texts:
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", text), text
            assert len(text.split()) <= 40, text


def test_the_vocabulary_is_small() -> None:
    words = {word for index in range(1500) for text in captions(draw_scene("train", index)) for word in text.split()}
    assert set(COLOURS) | set(SHAPES) <= words
    assert 60 <= len(words) <= 200


def test_objects_are_named_in_any_order() -> None:
    first = Counter()  # type: Counter[int]
    for scene in scenes(600):
        if len(scene.objects) == 3 and len({o.colour for o in scene.objects}) == 3:
            for text in captions(scene):
                named = next(word for word in text.split() if word in COLOURS)
                first[[o.colour for o in scene.objects].index(named)] += 1
    assert min(first.values()) > 0.25 * first.total()


def test_places_and_relations_are_true() -> None:
    checked = 0
    for scene in scenes(300):
        by_name = {(o.colour, o.shape): o for o in scene.objects}
        if len(by_name) < len(scene.objects):
            continue
        for text in captions(scene):
            named = [by_name[colour, shape].centre for _, colour, _, shape, _ in PHRASE.findall(text)]
            if " to the left of " in text:
                assert named[0][0] < named[1][0], text
            if " is above " in text:
                assert named[0][1] < named[1][1], text
            if len(named) == 1 and "in the lower right" in text:
                assert min(named[0]) > 0.5, text
            checked += any(f" {word} " in f" {text} " for word in ("above", "left", "right"))
    assert checked > 100


def test_the_dataset_hands_them_out() -> None:
    dataset = Shapes("test")
    assert dataset.sample(5).captions == captions(dataset.scene(5))
