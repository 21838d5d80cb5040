"""A tiny COCO: two objects and a crowd an image, five captions each; and Karpathy's splits of the one of 2014."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes import crowd, instance, picture, write_coco

SPLITS = ("restval", "val", "test")  # of Karpathy, in turn over the validation images


def coco_tree(root: Path, count: int = 12, year: str = "2017") -> Path:
    """Writes `count` images of train and of val, of sizes from 45 x 61 upwards."""
    for part, first in (("train", 100), ("val", 500)):
        sizes = {first + n: (45 + 3 * (n % 5), 61 + 4 * (n % 3)) for n in range(count)}
        images = {number: picture(*size, number) for number, size in sizes.items()}
        captions = {number: [f"a cat and a cup, caption {n} of {number}" for n in range(5)] for number in sizes}
        objects = [instance(number, 17, (12, 8, 30, 28)) for number in sizes]
        objects += [instance(number, 47, (20, 14, 12, 10)) for number in sizes]
        objects += [crowd(number, 1, size, 4) for number, size in sizes.items()]
        write_coco(root, f"{part}{year}", images, captions, objects)
    return root


def karpathy_tree(root: Path, count: int = 12) -> Path:
    """Writes a COCO of 2014 and `dataset_coco.json`: restval, val and test are a third each of validation images."""
    coco_tree(root, count, "2014")
    entries: list[dict[str, Any]] = []
    for part in ("train2014", "val2014"):
        for n, path in enumerate(sorted((root / part).glob("*.jpg"))):
            split = "train" if part == "train2014" else SPLITS[n % len(SPLITS)]
            entries.append(described(path.name, split, len(entries), part))
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return root


def described(file: str, split: str, number: int, part: str = "") -> dict[str, Any]:
    """An image as Karpathy's files describe it; with `part`, as the one of COCO does."""
    texts = [f"sentence {n} of {file} ." for n in range(5)]
    sentences = [
        {"tokens": text.split()[:-1], "raw": text, "imgid": number, "sentid": 5 * number + n}
        for n, text in enumerate(texts)
    ]
    entry = {"filename": file, "imgid": number, "split": split, "sentences": sentences}
    return entry | ({"filepath": part, "cocoid": int(Path(file).stem[-12:])} if part else {})


def unknown_caption(root: Path) -> None:
    """Adds a caption of an image that is not listed."""
    for path in (root / "annotations").glob("captions_*.json"):
        content = json.loads(path.read_text())
        content["annotations"].append({"id": 7, "image_id": 7, "caption": "a stranger"})
        path.write_text(json.dumps(content))
