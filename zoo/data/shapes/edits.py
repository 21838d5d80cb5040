"""Captions that say something else than the picture: what shows whether a method does what its caption says.

A method that reads its caption paints what an edited caption names; one that does not read it paints as it did before.
Every edit is a function of (seed, scene, removed object) and of how many scenes the run has, never of an order.

One more edit is one more function from `Case` to `EditedCaption`, and its line in `EDITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zoo.data.base import EditedCaption
from zoo.data.shapes.captions import captions
from zoo.data.shapes.colour import COLOURS
from zoo.data.shapes.geometry import FILLS
from zoo.data.shapes.scene import Scene, SceneObject, draw_scene
from zoo.keyed import numpy_generator, permutation

POOL = 4096  # the first scenes of a split may lend their captions, however many the run has
TRIES = 64  # scenes asked for a caption; one in three at worst has one that will do


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
    """The scene's own caption with one word replaced: the removed object gets a colour that no object has.

    A caption names every object, so objects of one colour are told apart by their shapes. Where another object has both
    the colour and the shape, the caption may not say which of the two is meant, and stays as it is.
    """
    words = case.caption.split()
    colour, shape = case.target.colour, case.target.shape
    places = [place for place, word in enumerate(words) if word == colour and _noun(words[place + 1 :]) == shape]
    if len(places) != 1:
        return EditedCaption(case.caption, f"the caption names {len(places)} objects as {colour} {shape}")
    free = [name for name in COLOURS if name not in {obj.colour for obj in case.scene.objects}]
    rng = numpy_generator("caption", case.seed, "recoloured", case.scene.id)
    words[places[0]] = free[int(rng.integers(len(free)))]
    return EditedCaption(" ".join(words))


def _noun(words: list[str]) -> str:
    """The shape that a colour word belongs to, from the words after it: a fill may stand between."""
    rest = words[1:] if words[:1] and words[0] in FILLS else words
    return rest[0] if rest else ""


EDITS: dict[str, Callable[[Case], EditedCaption]] = {"deranged": deranged, "recoloured": recoloured}
"""The edits by the name of their rule (`zoo benchmark --captions`)."""
