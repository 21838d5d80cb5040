"""What a mask may depend on: whose image it is, and the geometry of that image's annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UsageError
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
        segmentation: H x W class ids, 255 = unknown, or None.
        classes: The names of the classes, index = class id; empty where there are none.
        object_rule: `largest`: `object` takes the largest qualifying box. `grown`: a keyed box with keyed margins.
    """

    dataset: str
    id: str
    height: int
    width: int
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    segments: NDArray[np.bool_] | None = None
    mask: Mask | None = None
    segmentation: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()
    object_rule: Literal["largest", "grown"] = "largest"

    @property
    def scale(self) -> float:
        """The shorter side over 256: what the pixel constants of the papers are multiplied by."""
        return min(self.height, self.width) / REFERENCE

    def empty(self) -> Mask:
        """A mask without a hole, H x W."""
        return np.zeros((self.height, self.width), np.uint8)

    def bucket(self, low: float, high: float) -> tuple[int, int]:
        """The least and the greatest number of hole pixels whose share of the area lies in a bucket.

        Args:
            low: Percent of the area, excluded.
            high: Percent of the area, included.

        Raises:
            UsageError: There is no such number.
        """
        area = self.height * self.width
        least = math.floor(low * area / 100 + 1e-9) + 1
        most = math.floor(high * area / 100 + 1e-9)
        if most < least:
            raise UsageError(
                f"no number of pixels of a {self.height} x {self.width} image lies in ({low:g} %, {high:g} %]",
                remedy="take a wider bucket or a larger image",
            )
        return least, most

    def rng(self, kind: str, seed: int) -> np.random.Generator:
        """The generator of a mask: keyed by dataset, image, kind and seed, and by nothing else."""
        return numpy_generator("mask", self.dataset, self.id, kind, seed)

    def integers(self, count: int, kind: str, seed: int) -> list[int]:
        """Integers in [0, 65536) with the same key; quicker than a generator where few are needed."""
        return integers(count, "mask", self.dataset, self.id, kind, seed)
