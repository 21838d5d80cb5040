"""Cityscapes: streets of 50 cities with fine annotations, in the layout of its archives.

    ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png            images, 2048 x 1024 pixels
    ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png             classes
    ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png          instances, 16 bits

with val and test beside train. Train has 2,975 images, val 500, test 1,525; the annotations of test are not public, its
files hold nothing but the car's bonnet and the border. So the zoo's test split is val, too. Variant `mminvertfill` adds
the test images to the training split, as that paper does (4,500), where their segmentation is unknown throughout.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image, read_segmentation
from zoo.data.listing import check_variant, file_names, first_folder, read_numbers
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import Fit, fit
from zoo.errors import DataError

CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
UNKNOWN = 255
# Label ids of the files, in the order of the classes ("train ids"); the other ids up to LAST_LABEL are unknown.
LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LAST_LABEL = 33
COUNTABLE = range(24, 34)  # labels with instances: person to bicycle, caravan and trailer among them
PER_LABEL = 1000  # an instance's id is its label times this, plus its number; a plain label is a group or no thing
IMAGE, LABEL, INSTANCE = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"
NEEDED = {
    IMAGE: "annotated images are absent",
    LABEL: "images have no label ids",
    INSTANCE: "images have no instance ids",
}
FOLDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "official": {"train": ("train",), "val": ("val",), "test": ("val",)},
    "mminvertfill": {"train": ("train", "test"), "val": ("val",), "test": ("val",)},
}
HELD = {"train": 2_975, "val": 500, "test": 1_525}
LICENCE = "Cityscapes: non-commercial research, teaching and evaluation, after registration; no redistribution"
DOWNLOAD = (
    "register at https://www.cityscapes-dataset.com, get leftImg8bit_trainvaltest.zip (11.6 GB) and"
    " gtFine_trainvaltest.zip (253 MB), unpack both into one folder, and name it with --data.root DIR"
    " (root= in Python), or have it as $ZOO_DATA/cityscapes"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class _Frame(NamedTuple):
    """One image: the folder it is of (train, val, test), its city, and its name without endings."""

    part: str
    city: str
    stem: str


class Cityscapes:
    """Streets with a map of the 19 classes of the benchmark, and a segment with its box for each countable thing.

    Labels beyond the 19 are unknown (255). Groups of things that are not told apart have their class and no segment.
    Samples are in order of city and name.

    Args:
        split: "train", "val", or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/cityscapes` or `data/cityscapes`.
        variant: "official", or "mminvertfill": training on train and test together.

    Raises:
        DataError: A folder is missing, an image lacks an annotation, or an annotation its image.
        UsageError: An unknown variant.
    """

    name: ClassVar[str] = "cityscapes"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = {"train": HELD["train"], "val": HELD["val"], "test": HELD["val"]}
    shared_files: ClassVar[tuple[Path, ...]] = ()
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="images",
            url="https://www.cityscapes-dataset.com/downloads/",
            size=11_600_000_000,
            licence=LICENCE,
            sha256="3ccff9ac1fa1d80a6a064407e589d747ed0657aac7dc495a4403ae1235a37525",
            unpack_to=".",
            note="register and download it in a browser into the root; zoo data prepare unpacks it",
            saved_as="leftImg8bit_trainvaltest.zip",
            makes=("leftImg8bit",),
        ),
        Source(
            what="fine annotations",
            url="https://www.cityscapes-dataset.com/downloads/",
            size=253_000_000,
            licence=LICENCE,
            sha256="40461a50097844f400fef147ecaf58b18fd99e14e4917fb7c3bf9c0d87d95884",
            unpack_to=".",
            note="register and download it in a browser into the root; zoo data prepare unpacks it",
            saved_as="gtFine_trainvaltest.zip",
            makes=("gtFine",),
        ),
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str = "official",
    ) -> None:
        self.root = default_root(self.name) if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no Cityscapes folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.variant = check_variant(self.name, variant, FOLDERS)
        self._parts = FOLDERS[variant][split]
        frames = [frame for part in self._parts for frame in _frames(self.root, part)]
        self.frames = frames[:count]
        _check_frames(self.frames, self.root)
        self._ids = [f"{self.name}/{frame.part}/{frame.stem}" for frame in self.frames]

    @property
    def official(self) -> int | None:
        """How many images this split holds as published."""
        return sum(HELD[part] for part in self._parts)

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "edge", "segmentation"})

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self.frames)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image at a position, its label ids and its instance ids."""
        return tuple(_path(self.root, self.frames[index], ending) for ending in (IMAGE, LABEL, INSTANCE))

    def sample(self, index: int) -> Sample:
        """The image at a position with its classes and things, resized and cropped.

        Raises:
            DataError: A file cannot be read, is of another size than its image, or holds ids that Cityscapes does not
                have.
        """
        image_file, label_file, instance_file = self.files(index)
        image = read_image(image_file)
        size = (image.shape[0], image.shape[1])
        placed = fit(*size, self.size)
        boxes, segments = _things(instance_file, size, placed)
        return Sample(
            id=self._ids[index],
            image=placed.image(image),
            boxes=boxes,
            segments=segments,
            segmentation=placed.labels(_classes(label_file, size)),
        )


def _path(root: Path, frame: _Frame, ending: str) -> Path:
    return root / ("leftImg8bit" if ending == IMAGE else "gtFine") / frame.part / frame.city / (frame.stem + ending)


def _frames(root: Path, part: str) -> list[_Frame]:
    """Every frame of which there is an image or an annotation, by city and name."""
    found = set()
    for kind, endings in (("leftImg8bit", (IMAGE,)), ("gtFine", (LABEL, INSTANCE))):
        folder = first_folder([root / kind / part], f"{kind} for '{part}'", DOWNLOAD)
        for city in (entry.name for entry in os.scandir(folder) if entry.is_dir()):
            for file in file_names(folder / city):
                found |= {_Frame(part, city, file.removesuffix(e)) for e in endings if file.endswith(e)}
    if not found:
        raise DataError("there are no images in this folder", str(root / "leftImg8bit" / part), DOWNLOAD)
    return sorted(found)


def _check_frames(frames: Sequence[_Frame], root: Path) -> None:
    present: dict[Path, set[str]] = {}
    for ending, problem in NEEDED.items():
        paths = [_path(root, frame, ending) for frame in frames]
        for folder in {path.parent for path in paths}:
            present[folder] = file_names(folder) if folder.is_dir() else set()
        absent = [path for path in paths if path.name not in present[path.parent]]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(frames)} {problem}: {', '.join(path.name for path in absent[:3])}",
                where=str(absent[0].parent),
                remedy="unpack both archives again into one folder; images and annotations are of the same names",
            )


def _classes(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    labels = read_segmentation(path, size)
    if labels.max() > LAST_LABEL:
        raise DataError(
            f"label {labels.max()} is none of Cityscapes' 0 to {LAST_LABEL}",
            where=str(path),
            remedy="these are the gtFine label ids as published, not train ids or another dataset's",
        )
    table = np.full(LAST_LABEL + 1, UNKNOWN, np.uint8)
    table[list(LABELS)] = np.arange(len(LABELS))
    return table[labels]


def _things(path: Path, size: tuple[int, int], placed: Fit) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes and segments of the countable things, in order of their ids, moved with the image."""
    from scipy import ndimage

    numbers = read_numbers(path, size)
    spans = {i: span for i, span in enumerate(ndimage.find_objects(numbers), 1) if span is not None}
    wrong = [i for i in spans if i > LAST_LABEL and i // PER_LABEL not in COUNTABLE]
    if wrong:
        raise DataError(
            f"instance {wrong[0]} is of a label that Cityscapes does not count",
            where=str(path),
            remedy="these are the gtFine instance ids as published: label x 1000 + number",
        )
    things = [i for i in spans if i >= PER_LABEL]
    boxes = [(spans[i][1].start, spans[i][0].start, spans[i][1].stop, spans[i][0].stop) for i in things]
    moved, kept = placed.boxes(np.array(boxes, np.float32).reshape(-1, 4))
    # One map of 16-bit ids is placed as two of bytes, in place of a map of booleans for each of a hundred things.
    low, high = placed.labels(np.stack([numbers & 255, numbers >> 8]).astype(np.uint8)).astype(np.int32)
    return moved, (low + high * 256)[None] == np.array(things, np.int32)[kept][:, None, None]
