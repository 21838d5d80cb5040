"""A scene to pixels: the image, the support of each object, the segmentation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from zoo.data.shapes.colour import PALETTE
from zoo.data.shapes.geometry import SHAPES, object_coverage
from zoo.data.shapes.scene import Scene, SceneObject
from zoo.data.shapes.texture import draw_background

Floats = NDArray[np.float64]
_TIES_UP = 1e-6  # rounds exact halves up whatever the last bit of a sum is, so that machines agree


def window(obj: SceneObject, size: int) -> tuple[int, int, int, int]:
    """The pixels an object's cell touches: left, top, width, height."""
    x0, y0, x1, y1 = (value * size for value in obj.box)
    left, top = math.floor(x0), math.floor(y0)
    return left, top, math.ceil(x1) - left, math.ceil(y1) - top


def boxes(scene: Scene, size: int) -> NDArray[np.float32]:
    """The cells of the objects, N x 4 float32, x0 y0 x1 y1 in pixels."""
    return np.array([obj.box for obj in scene.objects], np.float32) * np.float32(size)


def _coverage(obj: SceneObject, size: int) -> tuple[tuple[slice, slice], Floats, Floats]:
    left, top, width, height = window(obj, size)
    whole, second = object_coverage(
        obj.shape, obj.fill, obj.x * size, obj.y * size, obj.side * size, left, top, width, height
    )
    return (slice(top, top + height), slice(left, left + width)), whole, second


def draw(scene: Scene, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws a scene.

    Args:
        scene: From `draw_scene`.
        size: Side of the image in pixels.

    Returns:
        The image, size x size x 3 uint8 sRGB, and the support of each object (pixels covered by half or more),
        N x size x size bool.
    """
    canvas = draw_background(scene.background, size)
    segments = np.zeros((len(scene.objects), size, size), np.bool_)
    for segment, obj in zip(segments, scene.objects, strict=True):
        place, whole, second = _coverage(obj, size)
        tones = np.array(PALETTE[obj.colour], np.float64)
        patch = canvas[place]
        patch *= (1 - whole)[..., None]
        patch += (whole - second)[..., None] * tones[0] + second[..., None] * tones[1]
        segment[place] = whole >= 0.5
    return np.clip(canvas + (0.5 + _TIES_UP), 0, 255).astype(np.uint8), segments


def supports(scene: Scene, size: int) -> NDArray[np.bool_]:
    """The second result of `draw` alone: N x size x size bool."""
    segments = np.zeros((len(scene.objects), size, size), np.bool_)
    for segment, obj in zip(segments, scene.objects, strict=True):
        place, whole, _ = _coverage(obj, size)
        segment[place] = whole >= 0.5
    return segments


def segmentation(scene: Scene, segments: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class ids, H x W uint8: 0 background, then 1 + the place in `SHAPES` (never the colour)."""
    classes = np.zeros(segments.shape[1:], np.uint8)
    for segment, obj in zip(segments, scene.objects, strict=True):
        classes[segment] = 1 + SHAPES.index(obj.shape)
    return classes
