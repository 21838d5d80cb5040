"""Places2 (Places365-Standard): photographs of 365 kinds of scene, in the layout of its archives.

    ROOT/val_256/Places365_val_00000001.jpg ..      36,500 images (large: ROOT/val_large)
    ROOT/data_256/a/airfield/00000001.jpg ..        1,803,460 training images (large: ROOT/data_large)
    ROOT/places365_val.txt  ROOT/places365_train_standard.txt  ROOT/categories_places365.txt

The lists are in filelist_places365-standard.tar; torchvision's data_256_standard works too. Splits val and test are
both the validation images, on which papers report: the official test images (test_256, 328,500) have no labels and are
not read. Images of variant `256` were squeezed to 256 x 256 pixels by the authors; those of `large` keep their shape,
the shorter side at most 512 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from zoo.data.annotation_files import check_present
from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.listing import UNPACK_AGAIN, check_variant, damaged, first_folder, read_lines
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError

VARIANTS = ("256", "large")
LISTS = {"train": "places365_train_standard.txt", "val": "places365_val.txt"}
CATEGORIES = "categories_places365.txt"
SERVER = "http://data.csail.mit.edu/places/places365"
LICENCE = "Places2: non-commercial research and education only, images not to be redistributed"
DOWNLOAD = (
    "zoo data prepare places2 --download --only filelist,val fetches lists (68 MB) and validation images (525 MB),"
    " without --only the training images (26 GB) too; or get the archives from"
    " http://places2.csail.mit.edu/download.html, unpack them into one folder, and name it with"
    " --data.root DIR (root= in Python), or have it as $ZOO_DATA/places2"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class _Ids(Sequence[str]):
    """Ids made when asked for: 1.8 million texts would take 190 MB, and every worker process a copy."""

    def __init__(self, prefix: str, files: np.ndarray[tuple[int], np.dtype[np.bytes_]]) -> None:
        self._prefix, self._files = prefix, files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Ids(self._prefix, self._files[index])
        file: bytes = self._files[index]
        return self._prefix + file.decode().removesuffix(".jpg")


class Places2:
    """Scenes without captions, boxes or segmentation, in the order of the official lists.

    Args:
        split: "train", "val", or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/places2` or `data/places2`.
        variant: "256" or "large".

    Raises:
        DataError: A folder or list is missing or damaged, a list has an image of an unknown category or twice, or
            images that it lists are absent.
        UsageError: An unknown variant.
    """

    name: ClassVar[str] = "places2"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = {"train": 1_803_460, "val": 36_500, "test": 36_500}
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="lists of images and categories",
            url=f"{SERVER}/filelist_places365-standard.tar",
            size=68_000_000,
            licence=LICENCE,
            sha256="520699e00d69b63ddc29fac54645aa00ce1c10ca42e288960aa1cf791d6e9aa9",
            unpack_to=".",
            automatic=True,
            makes=("places365_val.txt",),
        ),
        Source(
            what="validation images, variant 256",
            url=f"{SERVER}/val_256.tar",
            size=525_000_000,
            licence=LICENCE,
            sha256="24b4e639ef12a0012af525bc4cb443e4ab4aaea8369a1fb009b70e4a4aad5d48",
            unpack_to=".",
            automatic=True,
            makes=("val_256",),
        ),
        Source(
            what="validation images, variant large",
            url=f"{SERVER}/val_large.tar",
            size=2_250_000_000,
            licence=LICENCE,
            sha256="ddd71c418592a4c230645e238f9e52de77247461d68cd9a14a080a9ca6f27df6",
            unpack_to=".",
            automatic=True,
            makes=("val_large",),
        ),
        Source(
            what="training images, variant 256",
            url=f"{SERVER}/train_256_places365standard.tar",
            size=26_000_000_000,
            licence=LICENCE,
            sha256="0ade5d7d38c682aa0203014a2b99ad3bf608bf1de0f151dc0d80efba54660a0a",
            unpack_to=".",
            automatic=True,
            makes=("data_256", "data_256_standard"),
        ),
        Source(
            what="training images, variant large",
            url=f"{SERVER}/train_large_places365standard.tar",
            size=113_000_000_000,
            licence=LICENCE,
            sha256="dd232ce786836fcb0aa6d30032a95de095e79ed9ff08faeb16309a89eb8f3c97",
            unpack_to=".",
            automatic=True,
            makes=("data_large", "data_large_standard"),
        ),
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str = "256",
    ) -> None:
        self.root = default_root(self.name) if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no Places2 folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.variant = check_variant(self.name, variant, VARIANTS)
        self.part = "train" if split == "train" else "val"
        names = [f"val_{variant}"] if self.part == "val" else [f"data_{variant}", f"data_{variant}_standard"]
        self.folder = first_folder([self.root / name for name in names], "the images", DOWNLOAD)
        path = self.root / LISTS[self.part]
        files = list(islice(_listed(path, _categories(self.root / CATEGORIES)), count))
        _check_once(files, path)
        check_present(files, self.folder, "images", UNPACK_AGAIN)
        self.shared_files: tuple[Path, ...] = (path, self.root / CATEGORIES)
        self._files = np.array(files, np.bytes_)
        self._ids = _Ids(f"{self.name}/{self.part}/", self._files)

    @classmethod
    def sources_for(cls, variant: str | None = None, **_: Any) -> tuple[Source, ...]:
        """The downloads that a variant needs; None is the default."""
        return tuple(s for s in cls.sources if not s.what.endswith(VARIANTS) or s.what.endswith(variant or "256"))

    @property
    def official(self) -> int | None:
        """How many images this split holds as published."""
        return self.counts[self.split]

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
        return len(self._files)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image file at a position."""
        return (self.folder / self._files[index].decode(),)

    def sample(self, index: int) -> Sample:
        """The image at a position, resized and cropped.

        Raises:
            DataError: It cannot be read.
        """
        image = read_image(*self.files(index))
        placed = fit(image.shape[0], image.shape[1], self.size)
        return Sample(id=self._ids[index], image=placed.image(image))


def _categories(path: Path) -> dict[str, str]:
    """Number of a category, as text, to its folder, such as "a/airfield"."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, DOWNLOAD), 1):
        folder, _, index = line.strip().rpartition(" ")
        if not folder.startswith("/") or not index.isdigit() or index in found:
            raise damaged(path, f"line {number} is not '/a/airfield 0', or has a number again: {line[:60]}")
        found[index] = folder.strip("/")
    return found


def _listed(path: Path, categories: Mapping[str, str]) -> Iterator[str]:
    """The images of a list, by their path below the folder of images."""
    for number, line in enumerate(read_lines(path, DOWNLOAD), 1):
        file, _, index = line.strip().rpartition(" ")
        file = file.lstrip("/")
        if not file.endswith(".jpg") or ".." in file or not index.isdigit():
            raise damaged(path, f"line {number} is not 'IMAGE.jpg NUMBER': {line[:60]}")
        if index not in categories:
            raise damaged(path, f"line {number} is of category {index}, which {CATEGORIES} does not have")
        folder = file.rpartition("/")[0]
        if folder and folder != categories[index]:
            raise damaged(path, f"line {number} puts '{folder}' into category {index}, '{categories[index]}'")
        yield file


def _check_once(files: Sequence[str], path: Path) -> None:
    if len(set(files)) < len(files):
        twice = next(b for a, b in zip(sorted(files), sorted(files)[1:], strict=False) if a == b)
        raise damaged(path, f"it lists {len(files) - len(set(files))} images again, such as {twice}")
