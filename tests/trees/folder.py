"""A tiny folder of one's own: pictures, masks and captions of each split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fakes import picture


def folder_tree(root: Path, count: int = 12) -> Path:
    """Writes `count` pictures of train, val and test, of sizes from 40 x 52 upwards, some of them in folders below."""
    for first, split in enumerate(("train", "val", "test")):
        lines = []
        for number in range(count):
            height, width = 40 + 3 * (number % 4), 52 + 5 * (number % 3)
            name = f"{'below/' if number % 2 else ''}photo{number:02d}"
            place, mask_place = root / split / f"{name}.jpg", root / split / "masks" / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            mask_place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(height, width, 100 * first + number)).save(place, quality=95)
            mask = np.zeros((height, width), np.uint8)
            mask[10 : 20 + number, 18:34] = 255
            Image.fromarray(mask).save(mask_place)
            lines.append({"file": f"{name}.jpg", "captions": [f"photograph {number} of {split}", "the same again"]})
        (root / split / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def unknown_caption(root: Path) -> None:
    """Adds a caption of a picture that is not there."""
    for path in root.glob("*/captions.jsonl"):
        path.write_text(path.read_text() + '{"file": "stranger.jpg", "caption": "a stranger"}\n')
