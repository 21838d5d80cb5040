"""A tiny Open Images: validation images with narratives and boxes."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.fakes import picture

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"


def openimages_tree(root: Path, count: int = 12, part: str = "validation") -> Path:
    """Writes `count` images, which all are of the test split: fewer than its 1,500. The first has two narratives."""
    (root / part).mkdir(parents=True)
    narratives, boxes = [], [HEADER]
    for n in range(count):
        image = f"{0x0001EEAF4AED83F9 + 977 * n:016x}"
        Image.fromarray(picture(48 + 3 * (n % 4), 64 + 5 * (n % 3), n)).save(root / part / f"{image}.jpg", quality=95)
        for voice in range(2 if n == 0 else 1):
            narrative = {"dataset_id": "OpenImages", "image_id": image, "annotator_id": voice}
            narratives.append(narrative | {"caption": f" In this picture we can see a cat, told by {voice}. "})
        boxes.append(f"{image},xclick,/m/01yrx,1,0.25,0.75,0.125,0.625,0,0,0,0,0")
        boxes.append(f"{image},xclick,/m/0k4j,1,0.0,1.0,0.0,1.0,0,0,1,0,0")  # around a group
    (root / f"open_images_{part}_captions.jsonl").write_text("".join(json.dumps(n) + "\n" for n in narratives))
    (root / f"{part}-annotations-bbox.csv").write_text("\n".join(boxes) + "\n")
    return root


def unknown_caption(root: Path) -> None:
    """Adds a narrative of an image that is not there."""
    with (root / "open_images_validation_captions.jsonl").open("a") as file:
        file.write(json.dumps({"image_id": "ffffffffffffffff", "caption": "a stranger"}) + "\n")
