"""Captions that say something else than the picture: what shows whether a method does what its caption says.

A method that reads its caption paints what an edited caption names; one that does not read it paints as it did before.
Every edit is a function of (seed, scene, removed object) and of how many scenes the run has, never of an order.

One more edit is one more function from `Case` to `EditedCaption`, and its line in `EDITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from zoo.data.base import EditedCaption
from zoo.data.shapes.captions import captions
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.geometry import FILLS, SHAPES
from zoo.data.shapes.scene import Scene, SceneObject, draw_scene
from zoo.keyed import numpy_generator, permutation

POOL = 4096  # the first scenes of a split may lend their captions, however many the run has
TRIES = 64  # scenes asked for a caption; one in three at worst has one that will do
_BEHIND = {"striped": "stripes", "dotted": "dots"}  # "with stripes", of a noun


@dataclass(frozen=True)
class Case:
    """A caption to edit.

    Attributes:
        scene: The scene it belongs to.
        caption: Its own caption.
        removed: Position in `scene.objects` of the object that the hole took.
        seed: The seed of the plan.
        count: How many scenes the run has, the first ones of the split.
    """

    scene: Scene
    caption: str
    removed: int
    seed: int
    count: int

    @property
    def target(self) -> SceneObject:
        """The object that the hole took."""
        return self.scene.objects[self.removed]


def deranged(case: Case) -> EditedCaption:
    """The first caption of another scene of the split, one that names the removed object's colour nowhere.

    Scenes of the run come first, and among them one with as many objects. Of two runs the shorter one borrows the same
    captions, where it has their scenes. Where no scene of the run will do (a very short run), a further one is drawn.
    """
    order = permutation(POOL, "caption", case.seed, "deranged", case.scene.id)
    others = [index for index in order if index != case.scene.index]
    inside = [index for index in others if index < case.count]
    outside = [index for index in others if index >= case.count]
    text = _lent(case, inside[:TRIES]) or _lent(case, outside[:TRIES])
    if text is None:
        return EditedCaption(case.caption, f"every caption that was tried names {case.target.colour} too")
    return EditedCaption(text)


def _lent(case: Case, indices: Iterable[int]) -> str | None:
    """The caption of the first scene that will do, rather of one with as many objects; None where none will do."""
    second = None
    for index in indices:
        scene = draw_scene(case.scene.split, index)
        text = captions(scene)[0]
        if case.target.colour in text.split():
            continue
        if len(scene.objects) == len(case.scene.objects):
            return text
        second = second or text
    return second


def recoloured(case: Case) -> EditedCaption:
    """The scene's own caption with one word replaced: the removed object gets a colour that no object has."""
    free = [name for name in COLOURS if name not in {obj.colour for obj in case.scene.objects}]

    def change(words: list[str], place: int, rng: np.random.Generator) -> str:
        words[place] = free[int(rng.integers(len(free)))]
        return ""

    return _edited(case, "recoloured", change)


def renamed(case: Case) -> EditedCaption:
    """The scene's own caption with one noun replaced: the removed object gets a shape that no object has."""
    free = [name for name in SHAPES if name not in {obj.shape for obj in case.scene.objects}]

    def change(words: list[str], place: int, rng: np.random.Generator) -> str:
        words[_noun(words, place)] = free[int(rng.integers(len(free)))]
        return ""

    return _edited(case, "renamed", change)


def refilled(case: Case) -> EditedCaption:
    """The scene's own caption with another fill of the removed object, where it names one.

    `solid` stands before the colour, the other two after it or behind the noun (`with dots`): the phrase keeps the
    order that captions have. The judge does not see fills; what this edit shows is how much a method moves.
    """

    def change(words: list[str], place: int, rng: np.random.Generator) -> str:
        noun = _noun(words, place)
        start = place - 1 if words[place - 1] == "solid" else place
        behind = noun + 2 < len(words) and words[noun + 1] == "with" and words[noun + 2] in _BEHIND.values()
        end = noun + 3 if behind else noun + 1
        phrase = set(words[start:end])
        said = next((fill for fill in FILLS if {fill, _BEHIND.get(fill, fill)} & phrase), None)
        if said is None:
            return "the caption does not say its fill"
        others = [fill for fill in FILLS if fill != said]
        fill, colour, shape = others[int(rng.integers(len(others)))], words[place], words[noun]
        if fill == "solid":
            words[start:end] = [fill, colour, shape]
        else:
            words[start:end] = [colour, shape, "with", _BEHIND[fill]] if behind else [colour, fill, shape]
        return ""

    return _edited(case, "refilled", change)


def _edited(case: Case, rule: str, change: Callable[[list[str], int, np.random.Generator], str]) -> EditedCaption:
    """The scene's own caption with the removed object's words changed.

    A caption names every object, so objects of one colour are told apart by their shapes. Where another object has both
    the colour and the shape, the caption may not say which of the two is meant, and stays as it is.

    Args:
        case: The caption.
        rule: The name of the edit, which keys what is drawn.
        change: Is given the caption's words to change, the position of the removed object's colour, and a generator;
            gives the reason why it cannot, or nothing.
    """
    words = case.caption.split()
    colour, shape = case.target.colour, case.target.shape
    named = [place for place, word in enumerate(words) if word == colour and words[_noun(words, place)] == shape]
    if len(named) != 1:
        return EditedCaption(case.caption, f"the caption names {len(named)} objects as {colour} {shape}")
    reason = change(words, named[0], numpy_generator("caption", case.seed, rule, case.scene.id))
    return EditedCaption(case.caption, reason) if reason else EditedCaption(" ".join(words))


def _noun(words: list[str], place: int) -> int:
    """The position of the noun that a colour word belongs to: a fill may stand between. Its own where none follows."""
    noun = place + 1 + (place + 1 < len(words) and words[place + 1] in FILLS)
    return noun if noun < len(words) else place


EDITS: dict[str, Callable[[Case], EditedCaption]] = {
    "deranged": deranged,
    "recoloured": recoloured,
    "renamed": renamed,
    "refilled": refilled,
}
"""The edits by the name of their rule (`zoo benchmark --captions`)."""
