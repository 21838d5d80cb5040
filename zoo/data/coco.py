"""MSCOCO in its official layout: images, five captions each, instances.

    ROOT/train2017/*.jpg  ROOT/val2017/*.jpg          (or ROOT/images/train2017, ..., or all in ROOT/images)
    ROOT/annotations/captions_train2017.json          captions_val2017.json
    ROOT/annotations/instances_train2017.json         instances_val2017.json
    ROOT/dataset_coco.json                            variant karpathy only, with images and instances of 2014

2014 in place of 2017 works too. The test split is the validation images: COCO's own test captions are not public.
Karpathy's splits part the images of 2014 anew: test and val are 5,000 each of its validation images, train all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotation_files import check_present
from zoo.data.base import ObjectRule, Sample
from zoo.data.coco_json import Annotations, Shape, read_annotations, read_described
from zoo.data.image import read_image
from zoo.data.karpathy import SOURCE, read_karpathy
from zoo.data.listing import first_folder
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError, unknown_name

YEARS = ("2017", "2014")
KARPATHY = "karpathy"
COUNTS: dict[str, dict[str, int]] = {
    "2017": {"train": 118_287, "val": 5_000, "test": 5_000},
    "2014": {"train": 82_783, "val": 40_504, "test": 40_504},
    KARPATHY: {"train": 113_287, "val": 5_000, "test": 5_000},
}
"""Official numbers of images; Karpathy's train is 82,783 and the 30,504 of restval."""
UNKNOWN = 255
FIRST = {"train2017": "000000000009", "val2017": "000000000139"}
"""The first image of each part of 2017: it tells which lie in a common folder. Names of 2014 say it themselves."""
ABSENT = "unpack the archive of the images again, or ask for fewer (count takes the first ones)"


def _download(variant: str | None = None) -> str:
    """How to get what a variant needs; None is 2017."""
    year = "2017" if variant in (None, "2017") else "2014"
    sizes = {"2017": "train2017.zip 19 GB, val2017.zip 0.8 GB", "2014": "train2014.zip 13.5 GB, val2014.zip 6.6 GB"}
    splits = f"caption_datasets.zip from {SOURCE.url}, " if variant == KARPATHY else ""
    option = "" if variant is None else f" --option variant={variant}"
    return (
        f"from https://cocodataset.org get the images ({sizes[year]}) and annotations_trainval{year}.zip (253 MB),"
        f" {splits}unpack them into one folder, and name it with --data.root DIR (root= in Python), or have it as"
        " $ZOO_DATA/coco; or let"
        f" zoo data prepare coco{option} --download do so{', but for the splits' if splits else ''}"
    )


LAYOUT = f"{(__doc__ or '').strip()}\n\n{_download()}"


def _source(file: str, size: int, sha256: str) -> Source:
    """One of COCO's archives. Their host serves plain http only; the hashes are those that torchvision checks."""
    kind, _, _ = file.partition("_")
    notes = kind == "annotations"
    part = file.removesuffix(".zip")
    year = part[-4:]
    images = (part, f"images/{part}", f"images/{FIRST.get(part, f'COCO_{part}_*')}.jpg")
    return Source(
        what=f"captions and instances of {year}" if notes else f"images of {part}",
        url=f"http://images.cocodataset.org/{'annotations' if notes else 'zips'}/{file}",
        size=size,
        licence="CC BY 4.0" if notes else "the Flickr terms of each photographer",
        sha256=sha256,
        unpack_to=".",
        automatic=True,
        makes=(f"annotations/instances_val{year}.json",) if notes else images,
    )


OF_2017 = (
    _source("val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
    _source(
        "annotations_trainval2017.zip", 252_907_541, "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"
    ),
    _source("train2017.zip", 19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929"),
)
OF_2014 = (
    _source("val2014.zip", 6_645_013_297, "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
    _source(
        "annotations_trainval2014.zip", 252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"
    ),
    _source("train2014.zip", 13_510_573_713, "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
)
SPLITS_FILE = "dataset_coco.json"
OF_KARPATHY = replace(SOURCE, makes=(SPLITS_FILE, f"annotations/{SPLITS_FILE}"))


class Coco:
    """COCO images with all their captions, boxes, instance masks and a map of classes.

    Crowd regions are no objects: they are dropped from boxes and instance masks, and unknown (255) in the class map.
    Where instances overlap, the smaller is on top. Class 0 is background, then the categories in order of their id.
    Samples are in order of image id.

    Args:
        split: "train", "val" or "test" (which is val, except under Karpathy's splits).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/coco` or `data/coco`.
        variant: "2017", "2014" or "karpathy"; None is 2017 where its captions are here, else 2014.

    Raises:
        DataError: A folder or file is missing, an annotation file is damaged, images that it lists are absent, or
            captions and images do not belong together.
        UsageError: There is no such variant.
    """

    name: ClassVar[str] = "coco"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "annotations CC BY 4.0; images under the Flickr terms of each photographer"
    layout: ClassVar[str] = LAYOUT
    sources: ClassVar[tuple[Source, ...]] = (*OF_2017, *OF_2014, OF_KARPATHY)
    counts: ClassVar[Mapping[str, int]] = COUNTS["2017"]

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str | None = None,
    ) -> None:
        if variant is not None and variant not in COUNTS:
            raise unknown_name("variant of coco", variant, list(COUNTS))
        self.root = default_root("coco") if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no COCO folder here", where=str(self.root), remedy=_download(variant))
        self.size = size
        if variant == KARPATHY:
            annotations = self._open_karpathy(split)
        else:
            part = "train" if split == "train" else "val"
            annotations = self._open_year(part + (variant or _year(self.root, part)))
        self.variant = variant or self.shared_files[0].stem[-4:]
        self.official: int | None = COUNTS[self.variant][split]
        self.pictures = annotations.pictures[:count]
        self._categories = _class_ids(annotations)
        self._classes = ("background", *(name for _, name in sorted(annotations.categories.items())))
        self.folders = {part: _image_folder(self.root, part) for part in sorted({p.part for p in self.pictures})}
        for part, folder in self.folders.items():
            check_present([p.file for p in self.pictures if p.part == part], folder, "images", ABSENT)
        self._ids = [f"coco/{p.part}/{Path(p.file).stem}" for p in self.pictures]

    def _open_year(self, part: str) -> Annotations:
        notes = self.root / "annotations"
        self.shared_files: tuple[Path, ...] = (notes / f"captions_{part}.json", notes / f"instances_{part}.json")
        return read_annotations(*self.shared_files, part)

    def _open_karpathy(self, split: str) -> Annotations:
        splits = next(
            (p for p in (self.root / SPLITS_FILE, self.root / "annotations" / SPLITS_FILE) if p.is_file()), None
        )
        described = read_karpathy(splits or self.root / SPLITS_FILE)[split]
        parts = sorted({picture.folder for picture in described})
        instances = {part: self.root / "annotations" / f"instances_{part}.json" for part in parts}
        self.shared_files = (self.root / SPLITS_FILE if splits is None else splits, *instances.values())
        return read_described(described, self.shared_files[0], instances)

    @classmethod
    def sources_for(cls, variant: str | None = None, **_: Any) -> tuple[Source, ...]:
        """The downloads that a variant needs; None is 2017."""
        if variant == KARPATHY:
            return (*OF_2014, OF_KARPATHY)
        return OF_2014 if variant == "2014" else OF_2017

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "caption", "edge", "segmentation"})

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self.pictures)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image file at a position."""
        picture = self.pictures[index]
        return (self.folders[picture.part] / picture.file,)

    def sample(self, index: int) -> Sample:
        """The image at a position with everything that is known of it, resized and cropped.

        Raises:
            DataError: The image cannot be read, or is not of the size that its annotations were made for.
        """
        picture = self.pictures[index]
        path = self.folders[picture.part] / picture.file
        image = read_image(path)
        height, width = image.shape[:2]
        if (height, width) != (picture.height, picture.width):
            raise DataError(
                f"the image is {width}x{height}, its annotations are for {picture.width}x{picture.height}",
                where=str(path),
                remedy="use the images as COCO publishes them, not resized ones",
            )
        placed = fit(height, width, self.size)
        things = [shape for shape in picture.shapes if not shape.crowd]
        boxes, kept = placed.boxes(np.array([thing.box for thing in things], np.float32).reshape(-1, 4))
        try:
            layers = [placed.labels(shape.decode(height, width)) for shape in picture.shapes]
        except Exception as error:  # pycocotools raises bare exceptions
            raise DataError(
                f"an outline of this image's objects is nonsense: {error}",
                where=f"instances_{picture.part}.json, {picture.file}",
                remedy="unpack or download the annotations again",
            ) from error
        segments = [layer for layer, shape in zip(layers, picture.shapes, strict=True) if not shape.crowd]
        whole = np.stack(segments) if segments else np.zeros((0, *placed.size), np.bool_)
        return Sample(
            id=self._ids[index],
            image=placed.image(image),
            captions=picture.captions,
            boxes=boxes,
            segments=whole[kept],
            segmentation=self._class_map(picture.shapes, layers, placed.size),
        )

    def caption_texts(self) -> Iterator[str]:
        """Every caption of every image, without reading one; see `InpaintingData.captions`."""
        for picture in self.pictures:
            yield from picture.captions

    def _class_map(
        self, shapes: Sequence[Shape], layers: Sequence[NDArray[np.bool_]], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        classes = np.zeros(size, np.uint8)
        order = sorted(range(len(shapes)), key=lambda i: (not shapes[i].crowd, -shapes[i].area))
        for i in order:
            classes[layers[i]] = UNKNOWN if shapes[i].crowd else self._categories[shapes[i].category]
        return classes


def _year(root: Path, part: str) -> str:
    for year in YEARS:
        if (root / "annotations" / f"captions_{part}{year}.json").is_file():
            return year
    raise DataError(
        f"captions_{part}2017.json is missing",
        where=str(root / "annotations"),
        remedy=f"{_download()} (zoo data info coco)",
    )


def _image_folder(root: Path, part: str) -> Path:
    return first_folder((root / part, root / "images" / part, root / "images"), "the images", _download(part[-4:]))


def _class_ids(annotations: Annotations) -> dict[int, int]:
    if len(annotations.categories) >= UNKNOWN:
        raise DataError(f"{len(annotations.categories)} categories do not fit into 8 bits", remedy="merge some of them")
    return {category: i + 1 for i, category in enumerate(sorted(annotations.categories))}
