"""Scenery: the natural scenes of NS-Outpainting (Yang et al. 2019), as its raw archive unpacks, or in folders of yours.

    ROOT/*.jpg                       variant keyed: all 6,040 images in one folder (or in ROOT/scenery)
    ROOT/train/*.jpg  ROOT/test/*.jpg      variant folders: already parted

The authors publish the raw images and, apart from them, their own split into 5,000 and 1,000 as small TFRecords without
names, drawn at random, so that it cannot be had of the raw images. Variant `keyed` puts these in the order of a keyed
hash of their names: the first 1,000 of 6,040 are val and test, the others train (5,040). It is this split only where
all images are there. Variant `folders` takes a split as it is; val is test there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.listing import check_variant, first_folder, pictures
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError
from zoo.keyed import key

VARIANTS = ("keyed", "folders")
ALL, TESTED = 6_040, 1_000
LICENCE = "none stated for the images; the repository that links them is under the MIT licence"
DOWNLOAD = (
    "get the raw dataset from the link in https://github.com/z-x-yang/NS-Outpainting, unpack it, and name the folder"
    " with --data.root DIR (root= in Python), or have it as $ZOO_DATA/scenery; images"
    " already parted into train and test need --data.variant folders"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class Scenery:
    """Mountains, shores and skies, mostly wide, without captions, boxes or segmentation, in order of their names.

    Args:
        split: "train", "val", or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/scenery` or `data/scenery`.
        variant: "keyed" or "folders".

    Raises:
        DataError: A folder is missing or holds no images, too few for the split, or two of one name.
        UsageError: An unknown variant.
    """

    name: ClassVar[str] = "scenery"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = {"train": ALL - TESTED, "val": TESTED, "test": TESTED}
    shared_files: ClassVar[tuple[Path, ...]] = ()
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="raw images",
            url="https://drive.google.com/file/d/15rGKgeNHWqjs90An7wpZXJMz-zFaC1q0/view",
            size=0,
            licence=LICENCE,
            note="download it in a browser and unpack it under the root",
            saved_as="scenery",
            makes=("scenery", "*.jpg", "test"),
        ),
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str = "keyed",
    ) -> None:
        self.root = default_root(self.name) if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no Scenery folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.variant = check_variant(self.name, variant, VARIANTS)
        self.part = "train" if split == "train" else "test"
        if variant == "folders":
            folder = first_folder([self.root / self.part], f"split '{self.part}'", DOWNLOAD)
            files = pictures(folder, DOWNLOAD)
        else:
            inner = self.root / "scenery"
            folder = inner if inner.is_dir() else self.root
            files = _parted(pictures(folder, DOWNLOAD), self.part)
        if not files:
            raise DataError(f"there are too few images for split '{split}'", where=str(folder), remedy=DOWNLOAD)
        self.folder = folder
        self.images = list(files.values())[:count]
        self._ids = [f"{self.name}/{self.part}/{path.stem}" for path in self.images]

    @property
    def official(self) -> int | None:
        """How many images this split holds by the rule of variant `keyed`; None where the folders say."""
        return self.counts[self.split] if self.variant == "keyed" else None

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "edge"})

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self.images)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image file at a position."""
        return (self.images[index],)

    def sample(self, index: int) -> Sample:
        """The image at a position, resized and cropped.

        Raises:
            DataError: It cannot be read.
        """
        image = read_image(self.images[index])
        placed = fit(image.shape[0], image.shape[1], self.size)
        return Sample(id=self._ids[index], image=placed.image(image))


def _parted(files: Mapping[str, Path], part: str) -> dict[str, Path]:
    """The images of one part: 1,000 of 6,040 for the test, and of fewer the same share."""
    order = sorted(files, key=lambda name: (key("scenery", name), name))
    tested = set(order[: round(len(order) * TESTED / ALL)])
    return {name: path for name, path in files.items() if (name in tested) == (part == "test")}
