"""A tiny OST: OutdoorSeg and OutdoorSceneTest300 with their annotations, OutdoorSceneTrain_v2 without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import picture

CATEGORIES = ("animal", "building", "grass", "mountain", "plant", "sky", "water")


def ost_tree(root: Path, count: int = 12) -> Path:
    """Writes `count` images of each of the three sets."""
    for number in range(count):
        size = (45 + number % 4, 60 + number % 3)
        name = f"ADE_train_{number + 1:08d}"
        _write(root / "OutdoorSeg/images" / f"{name}.jpg", picture(*size, number))
        _write(root / "OutdoorSeg/annotations" / f"{name}.png", landscape(*size))
        name = f"OST_{number + 1:03d}.png"
        _write(root / "OutdoorSceneTest300" / name, picture(*size, count + number))
        _write(root / "OutdoorSceneTest300_anno" / name, landscape(*size))
    for number in range(max(count, len(CATEGORIES))):
        category = CATEGORIES[number % len(CATEGORIES)]
        path = root / "OutdoorSceneTrain_v2" / category / f"{category}_{number + 1:04d}.png"
        _write(path, picture(50, 50 + number % 3, 100 + number))
    return root


def landscape(height: int, width: int) -> NDArray[np.uint8]:
    """A map of classes: sky over mountain over water, an animal, something else, and void in both writings."""
    classes = np.full((height, width), 1, np.uint8)
    classes[height // 3 :] = 4
    classes[height // 2 :] = 2
    classes[height // 2 : height // 2 + 5, 10:20] = 7
    classes[-4:, :5], classes[-4:, 5:10], classes[-4:, 10:15] = 0, 8, 255
    return classes


def _write(path: Path, levels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path)
