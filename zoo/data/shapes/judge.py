"""Caption fidelity on `shapes`, without a learned judge: the scene is known, so what belongs in the hole is known too.

Where a hole takes away one whole object and touches no other, two questions are asked of the composite:

- Colour: of the eight palette colours the nearest, in Lab, to the median over the object's true support eroded by a
  pixel; `none` where the background at that place is nearer.
- Shape: of the eight outlines the one with the best intersection over union with the painted foreground, searched over
  small shifts and scales about the object's cell; `none` below an IoU of 0.5. Foreground are the pixels of the hole
  nearer, in Lab, to the painted colour than to the background; where the painted colour is hardly other than the
  background (less than `VISIBLE`), nothing was painted.

Where the caption that the method was given is another than the scene's own, the same colour and shape are held against
that caption too (`given_fidelity`).

The background is the scene's own: each pixel redrawn, and every mixture of its two tones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from zoo.data.shapes.colour import COLOURS, PALETTE_LAB, lab
from zoo.data.shapes.draw import supports
from zoo.data.shapes.geometry import SHAPES, all_coverages
from zoo.data.shapes.scene import Scene, SceneObject
from zoo.data.shapes.texture import draw_background, tone_colours

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NONE = "none"
MINIMUM_IOU = 0.5
VISIBLE = 12.0  # Lab distance; grain and light change the backgrounds by about 5, the nearest palette colour is 30 away
SCALES = (0.88, 1.0, 1.12)
_SHIFTS = (-2, -1, 0, 1, 2)  # in 64ths of the image's side


@dataclass(frozen=True)
class Verdict:
    """What was painted where an object was removed.

    Attributes:
        removed: Position in `scene.objects` of the object that the hole took.
        truth: That object.
        colour: Name of the painted colour, or `none`.
        shape: Name of the painted shape, or `none`.
        ious: Best intersection over union with each of the eight shapes, 0 where nothing was painted.
        colour_distance: From the painted colour to the true one, Lab units.
        objects: How many objects the scene has.
    """

    removed: int
    truth: SceneObject
    colour: str
    shape: str
    colour_distance: float
    objects: int
    ious: Mapping[str, float] = field(default_factory=dict)

    @property
    def colour_fidelity(self) -> int:
        """1 where the painted colour is the true one."""
        return int(self.colour == self.truth.colour)

    @property
    def shape_fidelity(self) -> int:
        """1 where the painted shape is the true one."""
        return int(self.shape == self.truth.shape)


def removed_object(segments: Bools, mask: NDArray[np.uint8]) -> int | None:
    """The only object that lies wholly in the hole, where the hole touches no other; None otherwise.

    Args:
        segments: Supports of the objects, N x H x W.
        mask: H x W, 1 = hole.
    """
    hole = mask.astype(np.bool_)
    touched = np.any(segments & hole, axis=(1, 2))
    whole = ~np.any(segments & ~hole, axis=(1, 2))
    index = int(np.argmax(touched))
    return index if touched.sum() == 1 and whole[index] else None


def judge_scene(scene: Scene, composite: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Verdict | None:
    """Judges what a method painted.

    Args:
        scene: The scene of the image.
        composite: H x W x 3 uint8 sRGB, H = W: the method's prediction in the hole, the truth elsewhere.
        mask: H x W uint8 in {0, 1}, 1 = hole.

    Returns:
        The verdict; None where the hole does not take exactly one whole object.
    """
    size = composite.shape[0]
    segments = supports(scene, size)
    removed = removed_object(segments, mask)
    if removed is None:
        return None
    rows, columns = (slice(int(np.min(i)), int(np.max(i)) + 1) for i in np.nonzero(mask))
    pixels, hole = lab(composite[rows, columns]), mask[rows, columns].astype(np.bool_)
    ground = lab(draw_background(scene.background, size)[rows, columns])
    tones = lab(tone_colours(scene.background))
    inner = _eroded(segments[removed])[rows, columns]

    painted = np.median(pixels[inner], axis=0)
    near_ground = _from_ground(painted, np.median(ground[inner], axis=0), tones)
    distances = np.linalg.norm(PALETTE_LAB - painted, axis=1)
    nearest = int(np.argmin(distances))
    truth = scene.objects[removed]
    scores = np.zeros(len(SHAPES))
    if near_ground >= VISIBLE:
        foreground = np.linalg.norm(pixels - painted, axis=-1) < _from_ground(pixels, ground, tones)
        scores = _best_ious(foreground & hole, truth, size, rows.start, columns.start)
    best = int(np.argmax(scores))
    return Verdict(
        removed=removed,
        truth=truth,
        colour=COLOURS[nearest] if distances[nearest] <= near_ground else NONE,
        shape=SHAPES[best] if scores[best] >= MINIMUM_IOU else NONE,
        colour_distance=float(distances[COLOURS.index(truth.colour)]),
        objects=len(scene.objects),
        ious={name: float(score) for name, score in zip(SHAPES, scores, strict=True)},
    )


def given_fidelity(scene: Scene, verdict: Verdict, caption: str) -> dict[str, float]:
    """Whether what was painted is what a caption asks for, whatever the scene had there.

    A colour or shape that an object beside the hole has cannot be held against the caption: naming it may mean that
    object.

    Args:
        scene: The scene of the image.
        verdict: Of `judge_scene`.
        caption: The text the method was given.

    Returns:
        `colour_given` and `shape_given`: 1 where the painted one is named in the caption and is on no visible object,
        else 0; NaN where the caption names none such.
    """
    words = set(re.findall(r"[a-z]+", caption.lower()))
    visible = [obj for place, obj in enumerate(scene.objects) if place != verdict.removed]
    colours = words & set(COLOURS) - {obj.colour for obj in visible}
    shapes = words & set(SHAPES) - {obj.shape for obj in visible}
    return {
        "colour_given": float(verdict.colour in colours) if colours else math.nan,
        "shape_given": float(verdict.shape in shapes) if shapes else math.nan,
    }


def _eroded(support: Bools) -> Bools:
    """A support without its outermost pixels (4-neighbours); as it is where nothing would be left."""
    inner = support.copy()
    inner[1:] &= support[:-1]
    inner[:-1] &= support[1:]
    inner[:, 1:] &= support[:, :-1]
    inner[:, :-1] &= support[:, 1:]
    return inner if inner.any() else support


def _from_ground(pixels: Floats, ground: Floats, tones: Floats) -> Floats:
    """Lab distance to the background: to that of the place, or to the nearest mixture of its two tones."""
    step = tones[1] - tones[0]
    share = np.clip((pixels - tones[0]) @ step / (step @ step), 0, 1)
    mixture = tones[0] + share[..., None] * step
    nearest = np.minimum(((pixels - ground) ** 2).sum(-1), ((pixels - mixture) ** 2).sum(-1))
    return np.asarray(np.sqrt(nearest), np.float64)


def _best_ious(foreground: Bools, truth: SceneObject, size: int, top: int, left: int) -> Floats:
    """The best IoU of each shape with a foreground, over shifts and scales of the true object's cell.

    Args:
        foreground: Pixels of the hole's bounding box, h x w.
        truth: The object whose cell the shapes are drawn in.
        size: Side of the image in pixels.
        top: First row of the bounding box in the image.
        left: First column of it.
    """
    steps = sorted({round(step * size / 64) for step in _SHIFTS})
    reach = steps[-1]
    side = truth.side * size
    room = math.ceil((SCALES[-1] - 1) / 2 * side) + 1
    x, y = truth.x * size - left, truth.y * size - top
    first_x, first_y = math.floor(x) - room, math.floor(y) - room
    width = height = math.ceil(side) + 2 * room + 1
    drawn = np.concatenate([
        all_coverages(x - (s - 1) / 2 * side, y - (s - 1) / 2 * side, s * side, first_x, first_y, width, height) >= 0.5
        for s in SCALES
    ])  # fmt: skip
    templates = drawn.reshape(len(SCALES) * len(SHAPES), -1).astype(np.float32)
    around = _crop(foreground, first_y - reach, first_x - reach, height + 2 * reach, width + 2 * reach)
    offsets = np.array(steps) + reach
    windows = sliding_window_view(around, (height, width))[np.ix_(offsets, offsets)]
    common = windows.reshape(len(steps) ** 2, -1).astype(np.float32) @ templates.T
    union = foreground.sum() + templates.sum(1) - common
    best: Floats = (common / union).max(0).reshape(len(SCALES), len(SHAPES)).max(0).astype(np.float64)
    return best


def _crop(image: Bools, top: int, left: int, height: int, width: int) -> Bools:
    """A window of an image, False where it reaches beyond."""
    out = np.zeros((height, width), np.bool_)
    rows = slice(max(top, 0), min(top + height, image.shape[0]))
    columns = slice(max(left, 0), min(left + width, image.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        inside = image[rows, columns]
        y, x = rows.start - top, columns.start - left
        out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return out
