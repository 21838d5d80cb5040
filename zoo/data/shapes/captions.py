"""Captions: six paraphrases of every scene in plain English, each naming every object with its colour, size and shape.

Lower-case words without punctuation, so that splitting at blanks gives the words. The order in which objects are named
is keyed, per caption. Colours and shapes go by one word each and that word is said in no other sense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zoo.data.shapes.scene import VERSION, Scene, SceneObject
from zoo.keyed import numpy_generator

CAPTIONS_PER_SCENE = 6

_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_BACKGROUNDS = {
    "stripes": ("on stripes", "on a striped background", "over a pattern of stripes"),
    "checks": ("on checks", "on a checked background", "over a pattern of checks"),
    "bricks": ("on bricks", "on a brick wall", "in front of a wall of bricks"),
    "noise": ("on clouds", "on a cloudy background", "over a blurry background"),
    "gradient": ("on a gradient", "on a smooth background", "over a soft gradient"),
}
_OPENERS = ("a picture of", "an image of", "a drawing of", "a scene with", "this image shows", "you can see")
_MIDDLE = (0.4, 0.6)  # a centre between these, as a fraction of the image's side, is in the middle


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _noun(obj: SceneObject, rng: np.random.Generator) -> str:
    """'a large red striped star', 'a big red star with stripes', or, two times in five, without its fill."""
    size = _choice(_SIZES[obj.size], rng)
    say_fill = rng.random() < 0.6
    behind = rng.random() < 0.4
    if obj.fill == "solid":
        return f"a {size} solid {obj.colour} {obj.shape}" if say_fill else f"a {size} {obj.colour} {obj.shape}"
    if not say_fill:
        return f"a {size} {obj.colour} {obj.shape}"
    if behind:
        return f"a {size} {obj.colour} {obj.shape} with {'stripes' if obj.fill == 'striped' else 'dots'}"
    return f"a {size} {obj.colour} {obj.fill} {obj.shape}"


def _nouns(scene: Scene, rng: np.random.Generator) -> tuple[list[SceneObject], list[str]]:
    """The objects in a keyed order, and a phrase for each."""
    objects = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    return objects, [_noun(obj, rng) for obj in objects]


def _place(obj: SceneObject) -> str:
    column, row = ((value > _MIDDLE[0]) + (value > _MIDDLE[1]) for value in obj.centre)
    if column == 1 and row == 1:
        return "in the middle"
    if row == 1:
        return "on the left" if column == 0 else "on the right"
    if column == 1:
        return "at the top" if row == 0 else "at the bottom"
    return f"in the {'upper' if row == 0 else 'lower'} {'left' if column == 0 else 'right'}"


def _relation(first: SceneObject, second: SceneObject) -> str:
    """Where the first is, seen from the second, in the direction in which they are further apart."""
    right, below = (a - b for a, b in zip(first.centre, second.centre, strict=True))
    if abs(right) >= abs(below):
        return "to the right of" if right > 0 else "to the left of"
    return "below" if below > 0 else "above"


def _listed(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    return f"{' and '.join(_nouns(scene, rng)[1])} {ground}"


def _opened(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    return f"{_choice(_OPENERS, rng)} {' and '.join(_nouns(scene, rng)[1])}"


def _existing(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    listed = " and ".join(_nouns(scene, rng)[1])
    return f"{ground} there is {listed}" if rng.random() < 0.5 else f"there is {listed} {ground}"


def _placed(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    objects, nouns = _nouns(scene, rng)
    return " and ".join(f"{noun} {_place(obj)}" for obj, noun in zip(objects, nouns, strict=True))


def _placed_first(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    objects, nouns = _nouns(scene, rng)
    return " and ".join(f"{_place(obj)} {noun}" for obj, noun in zip(objects, nouns, strict=True)) + f" {ground}"


def _related(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    objects, nouns = _nouns(scene, rng)
    if len(objects) == 1:
        return f"{nouns[0]} lies {_place(objects[0])} {ground}"
    sentence = f"{nouns[0]} is {_relation(objects[0], objects[1])} {nouns[1]}"
    return f"{sentence} and {nouns[2]} is {_place(objects[2])}" if len(objects) == 3 else f"{sentence} {ground}"


def _counted(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    nouns = _nouns(scene, rng)[1]
    if len(nouns) == 1:
        return f"only one object {ground} and it is {nouns[0]}"
    if len(nouns) == 2:
        return f"two objects {ground} one is {nouns[0]} and the other is {nouns[1]}"
    return f"three objects {ground} the first is {nouns[0]} the second is {nouns[1]} and the third is {nouns[2]}"


def _joined(scene: Scene, ground: str, rng: np.random.Generator) -> str:
    nouns = _nouns(scene, rng)[1]
    if len(nouns) == 1:
        return f"{ground} you can see {nouns[0]}"
    join = _choice(("together with", "next to", "along with", "beside"), rng)
    return f"{f' {join} '.join(nouns[:2])}{''.join(f' and {noun}' for noun in nouns[2:])} {ground}"


_STYLES: tuple[Callable[[Scene, str, np.random.Generator], str], ...] = (
    _listed, _opened, _existing, _placed, _placed_first, _related, _counted, _joined,
)  # fmt: skip


def captions(scene: Scene) -> tuple[str, ...]:
    """Six captions of a scene, no two alike, the same for every image size and in every process."""
    rng = numpy_generator("shapes", VERSION, scene.split, scene.index, "captions")
    texts: list[str] = []
    for style in rng.permutation(len(_STYLES)):
        text = _STYLES[style](scene, _choice(_BACKGROUNDS[scene.background.kind], rng), rng)
        if text not in texts:
            texts.append(text)
    return tuple(texts[:CAPTIONS_PER_SCENE])
