"""The splits of Karpathy and Li (2015), `dataset_coco.json` and `dataset_flickr30k.json`.

    {"images": [{"filename": "COCO_val2014_000000391895.jpg", "filepath": "val2014", "cocoid": 391895, "imgid": 0,
                 "split": "test", "sentences": [{"raw": "A man ...", "tokens": [...], "imgid": 0, "sentid": 770337}]}]}

`filepath` and `cocoid` are COCO's alone. `split` is train, restval (COCO: counted with train), val or test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.annotation_files import read_json
from zoo.data.sources import Source
from zoo.errors import DataError

PARTS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""What each split is made of."""
SOURCE = Source(
    what="Karpathy's splits, with captions, of COCO and Flickr30k",
    url="http://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    size=36_700_000,
    licence="none is stated; the captions are COCO's (CC BY 4.0) and Flickr30k's (non-commercial research)",
    unpack_to=".",
    note="dataset_coco.json and dataset_flickr30k.json are in it",
)
REMEDY = f"get caption_datasets.zip from {SOURCE.url} and unpack it into the dataset's folder"


@dataclass(frozen=True, slots=True)
class Described:
    """One image of a split file.

    Attributes:
        file: The image's file name.
        folder: COCO's folder it is in ("val2014"); empty elsewhere.
        number: COCO's image id; -1 elsewhere.
        captions: Its sentences, in order.
    """

    file: str
    folder: str
    number: int
    captions: tuple[str, ...]


def read_karpathy(path: Path) -> dict[str, list[Described]]:
    """The images of each split, `train`, `val` and `test`, in the order of the file.

    Raises:
        DataError: The file is missing or damaged, a split is unknown, a sentence is of another image than the one it
            stands with, or an image has none.
    """
    content = read_json(path, REMEDY)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise _damaged(path, "it has no list 'images'")
    whole = {part: split for split, parts in PARTS.items() for part in parts}
    found: dict[str, list[Described]] = {split: [] for split in PARTS}
    for entry in images:
        try:
            split = str(entry["split"])
            described = _described(entry, path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"an image has no usable {error}") from error
        if split not in whole:
            raise _damaged(path, f"{described.file} is of the split '{split}', which does not exist")
        found[whole[split]].append(described)
    return found


def _described(entry: dict[str, Any], path: Path) -> Described:
    file = str(entry["filename"])
    strangers = [s["sentid"] for s in entry["sentences"] if s.get("imgid", entry.get("imgid")) != entry.get("imgid")]
    if strangers:
        raise DataError(
            f"{len(strangers)} captions of {file} are of other images: sentence {strangers[0]}",
            where=str(path),
            remedy=REMEDY,
        )
    captions = tuple(text for s in entry["sentences"] if (text := str(s["raw"]).strip()))
    if not captions:
        raise DataError(f"an image has no caption: {file}", where=str(path), remedy=REMEDY)
    return Described(file, str(entry.get("filepath", "")), int(entry.get("cocoid", -1)), captions)


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(f"{path.name} is damaged: {detail}", where=str(path), remedy=REMEDY)
