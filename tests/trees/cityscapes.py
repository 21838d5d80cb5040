"""A tiny Cityscapes: streets of two cities, with label ids and instance ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import picture

CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt", "munster"), "test": ("berlin", "bonn")}


def cityscapes_tree(root: Path, count: int = 12) -> Path:
    """Writes `count` images of each of train, val and test, with their annotations, dummies for test."""
    for part, cities in CITIES.items():
        for number in range(count):
            height, width = 40 + number % 3, 80 + number % 4
            labels, instances = street(height, width)
            if part == "test":
                labels = np.full((height, width), 3, np.uint8)
                labels[-3:] = 1
                instances = labels.astype(np.uint16)
            write_frame(root, part, cities[number % 2], number, labels, instances)
    return root


def street(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Label ids and instance ids of a street: sky, building, road, two cars, and persons not told apart."""
    labels = np.full((height, width), 23, np.uint8)
    labels[height // 4 : height // 2, : width // 2] = 11
    labels[height // 2 :] = 7
    labels[-2:] = 1  # the car that films
    labels[height // 2 : height // 2 + 6, 4:10] = 24
    instances = labels.astype(np.uint16)
    for number, left in enumerate((width // 2 - 12, width // 2 + 4)):
        labels[height // 2 : height - 6, left : left + 10] = 26
        instances[height // 2 : height - 6, left : left + 10] = 26_000 + number
    return labels, instances


def write_frame(
    root: Path, part: str, city: str, number: int, labels: NDArray[np.uint8], instances: NDArray[np.uint16]
) -> str:
    """Writes one image with its two annotations; returns its name without endings."""
    stem = f"{city}_{number:06d}_000019"
    image = picture(*labels.shape, number)
    for kind, ending, levels in (
        ("leftImg8bit", "leftImg8bit", image),
        ("gtFine", "gtFine_labelIds", labels),
        ("gtFine", "gtFine_instanceIds", instances),
    ):
        path = root / kind / part / city / f"{stem}_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(path)
    return stem
