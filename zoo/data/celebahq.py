"""CelebA-HQ faces with the part masks of CelebAMask-HQ, in the layout of CelebAMask-HQ.zip.

    ROOT/CelebA-HQ-img/0.jpg .. 29999.jpg                      1024 pixels (or all in ROOT/CelebAMask-HQ, as unpacked)
    ROOT/CelebAMask-HQ-mask-anno/0/00000_skin.png ..           512 pixels, a file for each part of each face;
    ROOT/CelebAMask-HQ-mask-anno/14/29999_u_lip.png            folder N has faces 2000 N to 2000 N + 1999
    ROOT/CelebA-HQ-to-CelebA-mapping.txt                       which picture of CelebA each one is
    ROOT/list_eval_partition.txt                               CelebA's own partition (not in the archive)

Variant `official`: CelebA's partition, 24,183 train, 2,993 val, 2,824 test; it needs list_eval_partition.txt. Variant
`mminvertfill`: the first 29,000 images are train, the last 1,000 val and test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotation_files import check_present
from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image, read_mask
from zoo.data.listing import UNPACK_AGAIN, check_variant, damaged, file_names, first_folder, read_lines, tight_box
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError

CLASSES = (
    *("background", "skin", "nose", "eyeglasses", "eyes", "eyebrows", "ears", "mouth", "upper lip", "lower lip"),
    *("hair", "hat", "earrings", "necklace", "neck", "cloth"),
)
# Parts in the order of the dataset's own script: where two overlap, the later is on top.
PARTS: dict[str, str] = {
    "skin": "skin",
    "nose": "nose",
    "eye_g": "eyeglasses",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "l_brow": "eyebrows",
    "r_brow": "eyebrows",
    "l_ear": "ears",
    "r_ear": "ears",
    "mouth": "mouth",
    "u_lip": "upper lip",
    "l_lip": "lower lip",
    "hair": "hair",
    "hat": "hat",
    "ear_r": "earrings",
    "neck_l": "necklace",
    "neck": "neck",
    "cloth": "cloth",
}
PARTITION = {"train": "0", "val": "1", "test": "2"}
FIRST_OF_TEST = 29_000  # of variant `mminvertfill`
FACES_IN_FOLDER = 2000
OFFICIAL = {
    "official": {"train": 24_183, "val": 2_993, "test": 2_824},
    "mminvertfill": {"train": FIRST_OF_TEST, "val": 1_000, "test": 1_000},
}
LICENCE = "CelebA and CelebAMask-HQ: non-commercial research only, no redistribution"
DOWNLOAD = (
    "get CelebAMask-HQ.zip (3.2 GB) from https://github.com/switchablenorms/CelebAMask-HQ and list_eval_partition.txt"
    " from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (folder Eval), put both into one folder, unpack the"
    " archive there, and name the folder with --data.root DIR (root= in Python), or have it as $ZOO_DATA/celebahq"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class CelebAHQ:
    """Faces with a map of 16 classes, and a segment with its box for each part.

    The 18 parts and the background of CelebAMask-HQ become `CLASSES`: left and right eyes, eyebrows and ears are one
    class each. (The zoo's specification of MMInvertFill speaks of 15: those without the background.) Segments keep
    left and right apart; a part whose mask is empty has none. Samples are in order of their number.

    Args:
        split: "train", "val" or "test".
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/celebahq` or `data/celebahq`.
        variant: "official" or "mminvertfill": how images are parted into splits, see the module.

    Raises:
        DataError: A folder or list is missing or damaged, an image that is listed is absent or has no part, or a part
            is of an unknown kind or of an image that is not listed.
        UsageError: An unknown variant.
    """

    name: ClassVar[str] = "celebahq"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = OFFICIAL["official"]
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="images, part masks and the mapping",
            url="https://drive.google.com/open?id=1badu11NqxGf6qM3PTTooQDJvQbejgbTv",
            size=3_150_000_000,
            licence=LICENCE,
            unpack_to=".",
            note="download it in a browser into the root, by which you agree to its terms; zoo data prepare unpacks it",
            saved_as="CelebAMask-HQ.zip",
            makes=("CelebAMask-HQ/CelebA-HQ-img", "CelebA-HQ-img"),
        ),
        Source(
            what="CelebA's partition",
            url="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            size=2_800_000,
            licence="CelebA: non-commercial research only, no redistribution",
            sha256="fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
            note="download it in a browser (folder Eval) into the root; variant mminvertfill does without",
            saved_as="list_eval_partition.txt",
            makes=("list_eval_partition.txt", "CelebAMask-HQ/list_eval_partition.txt"),
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
            raise DataError("there is no CelebA-HQ folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.variant = check_variant(self.name, variant, OFFICIAL)
        bases = (self.root, self.root / "CelebAMask-HQ")
        self.folder = first_folder([base / "CelebA-HQ-img" for base in bases], "the images", DOWNLOAD)
        self.base = self.folder.parent
        mapping_file = self.base / "CelebA-HQ-to-CelebA-mapping.txt"
        self.shared_files: tuple[Path, ...] = (mapping_file,)
        mapping = _mapping(mapping_file)
        self.part, numbers = self._choose(mapping)
        self.numbers = numbers[:count]
        check_present([f"{n}.jpg" for n in self.numbers], self.folder, "images", UNPACK_AGAIN)
        annotations = first_folder([self.base / "CelebAMask-HQ-mask-anno"], "the part masks", DOWNLOAD)
        self.annotations = annotations
        self._parts = _parts(self.numbers, annotations, mapping)
        self._ids = [f"{self.name}/{self.part}/{n}" for n in self.numbers]

    def _choose(self, mapping: Mapping[int, str]) -> tuple[str, list[int]]:
        """The split's part of the ids, and its images."""
        if self.variant == "mminvertfill":
            first = self.split == "train"
            chosen = [n for n in mapping if (n < FIRST_OF_TEST) == first]
            part, why = ("first29000", "numbers below 29000") if first else ("last1000", "numbers from 29000")
        else:
            lists = (self.root / "list_eval_partition.txt", self.base / "list_eval_partition.txt")
            path = next((path for path in lists if path.is_file()), lists[0])
            partition = _partition(path, mapping)
            self.shared_files += (path,)
            chosen = [n for n, file in mapping.items() if partition[file] == PARTITION[self.split]]
            part, why = self.split, f"partition {PARTITION[self.split]} of {path.name}"
        if not chosen:
            raise DataError(f"the mapping lists no image of split '{self.split}' ({why})", str(self.base), DOWNLOAD)
        return part, sorted(chosen)

    @classmethod
    def sources_for(cls, variant: str | None = None, **_: Any) -> tuple[Source, ...]:
        """The downloads that a variant needs; None is the default."""
        return cls.sources[: 1 if variant == "mminvertfill" else 2]

    @property
    def official(self) -> int | None:
        """How many images this split holds, published or by the variant's rule."""
        return OFFICIAL[self.variant][self.split]

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
        return len(self.numbers)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image at a position and its part masks."""
        number = self.numbers[index]
        return (self.folder / f"{number}.jpg", *(self._path(number, part) for part in self._parts[index]))

    def sample(self, index: int) -> Sample:
        """The face at a position with its parts, resized and cropped.

        Raises:
            DataError: The image or a part mask cannot be read, or they are of sizes that do not belong together.
        """
        number = self.numbers[index]
        image = read_image(self.folder / f"{number}.jpg")
        height, width = image.shape[:2]
        regions = {part: self._region(number, part, (height, width)) for part in self._parts[index]}
        classes = np.zeros((height // 2, width // 2), np.uint8)
        for part, region in regions.items():
            classes[region] = CLASSES.index(PARTS[part])
        placed = fit(height, width, self.size)
        halved = replace(placed, height=height // 2, width=width // 2)  # part masks have half the image's sides
        boxes, kept = halved.boxes(np.array([tight_box(region) for region in regions.values()], np.float32))
        return Sample(
            id=self._ids[index],
            image=placed.image(image),
            boxes=boxes,
            segments=halved.labels(np.stack(list(regions.values())))[kept],
            segmentation=halved.labels(classes),
        )

    def _path(self, number: int, part: str) -> Path:
        return self.annotations / str(number // FACES_IN_FOLDER) / f"{number:05d}_{part}.png"

    def _region(self, number: int, part: str, size: tuple[int, int]) -> NDArray[np.bool_]:
        path = self._path(number, part)
        # Any level but 0 is the part, as the dataset's own script reads it.
        region = read_mask(path, threshold=1, invert=False).astype(np.bool_)
        if (region.shape[0] * 2, region.shape[1] * 2) != size:
            raise DataError(
                f"the part mask is {region.shape[1]}x{region.shape[0]}, its image {size[1]}x{size[0]}, not twice that",
                where=str(path),
                remedy="use images and part masks as they are published (1024 and 512 pixels), not resized ones",
            )
        return region


def _mapping(path: Path) -> dict[int, str]:
    """Image number to file name in CelebA."""
    found: dict[int, str] = {}
    for line, row in enumerate((line.split() for line in read_lines(path, DOWNLOAD)), 1):
        if line == 1 and row == ["idx", "orig_idx", "orig_file"]:
            continue
        if len(row) != 3 or not row[0].isdigit() or not row[2].endswith(".jpg"):
            raise damaged(path, f"line {line} is not 'idx orig_idx orig_file': {' '.join(row)[:60]}")
        if int(row[0]) in found:
            raise damaged(path, f"it lists image {row[0]} twice")
        found[int(row[0])] = row[2]
    if not found:
        raise damaged(path, "it lists no image")
    return found


def _partition(path: Path, mapping: Mapping[int, str]) -> dict[str, str]:
    """File name in CelebA to "0", "1" or "2"."""
    fallback = f"{DOWNLOAD}; or choose the split of the first 29,000: --data.variant mminvertfill"
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, fallback), 1):
        row = line.split()
        if len(row) != 2 or row[1] not in PARTITION.values():
            raise damaged(path, f"line {number} is not 'FILE 0', 1 or 2: {line[:60]}")
        found[row[0]] = row[1]
    unknown = [file for file in mapping.values() if file not in found]
    if unknown:
        raise damaged(path, f"it lacks {len(unknown)} images of the mapping: {', '.join(unknown[:3])}")
    return found


def _parts(numbers: Sequence[int], annotations: Path, listed: Mapping[int, str]) -> list[tuple[str, ...]]:
    """The parts of each image, in the order of `PARTS`."""
    found: dict[int, set[str]] = {}
    for folder in sorted({number // FACES_IN_FOLDER for number in numbers}):
        place = first_folder([annotations / str(folder)], "part masks", DOWNLOAD)
        for file in file_names(place):
            if not file.endswith(".png"):
                continue
            match = re.fullmatch(r"(\d{5})_(\w+)\.png", file)
            if match is None or match[2] not in PARTS:
                raise DataError(f"'{file}' is no part of CelebAMask-HQ", str(place), f"parts: {', '.join(PARTS)}")
            number = int(match[1])
            if number not in listed or number // FACES_IN_FOLDER != folder:
                raise DataError(
                    f"'{file}' is of an image that is not listed, or belongs into another folder", str(place), DOWNLOAD
                )
            found.setdefault(number, set()).add(match[2])
    bare = [number for number in numbers if number not in found]
    if bare:
        raise DataError(
            f"{len(bare)} images have no part mask: {', '.join(map(str, bare[:3]))}", str(annotations), DOWNLOAD
        )
    order = {frozenset(parts): tuple(p for p in PARTS if p in parts) for parts in found.values()}  # few differ: shared
    return [order[frozenset(found[number])] for number in numbers]
