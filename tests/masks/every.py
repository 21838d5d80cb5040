"""Every kind of mask on one dataset that has all they need. Imports no torch: processes that draw start quickly.

python tests/masks/every.py RANK: draws the share of one of two processes, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.data.base import ObjectRule, Sample
from zoo.masks import Canvas, draw_mask, draw_mixture, examples, parse_mixture
from zoo.masks.manifest import bits_sha

CLASSES = ("background", "thing", "traffic light")
NAMES = examples(CLASSES)
SIZE = 64
COUNT = 8
BOXES = np.array([[10, 12, 24, 26], [40, 34, 60, 54]], np.float32)


class Pictures:
    """`COUNT` pictures with two objects, a class map and a mask of their own each."""

    name: ClassVar[str] = "every"
    object_rule: ClassVar[ObjectRule] = "grown"
    licence: ClassVar[str] = "CC0"
    provides: ClassVar[frozenset[str]] = frozenset({"image", "mask", "segmentation"})
    classes: ClassVar[tuple[str, ...]] = CLASSES

    def __init__(self, size: int = SIZE) -> None:
        self.size = size

    @property
    def ids(self) -> Sequence[str]:
        return [f"every/test/{index}" for index in range(COUNT)]

    def __len__(self) -> int:
        return COUNT

    def sample(self, index: int) -> Sample:
        size = self.size
        boxes = BOXES * (size / 64)
        segments = np.zeros((2, size, size), np.bool_)
        for segment, (x0, y0, x1, y1) in zip(segments, boxes.astype(int), strict=True):
            segment[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
        return Sample(
            id=self.ids[index],
            image=np.full((size, size, 3), index, np.uint8),
            boxes=boxes,
            segments=segments,
            segmentation=(segments[0] + 2 * segments[1]).astype(np.uint8),
            mask=np.eye(size, dtype=np.uint8),
        )


def canvas(index: int, size: int = SIZE) -> Canvas:
    """The canvas of one of the pictures."""
    sample = Pictures(size).sample(index)
    geometry = {name: getattr(sample, name) for name in ("boxes", "segments", "segmentation", "mask")}
    return Canvas(Pictures.name, sample.id, size, size, **geometry, classes=CLASSES, object_rule=Pictures.object_rule)


def plain(index: int | str, height: int = 256, width: int | None = None) -> Canvas:
    """A canvas without annotations."""
    return Canvas("fake", f"fake/test/{index}", height, height if width is None else width)


def shas(kind: str, order: Sequence[int] = tuple(range(COUNT)), seed: int = 0) -> dict[str, str]:
    """Hashes of the masks of the pictures, by id."""
    return {f"every/test/{index}": bits_sha(draw_mask(kind, canvas(index), seed)) for index in order}


def fingerprint(kind: str) -> str:
    """One hash for all of them."""
    return hashlib.sha256("".join(shas(kind).values()).encode()).hexdigest()[:16]


def mixture_fingerprint(name: str) -> str:
    """One hash for the masks that a mixture with a name gives the pictures, under four seeds."""
    mixture = parse_mixture(f"mixture:{name}")
    drawn = (bits_sha(draw_mixture(mixture, canvas(index), seed)) for seed in range(4) for index in range(COUNT))
    return hashlib.sha256("".join(drawn).encode()).hexdigest()[:16]


def holes(kind: str, count: int, size: int = 256) -> NDArray[np.float64]:
    """The hole ratios of so many images."""
    return np.array([draw_mask(kind, plain(index, size)).mean() for index in range(count)])


def nvidia_folder(root: Path, size: int = 128) -> Path:
    """Masks as NVIDIA's testing set has them: white holes, six buckets, with and without holes near the border."""
    folder = root / "mask" / "testing_mask_dataset"
    folder.mkdir(parents=True)
    inner = size * 3 // 4
    for number in range(36):
        high = 10 * (number % 6 + 1)
        low = max(1, high - 10) + 2
        if number % 2:  # near the border
            mask = draw_mask(f"irregular:{low}-{high - 2}", Canvas("made", str(number), size, size))
            mask[0, 0] = 1
        else:
            mask = np.zeros((size, size), np.uint8)
            share = (size / inner) ** 2
            one = Canvas("made", str(number), inner, inner)
            top = (size - inner) // 2
            drawn = draw_mask(f"irregular:{low * share}-{min(100.0, (high - 2) * share)}", one)
            mask[top : top + inner, top : top + inner] = drawn
        cv2.imwrite(str(folder / f"{number:05d}.png"), mask * 255)
    return root


if __name__ == "__main__":
    rank = int(sys.argv[1])
    share = list(range(COUNT))[rank::2]
    print(json.dumps({kind: shas(kind, share[::-1] if rank else share) for kind in NAMES}))
