"""Reading of images: decode and resize against plain Pillow, the cache on disk and shards against live decoding.

Photographs of scikit-image as JPEG files of 640 x 480 pixels, quality 90, to 256 pixels. Times are processor time of
one process on one thread, the two sides of a row in turn: images per second are those of one core, whatever else runs.
The plain side is what most loaders do: Image.open, convert to RGB, resize by antialiased bicubic, crop the centre.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.base import Dataset, ObjectRule, Sample
from zoo.data.disk_cache import DiskCache, cache_folder
from zoo.data.image import decode_image, read_image
from zoo.data.loader import TrainingLoader
from zoo.data.masked import TrainingSet
from zoo.data.shard_writer import write_shards
from zoo.data.shards import Shards
from zoo.data.transforms import fit

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SOURCE = (640, 480)
QUALITY = 90
SIZE = 256
IMAGES = 32
ROUNDS = 15
BATCH = 16
TARGET_DECODE, TARGET_CACHE = 2.0, 8.0

Pixels = NDArray[np.uint8]


class Photographs:
    """JPEG files of a folder, read as the project reads them, or in the plain way."""

    name: ClassVar[str] = "photographs"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "CC0 and public domain"
    provides = frozenset({"image", "mask", "edge"})
    classes = ()
    shared_files: tuple[Path, ...] = ()

    def __init__(self, root: Path, plain: bool = False) -> None:
        self.root, self.plain = root, plain
        self.paths = sorted(root.glob("*.jpg"))
        self.ids = [f"photographs/all/{path.stem}" for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def files(self, index: int) -> tuple[Path, ...]:
        return (self.paths[index],)

    def sample(self, index: int) -> Sample:
        path = self.paths[index]
        return Sample(id=self.ids[index], image=plain_image(path) if self.plain else our_image(path))


def our_image(path: Path) -> Pixels:
    """A file at SIZE pixels, as datasets read it."""
    image = read_image(path)
    return fit(image.shape[0], image.shape[1], SIZE).image(image)


def plain_image(path: Path) -> Pixels:
    """The same by Pillow alone."""
    picture = Image.open(path).convert("RGB")
    placed = fit(picture.height, picture.width, SIZE)
    picture = picture.resize(placed.scaled[::-1], Image.Resampling.BICUBIC)
    box = (placed.left, placed.top, placed.left + SIZE, placed.top + SIZE)
    return np.asarray(picture.crop(box))


def write_photographs(root: Path) -> None:
    """Writes IMAGES parts of the photographs, each of another place, at the size and quality of COCO's files."""
    import skimage.data

    rng = np.random.default_rng(0)
    width, height = SOURCE
    for number in range(IMAGES):
        whole = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())
        scale = min(whole.width / width, whole.height / height) * rng.uniform(0.7, 1.0)
        left = rng.uniform(0, whole.width - width * scale)
        top = rng.uniform(0, whole.height - height * scale)
        box = (left, top, left + width * scale, top + height * scale)
        part = whole.resize(SOURCE, Image.Resampling.LANCZOS, box=box)
        part.save(root / f"{number:03d}.jpg", quality=QUALITY)


def in_turn(ours: Callable[[], object], plain: Callable[[], object], images: int) -> tuple[float, float]:
    """Median milliseconds of processor time an image of both sides, after one warm-up, in ROUNDS rounds."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS + 1):
        for side, work in zip(seconds, (ours, plain), strict=True):
            start = time.process_time()
            work()
            if number > 0:
                side.append(time.process_time() - start)
    return 1000 * statistics.median(seconds[0]) / images, 1000 * statistics.median(seconds[1]) / images


def each(items: Sequence[Any], work: Callable[[Any], object]) -> Callable[[], None]:
    """Does the work on every item and drops the result at once, as a loader does: fresh memory would cost as much."""

    def run() -> None:
        for item in items:
            work(item)

    return run


def row(
    name: str, ours: Callable[[], object], plain: Callable[[], object], images: int, target: float | None = None
) -> dict[str, Any]:
    """One line of the table; `target` is the least ratio of plain to ours."""
    ours_ms, plain_ms = in_turn(ours, plain, images)
    return {
        "name": name,
        "ours_ms": ours_ms,
        "plain_ms": plain_ms,
        "ratio": plain_ms / ours_ms,
        "target": target,
        "images_per_second_per_core": 1000 / ours_ms,
    }


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with the photographs."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photographs"
        root.mkdir()
        write_photographs(root)
        yield root


def largest_difference(root: Path) -> dict[str, Any]:
    """How far our images are from plain Pillow's, in grey levels: the largest, and how many values differ at all."""
    pairs = [(our_image(path).astype(int), plain_image(path).astype(int)) for path in sorted(root.glob("*.jpg"))]
    differences = np.stack([np.abs(ours - plain) for ours, plain in pairs])
    return {"largest_difference": int(differences.max()), "share_that_differs": float((differences > 0).mean())}


def measure() -> list[dict[str, Any]]:
    """Decode, resize, both; the cache and shards against live decoding; whole loaders."""
    with folder() as root:
        return [*_pictures(root), *_samples(root), *_loaders(root)]


def _pictures(root: Path) -> list[dict[str, Any]]:
    paths = sorted(root.glob("*.jpg"))
    files = [path.read_bytes() for path in paths]
    pictures = [read_image(path) for path in paths]
    placed = fit(SOURCE[1], SOURCE[0], SIZE)

    def plain_resize(picture: Pixels) -> Pixels:
        resized = Image.fromarray(picture).resize(placed.scaled[::-1], Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(resized)[placed.top :, placed.left : placed.left + SIZE])

    decode = row(
        "decode a JPEG of 640x480, quality 90",
        each(files, lambda file: decode_image(io.BytesIO(file), "speed")),
        each(files, lambda file: np.array(Image.open(io.BytesIO(file)).convert("RGB"))),
        IMAGES,
    )
    resize = row(
        "resize 640x480 to 256 and crop",
        each(pictures, placed.image),
        each(pictures, plain_resize),
        IMAGES,
    )
    both = row(
        "file to 256 pixels: decode, resize, crop",
        each(paths, our_image),
        each(paths, plain_image),
        IMAGES,
        TARGET_DECODE,
    )
    return [decode, resize, both | largest_difference(root)]


def _samples(root: Path) -> list[dict[str, Any]]:
    live, positions = Photographs(root), range(IMAGES)
    place = cache_folder(live, root.parent / "cache", SIZE)
    _read(DiskCache(live, place), positions)
    cached = DiskCache(live, place)
    write_shards(live, root.parent / "shards", split="train", size=SIZE)
    shards = Shards("train", SIZE, root=root.parent / "shards")
    return [
        row(
            "cache on disk, against live decoding",
            lambda: _read(cached, positions),
            lambda: _read(live, positions),
            IMAGES,
            TARGET_CACHE,
        ),
        row(
            "the same, first read in a process, with its hash",
            lambda: _read(DiskCache(live, place), positions),
            lambda: _read(live, positions),
            IMAGES,
        ),
        row(
            "sample of a shard on disk, against live decoding",
            lambda: _read(shards, positions),
            lambda: _read(live, positions),
            IMAGES,
        ),
    ]


def _loaders(root: Path) -> list[dict[str, Any]]:
    """Whole loaders, with masks and batches: one epoch each, read in this process."""
    live: Dataset = Photographs(root)
    plain: Dataset = Photographs(root, plain=True)
    disk = DiskCache(live, cache_folder(live, root.parent / "cache", SIZE))

    def epoch(dataset: Dataset, cache_mb: float = 0.0, disk: DiskCache | None = None) -> Callable[[], object]:
        loader = TrainingLoader(TrainingSet(dataset, "freeform,center", 0, cache_mb, disk), BATCH)
        return lambda: sum(len(batch["id"]) for batch in loader)

    decoding = epoch(live)
    return [
        row("loader, live decoding, against one by plain Pillow", decoding, epoch(plain), IMAGES),
        row("loader, cache on disk, against live decoding", epoch(live, disk=disk), decoding, IMAGES),
        row("loader, all in memory, against live decoding", epoch(live, cache_mb=1000.0), decoding, IMAGES),
    ]


def _read(source: Dataset | DiskCache, positions: Sequence[int]) -> None:
    for position in positions:
        # Every byte is looked at: a view of a mapped file costs nothing until then.
        int(source.sample(position).image[:, :, 0].max())
