"""Open Images with localized narratives as captions, and boxes: a fixed list of 1,500 images.

    ROOT/validation/0001eeaf4aed83f9.jpg ..                  (or ROOT/images/validation)
    ROOT/open_images_validation_captions.jsonl               or open_images_validation_localized_narratives.jsonl
    ROOT/validation-annotations-bbox.csv
    ROOT/test/ ...                                           the same with "test" for `part: test`

Splits, each of one `part` of Open Images, validation or test: its images with a narrative are put in order of the
blake2b hashes of their ids. The first 1,500 are the test split, the next 1,500 val, all others train. So the list is a
rule that anyone can apply to the published captions; `list_sha256` says which list it came to. An `ids_file` (an id a
line) takes its place.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.annotation_files import check_present
from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.index import FOLDER
from zoo.data.listing import first_folder, read_lines
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError, unknown_name

LENGTH = 1_500
"""Images of the test split, as many as ECDM's evaluation has, and of val."""
IMAGES = {"validation": 41_620, "test": 125_436}
"""Images with a narrative; every image of these two parts has one."""
DOWNLOAD = (
    "get the captions from https://google.github.io/localized-narratives, the boxes and the images (validation.tar.gz,"
    " 12 GB) from https://storage.googleapis.com/openimages/web/download_v7.html, put them into one folder, and name it"
    " with --data.root DIR (root= in Python), or have it as $ZOO_DATA/openimages; zoo data prepare openimages"
    " --download does so, or says how to get the 1,500 alone"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"
COLUMNS = ("ImageID", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")
DOWNLOADER = "https://raw.githubusercontent.com/openimages/dataset/master/downloader.py"
_NARRATIVES = "https://storage.googleapis.com/localized-narratives/annotations"
_BOXES = "https://storage.googleapis.com/openimages/v5"
_IMAGES = "https://open-images-dataset.s3.amazonaws.com/tar"


def _sources(part: str, captions: int, boxes: int, images: int) -> tuple[Source, ...]:
    names = (f"open_images_{part}_captions.jsonl", f"{part}-annotations-bbox.csv", f"{part}.tar.gz")
    return (
        Source(
            what=f"localized narratives of the {part} images",
            url=f"{_NARRATIVES}/{names[0]}",
            size=captions,
            licence="CC BY 4.0",
            automatic=True,
            makes=(names[0], f"open_images_{part}_localized_narratives.jsonl"),
        ),
        Source(
            what=f"boxes of the {part} images",
            url=f"{_BOXES}/{names[1]}",
            size=boxes,
            licence="CC BY 4.0",
            automatic=True,
            makes=(names[1],),
        ),
        Source(
            what=f"all {part} images",
            url=f"{_IMAGES}/{names[2]}",
            size=images,
            licence="listed as CC BY 2.0; each photographer's terms hold",
            unpack_to=".",
            automatic=True,
            makes=(part, f"images/{part}"),
        ),
    )


SOURCES = {
    "validation": _sources("validation", 10_100_000, 25_000_000, 12_000_000_000),
    "test": _sources("test", 31_100_000, 77_000_000, 36_000_000_000),
}


class OpenImages:
    """Photographs with long spoken descriptions, and boxes of their objects.

    Boxes around a group of things are no objects and are dropped. Samples are in order of the hashes of their ids, so
    the first few are a fair choice of the list.

    Args:
        split: "train", "val" or "test".
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/openimages` or `data/openimages`.
        part: "validation" or "test": which images of Open Images.
        ids_file: A text file of ids, one a line, in place of the rule.

    Attributes:
        list_sha256: The hash of the list of the whole split, ids joined by line ends.

    Raises:
        DataError: A folder or file is missing or damaged, images of the list are absent, or an id of `ids_file` has no
            narrative.
        UsageError: There is no such part.
    """

    name: ClassVar[str] = "openimages"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "annotations and narratives CC BY 4.0; images listed as CC BY 2.0"
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = {"train": IMAGES["validation"] - 2 * LENGTH, "val": LENGTH, "test": LENGTH}
    sources: ClassVar[tuple[Source, ...]] = (*SOURCES["validation"], *SOURCES["test"])

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        part: str = "validation",
        ids_file: str | Path | None = None,
    ) -> None:
        if part not in IMAGES:
            raise unknown_name("part of openimages", part, list(IMAGES))
        self.root = default_root("openimages") if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no Open Images folder here", where=str(self.root), remedy=DOWNLOAD)
        self.size, self.part = size, part
        spoken = narratives_file(self.root, part)
        boxes = self.root / f"{part}-annotations-bbox.csv"
        self.shared_files: tuple[Path, ...] = (spoken, boxes)
        narratives = read_narratives(spoken)
        if ids_file is None:
            listed = listed_ids(narratives, split)
            others = IMAGES[part] - 2 * LENGTH
            self.official: int | None = others if split == "train" else LENGTH
        else:
            listed, self.official = _given_ids(Path(ids_file), narratives), None
            self.shared_files += (Path(ids_file),)
        if not listed:
            what = f"no image is left for the split '{split}': {len(narratives)} have a narrative"
            raise DataError(what, where=str(spoken), remedy=DOWNLOAD)
        self.list_sha256 = hashlib.sha256("\n".join(listed).encode()).hexdigest()
        self._stems = listed[:count]
        self._captions = {stem: narratives[stem] for stem in self._stems}
        self.folder = first_folder((self.root / part, self.root / "images" / part), "the images", DOWNLOAD)
        check_present([f"{stem}.jpg" for stem in self._stems], self.folder, "images", DOWNLOAD)
        self._boxes = read_boxes(boxes, set(self._stems))
        self._ids = [f"openimages/{part}/{stem}" for stem in self._stems]

    @classmethod
    def sources_for(cls, part: str = "validation", **_: Any) -> tuple[Source, ...]:
        """The downloads that a part needs."""
        return SOURCES.get(part, cls.sources)

    @classmethod
    def instructions(cls, root: Path, part: str = "validation", **_: Any) -> str:
        """How to get the images of the test split alone, 0.5 GB instead of 12: writes their list for the downloader.

        Returns:
            A text; empty where there are no narratives yet, from which the list is made.
        """
        spoken = narratives_file(root, part)
        if not spoken.is_file():
            return ""
        path = root / FOLDER / f"{part}-{LENGTH}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = listed_ids(read_narratives(spoken), "test")
        path.write_text("".join(f"{part}/{image}\n" for image in ids), encoding="utf-8")
        return (
            f"to get the {len(ids):,} images of the test split alone, take downloader.py from {DOWNLOADER} and run\n"
            f"  python downloader.py {path} --download_folder={root / part}"
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
        """The image file at a position."""
        return (self.folder / f"{self._stems[index]}.jpg",)

    def sample(self, index: int) -> Sample:
        """The image at a position with its narratives and boxes, resized and cropped.

        Raises:
            DataError: The image cannot be read.
        """
        stem = self._stems[index]
        image = read_image(self.folder / f"{stem}.jpg")
        height, width = image.shape[:2]
        placed = fit(height, width, self.size)
        shares = self._boxes.get(stem, np.zeros((0, 4), np.float32))
        boxes, _ = placed.boxes(shares * np.array([width, height, width, height], np.float32))
        return Sample(id=self._ids[index], image=placed.image(image), captions=self._captions[stem], boxes=boxes)

    def caption_texts(self) -> Iterator[str]:
        """Every narrative of every image, without reading one; see `InpaintingData.captions`."""
        for stem in self._stems:
            yield from self._captions[stem]


def narratives_file(root: Path, part: str) -> Path:
    """The file of the narratives: captions alone, else those with voice and trace, which hold the same captions."""
    files = [root / f"open_images_{part}_{kind}.jsonl" for kind in ("captions", "localized_narratives")]
    return next((path for path in files if path.is_file()), files[0])


def listed_ids(ids: Mapping[str, Any] | Sequence[str], split: str) -> list[str]:
    """The images of a split, in order of the hashes of their ids.

    Args:
        ids: The ids of every image with a narrative.
        split: "test" for the first 1,500, "val" for the next 1,500, "train" for all others.
    """
    order = sorted(ids, key=lambda image: hashlib.blake2b(image.encode()).digest())
    place = {"test": slice(LENGTH), "val": slice(LENGTH, 2 * LENGTH), "train": slice(2 * LENGTH, None)}[split]
    return order[place]


def read_narratives(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of a file of narratives by image id, in order of the file.

    Raises:
        DataError: The file is missing, or a line is no narrative of Open Images.
    """
    if not path.is_file():
        raise DataError(f"{path.name} is missing", where=str(path.parent), remedy=DOWNLOAD)
    found: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                image, text = str(entry["image_id"]), str(entry["caption"]).strip()
                if not re.fullmatch("[0-9a-f]{16}", image) or not text:
                    raise ValueError(f"'{image}' with the caption '{text[:40]}'")
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"this line is no narrative of an Open Images image: {error}",
                    where=f"{path}, line {number}",
                    remedy="download the file again",
                ) from error
            found[image] = (*found.get(image, ()), text)
    return found


def read_boxes(path: Path, wanted: set[str]) -> dict[str, NDArray[np.float32]]:
    """The boxes of some images by id, N x 4, x0 y0 x1 y1 as shares of width and height, without those of groups.

    Raises:
        DataError: The file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path.name} is missing", where=str(path.parent), remedy=DOWNLOAD)
    found: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            header = next(rows)
            image, x0, x1, y0, y1, group = (header.index(column) for column in COLUMNS)
            for row in rows:
                if row[image] in wanted and row[group] != "1":
                    found.setdefault(row[image], []).append([float(row[i]) for i in (x0, y0, x1, y1)])
        except (StopIteration, ValueError, IndexError, csv.Error) as error:
            raise DataError(
                f"{path.name} is damaged: {error}", where=f"{path}, line {rows.line_num}", remedy="download it again"
            ) from error
    return {stem: np.array(boxes, np.float32) for stem, boxes in found.items()}


def _given_ids(path: Path, narratives: Mapping[str, Any]) -> list[str]:
    ids = [line.strip() for line in read_lines(path, "give a text file with one id a line")]
    unknown = [image for image in ids if image not in narratives]
    if unknown or len(set(ids)) < len(ids):
        what = f"{len(unknown)} ids have no narrative: {', '.join(unknown[:3])}" if unknown else "an id is there twice"
        raise DataError(what, where=str(path), remedy="list ids of this part's narratives, each once")
    return ids
