"""MSCOCO in its official layout: images, five captions each, instances.

    ROOT/train2017/*.jpg  ROOT/val2017/*.jpg          (or ROOT/images/train2017, ..., or all in ROOT/images)
    ROOT/annotations/captions_train2017.json          captions_val2017.json
    ROOT/annotations/instances_train2017.json         instances_val2017.json

2014 in place of 2017 works too. The test split is the validation images: COCO's own test captions are not public.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import ObjectRule, Sample
from zoo.data.coco_json import Annotations, Picture, Shape, read_annotations
from zoo.data.image import read_image
from zoo.data.transforms import fit
from zoo.errors import DataError

YEARS = ("2017", "2014")
UNKNOWN = 255
DOWNLOAD = (
    "from https://cocodataset.org get the images (train2017.zip 18 GB, val2017.zip 1 GB) and"
    " annotations_trainval2017.zip (241 MB), unpack them into one folder, and name it with root or ZOO_DATA"
)


def default_root() -> Path:
    """`$ZOO_DATA/coco`, or `data/coco` here where ZOO_DATA is not set."""
    return Path(os.environ.get("ZOO_DATA") or "data") / "coco"


LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class Coco:
    """COCO images with all their captions, boxes, instance masks and a map of classes.

    Crowd regions are no objects: they are dropped from boxes and instance masks, and unknown (255) in the class map.
    Where instances overlap, the smaller is on top. Class 0 is background, then the categories in order of their id.
    Samples are in order of image id.

    Args:
        split: "train", "val" or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/coco` or `data/coco`.

    Raises:
        DataError: A folder or file is missing, an annotation file is damaged, images that it lists are absent, or
            captions and images do not belong together.
    """

    name: ClassVar[str] = "coco"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "annotations CC BY 4.0; images under the Flickr terms of each photographer"
    layout: ClassVar[str] = LAYOUT

    def __init__(
        self, split: str = "train", size: int | None = 256, count: int | None = None, root: str | Path | None = None
    ) -> None:
        self.root = default_root() if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no COCO folder here", where=str(self.root), remedy=DOWNLOAD)
        self.size = size
        part = "train" if split == "train" else "val"
        self.part = part + _year(self.root, part)
        notes = self.root / "annotations"
        annotations = read_annotations(notes / f"captions_{self.part}.json", notes / f"instances_{self.part}.json")
        pictures = annotations.pictures
        self.pictures = pictures[:count]
        self._categories = _class_ids(annotations)
        self._classes = ("background", *(name for _, name in sorted(annotations.categories.items())))
        self.folder = _image_folder(self.root, self.part)
        _check_files(self.pictures, self.folder)
        self._ids = [f"coco/{self.part}/{Path(p.file).stem}" for p in self.pictures]

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

    def sample(self, index: int) -> Sample:
        """The image at a position with everything that is known of it, resized and cropped.

        Raises:
            DataError: The image cannot be read, or is not of the size that its annotations were made for.
        """
        picture = self.pictures[index]
        path = self.folder / picture.file
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
                where=f"instances_{self.part}.json, {picture.file}",
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
        remedy=f"{DOWNLOAD} (zoo data info coco)",
    )


def _image_folder(root: Path, part: str) -> Path:
    for folder in (root / part, root / "images" / part, root / "images"):
        if folder.is_dir():
            return folder
    raise DataError(f"the folder of the images, '{part}', is missing", where=str(root), remedy=DOWNLOAD)


def _check_files(pictures: Sequence[Picture], folder: Path) -> None:
    present = {entry.name for entry in os.scandir(folder)}
    absent = [picture.file for picture in pictures if picture.file not in present]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(pictures)} images that the annotations list are absent: {', '.join(absent[:3])}",
            where=str(folder),
            remedy="unpack the archive of the images again, or ask for fewer (count takes the first ones)",
        )


def _class_ids(annotations: Annotations) -> dict[int, int]:
    if len(annotations.categories) >= UNKNOWN:
        raise DataError(f"{len(annotations.categories)} categories do not fit into 8 bits", remedy="merge some of them")
    return {category: i + 1 for i, category in enumerate(sorted(annotations.categories))}
