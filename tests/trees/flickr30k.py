"""A tiny Flickr30k with Entities' boxes, sentences and lists, the token file, and Karpathy's split file."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.fakes import picture
from tests.trees.coco import described

PHRASE = "[/EN#{n}/people Two young guys] with [/EN#{m}/bodyparts/other shaggy hair] look at their hands ."


def flickr30k_tree(root: Path, count: int = 12) -> Path:
    """Writes `count` images of each of train, val and test."""
    for name in ("flickr30k-images", "Annotations", "Sentences"):
        (root / name).mkdir(parents=True)
    tokens, entries = [], []
    for place, split in enumerate(("train", "val", "test")):
        stems = [str(1000092795 + 1000 * place + 7 * n) for n in range(count)]
        (root / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for n, stem in enumerate(stems):
            height, width = 50 + 3 * (n % 4), 66 + 5 * (n % 3)
            Image.fromarray(picture(height, width, n)).save(root / "flickr30k-images" / f"{stem}.jpg", quality=95)
            (root / "Annotations" / f"{stem}.xml").write_text(annotation(stem, height, width))
            phrases = [PHRASE.format(n=283585 + i, m=283600 + i) for i in range(5)]
            (root / "Sentences" / f"{stem}.txt").write_text("\n".join(phrases) + "\n")
            tokens += [f"{stem}.jpg#{i}\tToken caption {i} of {stem} ." for i in range(5)]
            entries.append(described(f"{stem}.jpg", split, len(entries)))
    (root / "results_20130124.token").write_text("\n".join(tokens) + "\n")
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    return root


def annotation(stem: str, height: int, width: int) -> str:
    """An annotation of Entities: a box, a scene, a thing without a box, and a box of two chains."""
    objects = (
        "<object><name>283585</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>",
        "<object><name>283586</name><scene>1</scene><nobndbox>0</nobndbox></object>",
        "<object><name>283587</name><scene>0</scene><nobndbox>1</nobndbox></object>",
        "<object><name>1</name><name>2</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>45</xmax><ymax>40</ymax></bndbox></object>",
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.jpg</filename>{size}{''.join(objects)}</annotation>"


def unknown_caption(root: Path) -> None:
    """Adds sentences of an image that no list names."""
    (root / "Sentences" / "31337.txt").write_text("a stranger\n")
