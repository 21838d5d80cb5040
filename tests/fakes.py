"""Tiny data: COCO trees in their true format on disk, photographs that scikit-image ships, a dataset in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.base import ObjectRule, Sample
from zoo.errors import DataError

CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 17, "name": "cat"},
    {"supercategory": "kitchen", "id": 47, "name": "cup"},
]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with some detail, H x W x 3 uint8: JPEG keeps it nearly as it is."""
    y, x = np.mgrid[0:height, 0:width] / 20.0
    channels = [np.sin(x * (c + 1) + seed) * np.cos(y + c) for c in range(3)]
    return np.asarray(127.5 + 100 * np.stack(channels, -1), np.uint8)


def photograph(name: str) -> NDArray[np.uint8]:
    """One of scikit-image's photographs: astronaut, chelsea, coffee or rocket."""
    import skimage.data

    return np.asarray(getattr(skimage.data, name)())


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """A polygon as COCO writes it: x and y of each corner in turn."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def instance(image: int, category: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    """One object with a rectangular outline; box is x, y, width, height."""
    return {
        "segmentation": [rectangle(*box)],
        "area": box[2] * box[3],
        "iscrowd": 0,
        "image_id": image,
        "bbox": list(box),
        "category_id": category,
    }


def crowd(image: int, category: int, size: tuple[int, int], rows: int) -> dict[str, Any]:
    """A crowd region over the first `rows` rows, as uncompressed run lengths (column by column)."""
    height, width = size
    counts = [0]
    for _ in range(width):
        counts += [rows, height - rows]
    return {
        "segmentation": {"counts": counts, "size": [height, width]},
        "area": rows * width,
        "iscrowd": 1,
        "image_id": image,
        "bbox": [0, 0, width, rows],
        "category_id": category,
    }


def write_coco(
    root: Path,
    part: str,
    images: dict[int, NDArray[np.uint8]],
    captions: dict[int, list[str]],
    instances: list[dict[str, Any]],
) -> Path:
    """Writes one split of a COCO tree: ROOT/PART/000000000042.jpg and the two annotation files.

    Args:
        root: The folder to write to; other splits in it stay.
        part: train2017, val2017, train2014 or val2014.
        images: Picture by image id.
        captions: Captions by image id.
        instances: Annotations as `instance` and `crowd` make them; they are given ids here.
    """
    (root / part).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    prefix = f"COCO_{part}_" if part.endswith("2014") else ""
    listed = []
    for image_id, pixels in images.items():
        name = f"{prefix}{image_id:012d}.jpg"
        Image.fromarray(pixels).save(root / part / name, quality=95)
        height, width = pixels.shape[:2]
        listed.append({"license": 4, "file_name": name, "height": height, "width": width, "id": image_id})
    spoken = [(image_id, caption) for image_id, texts in captions.items() for caption in texts]
    said = [{"image_id": image_id, "id": 100 + n, "caption": text} for n, (image_id, text) in enumerate(spoken)]
    shown = [{**entry, "id": 900 + n} for n, entry in enumerate(instances)]
    frame = {"info": {"year": 2017}, "licenses": [{"id": 4, "name": "Attribution License"}], "images": listed}
    files = {"captions": frame | {"annotations": said}, "instances": frame | {"annotations": shown}}
    files["instances"]["categories"] = CATEGORIES
    for kind, content in files.items():
        (root / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(content))
    return root


def tiny_coco(root: Path, parts: tuple[str, ...] = ("train2017", "val2017"), count: int = 3) -> Path:
    """A COCO tree of `count` pictures of 60 x 80 a split, with a cat, a cup in front of it, and in the first a crowd.

    Image ids are 42, 43, ...; the cat is at x 20..60, y 10..50; the cup at x 30..40, y 30..40; the crowd in rows 0..4.
    """
    ids = range(42, 42 + count)
    for part in parts:
        write_coco(
            root,
            part,
            {i: picture(60, 80, i) for i in ids},
            {i: [f"caption {n} of image {i}" for n in range(5)] for i in ids},
            [instance(i, 17, (20, 10, 40, 40)) for i in ids]
            + [instance(i, 47, (30, 30, 10, 10)) for i in ids]
            + [crowd(42, 1, (60, 80), 5)],
        )
    return root


class Pictures:
    """A dataset in memory: `count` pictures with three captions, one box and a class map each."""

    name: ClassVar[str] = "pictures"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "CC0"

    def __init__(
        self, split: str = "train", size: int = 16, count: int | None = None, root: str | None = None, bad: int = -1
    ) -> None:
        self.size, self.bad, self.reads = size, bad, 0
        self._ids = [f"pictures/{split}/{n:03d}" for n in range(count or 12)]

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "caption", "segmentation"})

    @property
    def classes(self) -> tuple[str, ...]:
        return ("background", "thing")

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def sample(self, index: int) -> Sample:
        """The picture at a position; the one numbered `bad` cannot be read."""
        self.reads += 1
        if index == self.bad:
            raise DataError("the image cannot be read", where=self._ids[index], remedy="replace it")
        segmentation = np.zeros((self.size, self.size), np.uint8)
        segmentation[4:10, 4:10] = 1
        return Sample(
            id=self._ids[index],
            image=picture(self.size, self.size, index),
            captions=("one", "two", "three"),
            boxes=np.array([[4, 4, 10, 10]], np.float32),
            segmentation=segmentation,
        )
