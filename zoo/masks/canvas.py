"""What a mask may depend on: whose image it is, and the geometry of that image's annotations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.keyed import integers, numpy_generator

Mask = NDArray[np.uint8]
REFERENCE = 256  # every pixel constant of the papers is for this side; kinds scale it with the image


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Canvas:
    """The image a mask is drawn for.

    Attributes:
        dataset: The short name of the dataset.
        id: The qualified id of the image.
        height: Pixels.
        width: Pixels.
        boxes: N x 4 float32, x0 y0 x1 y1 in pixels.
        segments: N x H x W bool, one per box, or None.
        mask: H x W in {0, 1}, the user's own mask, or None.
        object_rule: `largest`: `object` takes the largest qualifying box. `grown`: a keyed box with keyed margins.
    """

    dataset: str
    id: str
    height: int
    width: int
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    segments: NDArray[np.bool_] | None = None
    mask: Mask | None = None
    object_rule: Literal["largest", "grown"] = "largest"

    @property
    def scale(self) -> float:
        """The shorter side over 256: what the pixel constants of the papers are multiplied by."""
        return min(self.height, self.width) / REFERENCE

    def empty(self) -> Mask:
        """A mask without a hole, H x W."""
        return np.zeros((self.height, self.width), np.uint8)

    def rng(self, kind: str, seed: int) -> np.random.Generator:
        """The generator of a mask: keyed by dataset, image, kind and seed, and by nothing else."""
        return numpy_generator("mask", self.dataset, self.id, kind, seed)

    def integers(self, count: int, kind: str, seed: int) -> list[int]:
        """Integers in [0, 65536) with the same key; quicker than a generator where few are needed."""
        return integers(count, "mask", self.dataset, self.id, kind, seed)
