"""A tiny CUB-200-2011 of four kinds of birds, with captions, class lists and outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.fakes import picture

KINDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross", "004.Groove_billed_Ani")


def cub_tree(root: Path, count: int = 12) -> Path:
    """Writes 2 `count` images, every other one a test image of the official split."""
    base, texts = root / "CUB_200_2011", root / "cvpr2016_cub" / "text_c10"
    names, boxes = [], []
    for n in range(2 * count):
        kind = KINDS[n % len(KINDS)]
        name = f"{kind}/{kind[4:]}_{n:04d}_{796111 + n}"
        names.append(name)
        height, width = 47 + 3 * (n % 5), 60 + 5 * (n % 3)
        x, y, w, h = 8.0 + n % 4, 5.0, 30.0, 25.5
        boxes.append(f"{x} {y} {w} {h}")
        _save(base / "images" / f"{name}.jpg", picture(height, width, n))
        votes = np.zeros((height, width), np.uint8)
        votes[8:28, 12:34] = 255
        votes[8:28, 10:12] = 51  # one annotator of five
        _save(root / "segmentations" / f"{name}.png", votes)
        place = texts / f"{name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"this bird has a beak, caption {i} of {n}.\n" for i in range(10)))
    _numbered(base / "images.txt", [f"{name}.jpg" for name in names])
    _numbered(base / "bounding_boxes.txt", boxes)
    _numbered(base / "train_test_split.txt", [str(1 - (n // len(KINDS)) % 2) for n in range(len(names))])
    _numbered(base / "image_class_labels.txt", [str(n % len(KINDS) + 1) for n in range(len(names))])
    _numbered(base / "classes.txt", list(KINDS))
    (texts.parent / "trainvalclasses.txt").write_text("\n".join([KINDS[0], *KINDS[2:]]) + "\n")
    (texts.parent / "testclasses.txt").write_text(f"{KINDS[1]}\n")
    return root


def _numbered(path: Path, values: list[str]) -> None:
    path.write_text("".join(f"{number} {value}\n" for number, value in enumerate(values, 1)))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def unknown_caption(root: Path) -> None:
    """Adds captions of an image that is not listed."""
    (root / "cvpr2016_cub" / "text_c10" / KINDS[0] / "Stranger_0001_1.txt").write_text("this bird is a stranger\n")
