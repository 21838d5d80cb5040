"""Caltech-UCSD Birds-200-2011, ten captions an image (Reed et al., CVPR 2016), a box and, optionally, an outline.

    ROOT/CUB_200_2011/images/001.Black_footed_Albatross/*.jpg          (or all of it in ROOT)
    ROOT/CUB_200_2011/images.txt  bounding_boxes.txt  train_test_split.txt  classes.txt  image_class_labels.txt
    ROOT/segmentations/001.Black_footed_Albatross/*.png                optional (or in CUB_200_2011)
    ROOT/cvpr2016_cub/text_c10/001.Black_footed_Albatross/*.txt        captions (or text_c10 in ROOT or CUB_200_2011)
    ROOT/cvpr2016_cub/trainvalclasses.txt  testclasses.txt             or trainvalids.txt and testids.txt, beside
                                                                       text_c10; only split_rule disjoint needs them

Splits (`split_rule`): `official` is train_test_split.txt, 5,994 and 5,794 images; `disjoint` is Reed's 150 and 50
classes, 8,855 and 2,933 images, from the class lists beside the captions; `hashed` parts the classes 150 to 50 without
those lists: the 50 whose names come first in order of their blake2b hashes are the test classes. CUB has no validation
images: in each, val is one in twenty (5 %) of the training images, the first in order of the hashes of their names,
and train the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotation_files import check_known, check_present
from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.listing import first_folder, read_lines
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError, unknown_name

COUNTS: dict[str, dict[str, int]] = {
    "official": {"train": 5_694, "val": 300, "test": 5_794},
    "disjoint": {"train": 8_412, "val": 443, "test": 2_933},
    "hashed": {},
}
"""Numbers of images; train and val together are the official ones. Those of `hashed` are published nowhere."""
HELD_OUT = 0.05
TEST_CLASSES = 50
LICENCE = "images: non-commercial research and education only; captions: none is stated"
DOWNLOAD = (
    "get CUB_200_2011.tgz (1.2 GB) from https://data.caltech.edu/records/65de6-vp158 and the captions,"
    " cvpr2016_cub.tar.gz, from https://github.com/reedscot/cvpr2016, unpack both into one folder, and name it with"
    " --data.root DIR (root= in Python), or have it as $ZOO_DATA/cub; zoo data"
    " prepare cub --download does all but the captions"
)
LISTS = "unpack cvpr2016_cub.tar.gz of Reed et al., which has them, or use split_rule hashed"
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"
Value = TypeVar("Value")


class Cub:
    """Birds of 200 kinds: one bird an image, with its box, ten captions and, where they are here, its outline.

    Ids name the image as `images.txt` does, not the split: the same image has the same masks under every rule.
    Samples are in the order of `images.txt`. The class map is 1 where at least half of the annotators saw the bird.

    Args:
        split: "train", "val" or "test".
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/cub` or `data/cub`.
        split_rule: "official", "disjoint" or "hashed"; see the module.

    Attributes:
        split_source: The files that the split is from.

    Raises:
        DataError: A folder or list is missing or damaged, images, captions or outlines of listed images are absent, or
            captions are of images that are not listed.
        UsageError: There is no such rule.
    """

    name: ClassVar[str] = "cub"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = COUNTS["official"]
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="images, boxes and splits",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            size=1_150_585_339,
            licence="non-commercial research and education only",
            sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            unpack_to=".",
            automatic=True,
            makes=("CUB_200_2011/images.txt", "images.txt"),
        ),
        Source(
            what="outlines of the birds (optional)",
            url="https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",
            size=39_272_883,
            licence="non-commercial research and education only",
            sha256="dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
            unpack_to=".",
            automatic=True,
            makes=("segmentations", "CUB_200_2011/segmentations"),
        ),
        Source(
            what="captions and class-disjoint splits of Reed et al.",
            url="https://drive.google.com/open?id=0B0ywwgffWnLLZW9uVHNjb2JmNlE",
            size=0,
            licence="none is stated",
            unpack_to=".",
            note="download it in a browser (linked from https://github.com/reedscot/cvpr2016)",
            saved_as="cvpr2016_cub.tar.gz",
            makes=("cvpr2016_cub/text_c10", "text_c10", "CUB_200_2011/text_c10"),
        ),
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        split_rule: str = "official",
    ) -> None:
        if split_rule not in COUNTS:
            raise unknown_name("split_rule of cub", split_rule, list(COUNTS))
        self.root = default_root("cub") if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no CUB-200-2011 folder here", where=str(self.root), remedy=DOWNLOAD)
        self.size, self.split_rule = size, split_rule
        self.official: int | None = COUNTS[split_rule].get(split)
        self.base = self.root / "CUB_200_2011" if (self.root / "CUB_200_2011").is_dir() else self.root
        texts = [place / "text_c10" for place in (self.root / "cvpr2016_cub", self.root, self.base)]
        self.texts = first_folder(texts, "the captions", DOWNLOAD)
        outlines = [place / "segmentations" for place in (self.root, self.base)]
        self.outlines = next((folder for folder in outlines if folder.is_dir()), None)
        self.shared_files = tuple(self.base / name for name in ("images.txt", "bounding_boxes.txt"))
        names = _table(self.shared_files[0], lambda values: values[0])
        self._boxes = _table(self.shared_files[1], _box)
        _check_same(self._boxes, names, self.shared_files[1])
        chosen = sorted(self._split(split, names))[:count]
        self._numbers = chosen
        self._names = [names[number].removesuffix(".jpg") for number in chosen]
        self._check_files(list(names.values()))
        self._ids = [f"cub/{name}" for name in self._names]

    def _split(self, split: str, names: Mapping[int, str]) -> list[int]:
        """The numbers of the images of a split."""
        if self.split_rule == "official":
            self.split_source: tuple[Path, ...] = (self.base / "train_test_split.txt",)
            flags = _table(self.split_source[0], lambda values: values[0] == "1")
        else:
            kinds = _table(self.base / "classes.txt", lambda values: values[0])
            labels = _table(self.base / "image_class_labels.txt", lambda values: kinds[int(values[0])])
            test, self.split_source = self._test_classes(kinds)
            flags = {number: label not in test for number, label in labels.items()}
        _check_same(flags, names, self.split_source[-1])
        self.shared_files += self.split_source
        train = [number for number, flag in flags.items() if flag]
        if split == "test":
            return [number for number, flag in flags.items() if not flag]
        held_out = sorted(train, key=lambda number: _hash(names[number]))[: max(1, round(HELD_OUT * len(train)))]
        return held_out if split == "val" else list(set(train) - set(held_out))

    def _test_classes(self, kinds: Mapping[int, str]) -> tuple[set[str], tuple[Path, ...]]:
        """The names of the test classes, and the files that say so."""
        own = (self.base / "classes.txt", self.base / "image_class_labels.txt")
        if self.split_rule == "hashed":
            return set(sorted(kinds.values(), key=_hash)[: len(kinds) * TEST_CLASSES // 200]), own
        for words in ("classes", "ids"):
            lists = [self.texts.parent / f"{part}{words}.txt" for part in ("trainval", "test")]
            if not all(path.is_file() for path in lists):
                continue
            train, test = ({_kind(line, kinds, path) for line in read_lines(path, LISTS)} for path in lists)
            if train & test or train | test != set(kinds.values()):
                raise DataError(
                    f"{lists[0].name} and {lists[1].name} do not part the {len(kinds)} classes into two",
                    where=str(self.texts.parent),
                    remedy=LISTS,
                )
            return test, (*own, *lists)
        raise DataError("the lists of the class-disjoint split are missing", str(self.texts.parent), LISTS)

    def _check_files(self, every: Sequence[str]) -> None:
        known = {name.removesuffix(".jpg") for name in every}
        check_present([f"{name}.jpg" for name in self._names], self.base / "images", "images", DOWNLOAD)
        texts = check_present([f"{name}.txt" for name in self._names], self.texts, "files of captions", DOWNLOAD)
        stems = {text.removesuffix(".txt") for text in texts if text.endswith(".txt")}
        check_known(stems, known, "captions", self.texts, DOWNLOAD)
        if self.outlines is not None:
            check_present([f"{name}.png" for name in self._names], self.outlines, "outlines", DOWNLOAD)

    @property
    def provides(self) -> frozenset[str]:
        outlined = {"segmentation"} if self.outlines is not None else set()
        return frozenset({"image", "mask", "caption", "edge"} | outlined)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("background", "bird") if self.outlines is not None else ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._names)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image at a position, its captions, and its outline where there is one."""
        name = self._names[index]
        own = (self.base / "images" / f"{name}.jpg", self.texts / f"{name}.txt")
        return own if self.outlines is None else (*own, self.outlines / f"{name}.png")

    def sample(self, index: int) -> Sample:
        """The image at a position with captions, box and outline, resized and cropped.

        Raises:
            DataError: The image, its captions or its outline cannot be read, or the outline has another size.
        """
        image = read_image(self.files(index)[0])
        placed = fit(image.shape[0], image.shape[1], self.size)
        box = np.array([self._boxes[self._numbers[index]]], np.float32)
        boxes, kept = placed.boxes(box)
        bird = self._outline(index, image.shape[:2])
        outline = None if bird is None else placed.labels(bird)
        return Sample(
            id=self._ids[index],
            image=placed.image(image),
            captions=read_captions(self.files(index)[1]),
            boxes=boxes,
            segments=None if outline is None else outline[None][kept],
            segmentation=None if outline is None else outline.astype(np.uint8),
        )

    def _outline(self, index: int, size: tuple[int, ...]) -> NDArray[np.bool_] | None:
        if self.outlines is None:
            return None
        path = self.files(index)[2]
        levels = read_image(path)[..., 0]  # grey, a fifth of 255 for each annotator
        if levels.shape != size:
            what = f"the outline is {levels.shape[1]}x{levels.shape[0]}, its image {size[1]}x{size[0]} (width x height)"
            raise DataError(what, where=str(path), remedy="use images and outlines as they are published")
        bird: NDArray[np.bool_] = levels >= 128
        return bird

    def caption_texts(self) -> Iterator[str]:
        """Every caption of every image, without reading one; see `InpaintingData.captions`."""
        for name in self._names:
            yield from read_captions(self.texts / f"{name}.txt")


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions of one image, a line each. Replacement characters, which the published files have, become blanks.

    Raises:
        DataError: The file is missing, no UTF-8, or empty.
    """
    return tuple(" ".join(line.replace("\ufffd", " ").split()) for line in read_lines(path, DOWNLOAD))


def _table(path: Path, value: Callable[[list[str]], Value]) -> dict[int, Value]:
    """A list of CUB, a number and values a line."""
    found: dict[int, Value] = {}
    for number, line in enumerate(read_lines(path, DOWNLOAD), 1):
        first, *values = line.split()
        try:
            found[int(first)] = value(values)
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(
                f"{path.name} is damaged: '{line[:60]}' ({error})", where=f"{path}, line {number}", remedy=DOWNLOAD
            ) from error
    return found


def _box(values: list[str]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in values)
    return x, y, x + width, y + height


def _check_same(found: Mapping[int, object], names: Mapping[int, str], path: Path) -> None:
    differing = sorted(found.keys() ^ names.keys())
    if differing:
        what = f"{path.name} and images.txt differ in {len(differing)} images: number {differing[0]}"
        raise DataError(what, where=str(path), remedy=DOWNLOAD)


def _kind(line: str, kinds: Mapping[int, str], path: Path) -> str:
    """The name of a class that a list gives by number or by name."""
    text = line.strip()
    name = kinds.get(int(text), "") if text.isdigit() else text
    if name not in kinds.values():
        raise DataError(f"{path.name} names a class that there is not: {text}", where=str(path), remedy=LISTS)
    return name


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode()).digest()
