"""Edited captions of `shapes`: what they say, what they never say, and what they depend on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from zoo.data.base import EditedCaption
from zoo.data.masked import EvaluationSet, editor_of
from zoo.data.shapes import Scene, Shapes, draw_scene
from zoo.data.shapes.captions import captions
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.edits import EDITS, POOL, Case, deranged, recoloured, refilled, renamed
from zoo.data.shapes.geometry import FILLS, SHAPES
from zoo.errors import DataError, UsageError

SCENES = 200


def case(index: int, caption: int = 0, seed: int = 0, count: int = 512, split: str = "test") -> Case:
    scene = draw_scene(split, index)
    return Case(scene, captions(scene)[caption], index % len(scene.objects), seed, count)


def named(text: str) -> int:
    """How many objects a caption names."""
    return sum(word in SHAPES for word in text.split())


def givers(split: str, count: int) -> dict[str, int]:
    return {captions(draw_scene(split, index))[0]: index for index in range(count)}


def test_a_deranged_caption_is_anothers_and_never_names_the_colour() -> None:
    known = givers("test", 512)
    for index in range(SCENES):
        given = case(index)
        text, reason = deranged(given)
        assert reason == ""
        assert known[text] != index
        assert given.target.colour not in text.split()
        assert named(text) == len(given.scene.objects)


def test_a_derangement_does_not_depend_on_the_length_of_the_run_where_it_need_not() -> None:
    known = givers("test", 512)
    kept = 0
    for index in range(60):
        whole, half = deranged(case(index)).text, deranged(case(index, count=256)).text
        assert known[half] < 256
        if known[whole] < 256:
            assert half == whole
            kept += 1
    assert kept > 15
    long = [deranged(case(index, count=count)).text for count in (5000, 9000) for index in range(20)]
    assert long[:20] == long[20:]


def test_a_very_short_run_borrows_from_further_scenes_of_its_split() -> None:
    known = givers("val", POOL)
    for seed in range(5):
        alone = case(0, count=1, split="val", seed=seed)
        text, reason = deranged(alone)
        assert reason == ""
        assert known[text] > 0
        assert alone.target.colour not in text.split()
        assert named(text) == len(alone.scene.objects)


def test_where_no_caption_will_do_the_row_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given = case(3)
    monkeypatch.setattr("zoo.data.shapes.edits.captions", lambda scene: (f"{given.target.colour} everywhere",))
    text, reason = deranged(given)
    assert text == given.caption
    assert given.target.colour in reason


@pytest.mark.parametrize("caption", range(6))
def test_a_recoloured_caption_differs_in_one_word(caption: int) -> None:
    edited = 0
    for index in range(SCENES):
        given = case(index, caption)
        text, reason = recoloured(given)
        if reason:
            assert text == given.caption
            continue
        before, after = given.caption.split(), text.split()
        (place,) = (i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
        assert before[place] == given.target.colour
        assert after[place] in COLOURS
        assert after[place] not in {obj.colour for obj in given.scene.objects}
        assert given.target.shape in before[place + 1 : place + 3]
        edited += 1
    assert edited > 0.95 * SCENES


@pytest.mark.parametrize("caption", range(6))
def test_a_renamed_caption_differs_in_one_noun(caption: int) -> None:
    edited = 0
    for index in range(SCENES):
        given = case(index, caption)
        text, reason = renamed(given)
        if reason:
            assert text == given.caption
            continue
        before, after = given.caption.split(), text.split()
        (place,) = (i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
        assert before[place] == given.target.shape
        assert after[place] in set(SHAPES) - {obj.shape for obj in given.scene.objects}
        assert given.target.colour in before[place - 2 : place]
        edited += 1
    assert edited > 0.95 * SCENES


@pytest.mark.parametrize(("edit", "values"), [(recoloured, COLOURS), (renamed, SHAPES)])
def test_every_free_word_is_given(edit: Callable[[Case], EditedCaption], values: tuple[str, ...]) -> None:
    words = {word for index in range(100) for word in set(edit(case(index)).text.split()) & set(values)}
    assert words == set(values)


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("a big solid red star on a striped background", {"a big red F star on a striped background"}),
        ("a big red striped star on stripes", {"a big solid red star on stripes", "a big red dotted star on stripes"}),
        (
            "a large red star with dots together with a small blue striped ring over a pattern of stripes",
            {
                "a large solid red star together with a small blue striped ring over a pattern of stripes",
                "a large red star with stripes together with a small blue striped ring over a pattern of stripes",
            },
        ),
        ("a small blue striped ring next to a big red star with stripes", None),
    ],
)
def test_a_refilled_caption_keeps_the_order_of_words(text: str, edited: set[str] | None) -> None:
    scene = two(("red", "star"), ("blue", "ring"))
    found = {refilled(Case(scene, text, 0, seed, 10)).text for seed in range(20)}
    if edited is None:
        edited = {
            text.replace("star with stripes", "star with dots"),
            text.replace("red star with stripes", "solid red star"),
        }
    filled = {one.replace("F", fill) for one in edited for fill in ("striped", "dotted")}
    assert found == filled


def test_a_caption_that_names_no_fill_keeps_it() -> None:
    for text in ("a big red star together with a small blue striped ring", "a big red star on stripes", "a red star"):
        scene = two(("red", "star"), ("blue", "ring"))
        assert refilled(Case(scene, text, 0, 0, 10)) == EditedCaption(text, "the caption does not say its fill")
    edited = [refilled(case(index, caption)) for caption in range(6) for index in range(SCENES)]
    said = [one for one in edited if not one.reason]
    assert 0.5 * len(edited) < len(said) < 0.65 * len(edited)
    known = {word for index in range(400) for text in captions(draw_scene("train", index)) for word in text.split()}
    assert {word for one in said for word in one.text.split()} <= known | set(FILLS)


def two(first: tuple[str, str], second: tuple[str, str]) -> Scene:
    """A scene of two large solid objects, (colour, shape) each."""
    scene = next(s for s in (draw_scene("test", i) for i in range(100)) if len(s.objects) == 2)
    objects = (
        replace(obj, colour=colour, shape=shape, fill="solid", size="large")
        for obj, (colour, shape) in zip(scene.objects, (first, second), strict=True)
    )
    return replace(scene, objects=tuple(objects))


def test_objects_of_one_colour_are_told_apart_by_their_shapes() -> None:
    scene = two(("red", "star"), ("red", "ring"))
    text = "a large solid red star and a big red striped ring on stripes"
    for removed, start, end in ((0, 3, "star"), (1, 8, "ring")):
        words = recoloured(Case(scene, text, removed, 0, 10)).text.split()
        assert words[start] != "red"
        assert words.count("red") == 1
        assert end in words[start + 1 : start + 3]


def test_objects_of_one_colour_and_shape_are_not_told_apart() -> None:
    scene = two(("red", "star"), ("red", "star"))
    text = captions(scene)[0]
    assert recoloured(Case(scene, text, 1, 0, 10)) == EditedCaption(text, "the caption names 2 objects as red star")
    assert recoloured(Case(scene, "nothing here", 1, 0, 10)).reason == "the caption names 0 objects as red star"
    assert recoloured(Case(scene, "all is red", 1, 0, 10)).reason == "the caption names 0 objects as red star"


@pytest.mark.parametrize("edit", list(EDITS))
def test_edits_are_keyed_by_seed_and_id_alone(edit: str) -> None:
    def texts(order: range, seed: int = 0) -> dict[int, str]:
        return {index: EDITS[edit](case(index, seed=seed)).text for index in order}

    forwards = texts(range(30))
    assert texts(range(29, -1, -1)) == forwards
    changed = sum(texts(range(30), seed=1)[index] != forwards[index] for index in range(30))
    assert changed > (2 if edit == "refilled" else 20)  # half of the captions name a fill, and there are two others
    code = (
        "from zoo.data.shapes import draw_scene; from zoo.data.shapes.captions import captions;"
        "from zoo.data.shapes.edits import EDITS, Case; scene = draw_scene('test', 7);"
        f"print(EDITS[{edit!r}](Case(scene, captions(scene)[0], 7 % len(scene.objects), 0, 512)).text)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == forwards[7]


@pytest.mark.parametrize("edit", list(EDITS))
def test_an_evaluation_set_gives_edited_captions_and_the_same_pictures(edit: str) -> None:
    data = Shapes("test", size=32, count=40)
    own, edited = EvaluationSet(data, "object"), EvaluationSet(data, "object", captions=edit)
    for index in range(40):
        before, after = own[index], edited[index]
        assert (before["image"].equal(after["image"]), before["mask"].equal(after["mask"])) == (True, True)
        assert (before["caption"] == after["caption"]) == bool(after["unedited"])
        assert "unedited" not in before


def test_every_object_mask_takes_one_object_and_masks_decide_which() -> None:
    data = Shapes("test", size=32, count=60)
    assert all(EvaluationSet(data, "object", 3, captions="deranged")[index]["unedited"] == "" for index in range(60))
    index = next(i for i in range(60) if len({obj.colour for obj in data.scene(i).objects}) == 2)
    sample, scene = data.sample(index), data.scene(index)
    assert sample.segments is not None
    for removed, segment in enumerate(sample.segments):
        masks = {sample.id: segment.astype(np.uint8)}
        words = EvaluationSet(data, "object", captions="recoloured", masks=masks)[index]["caption"].split()
        assert scene.objects[removed].colour not in words


def test_what_cannot_be_edited_is_refused() -> None:
    data = Shapes("test", size=32, count=4)
    for mask in ("center", "object,freeform", "object:segmentation"):
        with pytest.raises(UsageError, match="captions are edited only under object masks"):
            EvaluationSet(data, mask, captions="deranged")
    with pytest.raises(UsageError, match="did you mean 'recoloured'"):
        editor_of(data, "recolored", "object")
    sample = data.sample(0)
    with pytest.raises(UsageError, match="captions are edited only under object masks"):
        data.edit_caption("deranged", sample, "a", np.zeros((32, 32), np.uint8), 0)
    with pytest.raises(UsageError, match="unknown caption edit"):
        data.edit_caption("own", sample, "a", np.ones((32, 32), np.uint8), 0)
    with pytest.raises(DataError, match="not an id of shapes"):
        data.edit_caption("deranged", replace(sample, id="coco/1"), "a", np.ones((32, 32), np.uint8), 0)


def test_own_captions_need_no_editor() -> None:
    assert editor_of(Shapes("test", count=2), "own", "freeform") is None
