"""Flickr30k, five captions an image, with the boxes of Flickr30k Entities.

    ROOT/flickr30k-images/*.jpg                       or flickr30k_images/, images/
    ROOT/Annotations/*.xml  ROOT/Sentences/*.txt      Entities' annotations.zip: boxes, captions with phrase markup
    ROOT/train.txt  val.txt  test.txt                 Entities' lists of images, a name without ending a line
    ROOT/results_20130124.token                       Flickr30k's own captions; needed where Sentences/ is not there
    ROOT/dataset_flickr30k.json                       variant karpathy only, in place of the lists and the captions

Entities' part may lie in ROOT/flickr30k_entities too. Variant `entities` splits as Entities does (29,783, 1,000 and
1,000 images), `karpathy` as Karpathy and Li do (29,000, 1,014 and 1,000). Captions are Entities' Sentences without
their markup, else those of the token file; under `karpathy` those of the split file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotation_files import check_known, check_present, read_text
from zoo.data.base import SPLITS, ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.karpathy import SOURCE, read_karpathy
from zoo.data.listing import first_folder, read_lines
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError, unknown_name

COUNTS: dict[str, dict[str, int]] = {
    "entities": {"train": 29_783, "val": 1_000, "test": 1_000},
    "karpathy": {"train": 29_000, "val": 1_014, "test": 1_000},
}
LICENCE = "non-commercial research and education only; images under the Flickr terms of use"
PAGE = "https://shannon.cs.illinois.edu/DenotationGraph/"
ENTITIES = "https://github.com/BryanPlummer/flickr30k_entities"
DOWNLOAD = (
    f"ask for the images with the form at {PAGE}, get annotations.zip, train.txt, val.txt and test.txt from {ENTITIES},"
    " unpack all into one folder, and name it with --data.root DIR (root= in Python), or have it as $ZOO_DATA/flickr30k"
)
DAMAGED = f"unpack annotations.zip of {ENTITIES} again"
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"
IMAGES = ("flickr30k-images", "flickr30k_images", "images")
SPLIT_FILE, TOKENS = "dataset_flickr30k.json", "results_20130124.token"
OF_KARPATHY = replace(SOURCE, makes=(SPLIT_FILE,))
_PHRASE = re.compile(r"\[/EN#\d+(?:/[^\s\]]+)+\s+([^\[\]]*)\]")


def _entities(file: str, what: str, unpack_to: str, makes: str) -> Source:
    return Source(
        what=what,
        url=f"{ENTITIES}/raw/master/{file}",
        size=0,
        licence=LICENCE,
        unpack_to=unpack_to,
        note="get it in a browser; by using it you agree to the terms of Flickr30k",
        makes=(makes, f"flickr30k_entities/{makes}"),
    )


class Flickr30k:
    """Photographs of people and their doings, with five captions each and the boxes of what the captions name.

    Ids name the image alone, not the split: the same image has the same masks under both variants. Samples are in order
    of their names.

    Args:
        split: "train", "val" or "test".
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/flickr30k` or `data/flickr30k`.
        variant: "entities" or "karpathy": who parted the images into splits.

    Attributes:
        caption_source: The file or folder that the captions are from.

    Raises:
        DataError: A folder or list is missing or damaged, images, boxes or sentences of listed images are absent, or
            captions are of images that no list names.
        UsageError: There is no such variant.
    """

    name: ClassVar[str] = "flickr30k"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = COUNTS["entities"]
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="images, and captions in results_20130124.token",
            url=PAGE,
            size=4_400_000_000,
            licence=LICENCE,
            unpack_to=".",
            note="fill in the form on that page; the archive of the images comes by mail",
            saved_as="flickr30k-images.tar.gz",
            makes=IMAGES,
        ),
        _entities("annotations.zip", "boxes and captions of Flickr30k Entities", ".", "Annotations"),
        *(_entities(f"{split}.txt", f"list of {split} images", "", f"{split}.txt") for split in SPLITS),
        OF_KARPATHY,
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str = "entities",
    ) -> None:
        if variant not in COUNTS:
            raise unknown_name("variant of flickr30k", variant, list(COUNTS))
        self.root = default_root("flickr30k") if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no Flickr30k folder here", where=str(self.root), remedy=DOWNLOAD)
        self.size, self.variant, self.official = size, variant, COUNTS[variant][split]
        names = [self.root / name for name in IMAGES]
        self.folder = first_folder(names, "the images", DOWNLOAD)
        places = (self.root / "Annotations", self.root / "flickr30k_entities" / "Annotations")
        self.boxes = first_folder(places, "Entities' boxes", DOWNLOAD)
        self.captions: Mapping[str, tuple[str, ...]] = {}
        stems = self._karpathy(split) if variant == "karpathy" else self._entities(split)
        self._stems = sorted(stems)[:count]
        check_present([f"{stem}.jpg" for stem in self._stems], self.folder, "images", DOWNLOAD)
        check_present([f"{stem}.xml" for stem in self._stems], self.boxes, "files of boxes", DAMAGED)
        self._ids = [f"flickr30k/images/{stem}" for stem in self._stems]

    def _karpathy(self, split: str) -> list[str]:
        self.caption_source = self.root / SPLIT_FILE
        self.shared_files: tuple[Path, ...] = (self.caption_source,)
        described = read_karpathy(self.caption_source)[split]
        self.captions = {Path(image.file).stem: image.captions for image in described}
        return list(self.captions)

    def _entities(self, split: str) -> list[str]:
        base = self.boxes.parent
        lists = {part: base / f"{part}.txt" for part in SPLITS}
        stems = {part: [line.strip() for line in read_lines(path, DOWNLOAD)] for part, path in lists.items()}
        known = {stem for part in stems.values() for stem in part}
        self.caption_source = base / "Sentences"
        self.shared_files = tuple(lists.values())
        if self.caption_source.is_dir():
            wanted = [f"{stem}.txt" for stem in stems[split]]
            found = check_present(wanted, self.caption_source, "files of captions", DAMAGED)
            texts = [Path(name).stem for name in found if name.endswith(".txt")]
            check_known(texts, known, "captions", self.caption_source, DAMAGED)
        else:
            self.caption_source = self.root / TOKENS
            self.shared_files += (self.caption_source,)
            self.captions = read_tokens(self.caption_source)
            check_known(self.captions, known, "captions", self.caption_source, DOWNLOAD)
            silent = [stem for stem in stems[split] if stem not in self.captions]
            if silent:
                what = f"{len(silent)} images have no caption: {', '.join(silent[:3])}"
                raise DataError(what, where=str(self.caption_source), remedy=DOWNLOAD)
        return stems[split]

    @classmethod
    def sources_for(cls, variant: str = "entities", **_: Any) -> tuple[Source, ...]:
        """The downloads that a variant needs."""
        karpathy = variant == "karpathy"
        lists = {f"{split}.txt" for split in SPLITS}
        return tuple(
            s for s in cls.sources if (s is not OF_KARPATHY or karpathy) and not (karpathy and s.file in lists)
        )

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "caption", "edge"})

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._stems)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image, its boxes, and its sentences where they have a file of their own."""
        stem = self._stems[index]
        own = (self.folder / f"{stem}.jpg", self.boxes / f"{stem}.xml")
        return own if self.captions else (*own, self.caption_source / f"{stem}.txt")

    def sample(self, index: int) -> Sample:
        """The image at a position with its captions and boxes, resized and cropped.

        Raises:
            DataError: The image, its boxes or its sentences cannot be read, or the boxes are for another size.
        """
        stem = self._stems[index]
        path = self.folder / f"{stem}.jpg"
        image = read_image(path)
        height, width = image.shape[:2]
        placed = fit(height, width, self.size)
        boxes, _ = placed.boxes(read_boxes(self.boxes / f"{stem}.xml", height, width))
        captions = self._captions(stem)
        return Sample(id=self._ids[index], image=placed.image(image), captions=captions, boxes=boxes)

    def caption_texts(self) -> Iterator[str]:
        """Every caption of every image, without reading one; see `InpaintingData.captions`."""
        for stem in self._stems:
            yield from self._captions(stem)

    def _captions(self, stem: str) -> tuple[str, ...]:
        return self.captions[stem] if self.captions else read_sentences(self.caption_source / f"{stem}.txt")


def strip_markup(sentence: str) -> str:
    """A sentence of Entities without phrase markup: "[/EN#1/people Two young guys] look" -> "Two young guys look"."""
    return _PHRASE.sub(r"\1", sentence).strip()


def read_sentences(path: Path) -> tuple[str, ...]:
    """The captions of one image from its file of Entities, without markup.

    Raises:
        DataError: The file is missing, empty, or its markup is damaged.
    """
    captions = tuple(strip_markup(line) for line in read_lines(path, DAMAGED))
    broken = next((caption for caption in captions if "[/EN#" in caption), None)
    if broken is not None:
        raise DataError(f"the phrase markup of a caption is damaged: {broken[:60]}", where=str(path), remedy=DAMAGED)
    return captions


def read_tokens(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of Flickr30k's token file, "1000092795.jpg#0<tab>Two young guys ..." a line, by image name.

    Raises:
        DataError: The file is missing, or a line is none of these.
    """
    captions: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(read_text(path, DOWNLOAD).split("\n"), 1):
        if not line.strip():
            continue
        key, tab, text = line.partition("\t")
        file, _, place = key.partition("#")
        if not (tab and file and place.isdigit() and text.strip()):
            raise DataError("this line is no caption", where=f"{path}, line {number}", remedy=DOWNLOAD)
        captions.setdefault(Path(file).stem, []).append((int(place), text.strip()))
    return {stem: tuple(text for _, text in sorted(texts)) for stem, texts in captions.items()}


def read_boxes(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """The boxes of an annotation of Entities; objects without one (scenes, things out of sight) have none here.

    Args:
        path: The XML file. Its corners count from 1, the last column and row included.
        height: Height of the image in pixels.
        width: Its width.

    Returns:
        N x 4, x0 y0 x1 y1 in pixels, the last column and row excluded.

    Raises:
        DataError: The file cannot be read, or is for an image of another size.
    """
    try:
        tree = ElementTree.parse(path).getroot()
        size = tuple(int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
        corners = [
            [float(box.findtext(corner, "")) for corner in ("xmin", "ymin", "xmax", "ymax")]
            for box in tree.iterfind("object/bndbox")
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise DataError(f"the boxes of this image cannot be read: {error}", str(path), DAMAGED) from error
    if size != (width, height):
        what = f"the image is {width}x{height}, its boxes are for {size[0]}x{size[1]}"
        raise DataError(what, where=str(path), remedy="use the images as Flickr30k gives them out, not resized ones")
    return np.array(corners, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)
