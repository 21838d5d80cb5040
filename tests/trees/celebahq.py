"""A tiny CelebAMask-HQ: faces of ellipses, with part masks of half their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import picture

# Where each part lies: centre and half axes, as shares of the side; x first.
ELLIPSES = {
    "skin": (0.5, 0.55, 0.3, 0.35),
    "l_eye": (0.38, 0.48, 0.06, 0.05),
    "r_eye": (0.62, 0.48, 0.06, 0.05),
    "nose": (0.5, 0.6, 0.06, 0.1),
    "mouth": (0.5, 0.78, 0.12, 0.05),
    "hair": (0.5, 0.2, 0.35, 0.16),
}


def celebahq_tree(root: Path, count: int = 12, first: int = 0) -> Path:
    """Writes `count` faces of each of the splits train, val and test, in turn, and the two lists.

    Sides are 62, 64 or 66 pixels, those of the part masks 31, 32 or 33. The first has the number `first`.
    """
    mapping, partition = ["idx\torig_idx\torig_file"], []
    for number in range(first, first + 3 * count):
        side = 31 + number % 3
        write_face(root, number, side, {part: ellipse(side, *shape) for part, shape in ELLIPSES.items()})
        original = f"{first + 1000 - number % 1000:06d}.jpg"
        mapping.append(f"{number}\t{first + 999 - number % 1000}\t{original}")
        partition.append(f"{original} {number % 3}")
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n", encoding="utf-8")
    partition += ["202599.jpg 2"]  # CelebA has more images than CelebA-HQ
    (root / "list_eval_partition.txt").write_text("\n".join(sorted(partition)) + "\n", encoding="utf-8")
    return root


def write_face(root: Path, number: int, side: int, parts: dict[str, NDArray[np.bool_]]) -> None:
    """Writes an image of 2 x `side` pixels and its part masks, which are `side` x `side`, as RGB as the real ones."""
    images, masks = root / "CelebA-HQ-img", root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(2 * side, 2 * side, number)).save(images / f"{number}.jpg", quality=95)
    for part, region in parts.items():
        levels = np.repeat(region.astype(np.uint8)[:, :, None] * 255, 3, axis=2)
        Image.fromarray(levels).save(masks / f"{number:05d}_{part}.png")


def ellipse(side: int, x: float, y: float, across: float, down: float) -> NDArray[np.bool_]:
    """An ellipse on a square of `side` pixels; centre and half axes as shares of the side."""
    rows, columns = (np.mgrid[0:side, 0:side] + 0.5) / side
    inside: NDArray[np.bool_] = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
    return inside
