"""Pictures of a run: composites of the same images for every method, and of each method's worst, as lossless PNG.

For every method the composites of the first images of the plan are kept, and of as many more as take little room: of
small images all, so that a page can show what every method makes of the worst. Which ones is drawn by a hash of their
ids, so that all methods and writers keep those of the same images without a word between them.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.store import Row, failed, write_whole
from zoo.benchmark.work import Picture
from zoo.keyed import key

IMAGES = "images"
TRUTH = "_truth"  # a folder no method label can clash with: file names of labels start with what users type
FIRST = 16
DRAWN = 112  # at least
ROOM = 8_000_000  # bytes of a method's pictures, uncompressed; more only for `DRAWN`
WORST = 8
ORDER_BY = "l1_hole"


def picture_path(folder: Path, method: str, sample: str) -> Path:
    """Where the picture of an image lies: `RUN/images/<method>/<id>.png`.

    Ids become file names by replacing what is not a letter, a digit, a dot or a hyphen; where more than slashes had to
    be replaced a hash keeps two ids apart.
    """
    name = re.sub(r"[^A-Za-z0-9.-]", "_", sample)
    if re.search(r"[^A-Za-z0-9./-]", sample) or len(name) > 100:
        name = f"{name[-100:]}-{hashlib.blake2b(sample.encode(), digest_size=6).hexdigest()}"
    return Path(folder) / IMAGES / method / f"{name}.png"


def lot(sample: str) -> int:
    """The lot of an image: those of the smallest lots are kept."""
    return key("gallery", sample)


def drawn(size: int) -> int:
    """How many pictures a method keeps besides the first ones and its worst; 635 of 64 pixels, 112 above 148.

    Args:
        size: Their height and width.
    """
    return max(DRAWN, ROOM // (3 * size * size) - FIRST)


def kept_ids(ids: Sequence[str], size: int) -> list[str]:
    """The ids whose pictures every method keeps, where it completed them.

    Args:
        ids: All images of a plan, in its order.
        size: Their height and width.

    Returns:
        The first `FIRST`, then `drawn(size)` others by their lots.
    """
    return [*ids[:FIRST], *heapq.nsmallest(drawn(size), ids[FIRST:], key=lambda sample: (lot(sample), sample))]


class _Largest:
    """The largest entries that have been offered, `size` at most."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[tuple[Any, str]] = []

    def offer(self, order: Any, sample: str) -> str | None:
        """Takes an entry in where it belongs; gives the id that is not, or no longer, among the largest."""
        entry = (order, sample)
        if entry in self.entries:
            return None
        if len(self.entries) < self.size:
            heapq.heappush(self.entries, entry)
            return None
        return heapq.heappushpop(self.entries, entry)[1]

    def __contains__(self, sample: str) -> bool:
        return any(sample == held for _, held in self.entries)


class Keeper:
    """Decides which pictures of one method stay on disk: the first ones, those drawn, and the worst so far.

    Args:
        folder: The run folder.
        method: The method's file name.
        first: The ids whose pictures stay whatever they look like.
        size: Height and width of the pictures.
        rows: What this writer has measured before: the pictures that it kept compete with the new ones.
    """

    def __init__(self, folder: Path, method: str, first: Collection[str], size: int, rows: Iterable[Row] = ()) -> None:
        self.folder, self.method, self.first = folder, method, frozenset(first)
        self._drawn, self._worst = _Largest(drawn(size)), _Largest(WORST)
        for row in rows:
            if not failed(row) and picture_path(folder, method, row["id"]).is_file():
                self._offer(row)

    def keep(self, row: Row, picture: Picture | None) -> None:
        """Stores a picture if it is to stay, and drops what it displaces.

        Raises:
            DataError: The disk is full.
        """
        if picture is None:
            return
        displaced = self._offer(row)
        if self._holds(row["id"]):
            self._store(row["id"], picture)
        for sample in displaced:
            if sample != row["id"] and not self._holds(sample):
                self._drop(sample)

    def _offer(self, row: Row) -> set[str]:
        sample = row["id"]
        if sample in self.first:
            return set()
        out = {self._drawn.offer(-lot(sample), sample)}
        if row.get(ORDER_BY) is not None:
            out.add(self._worst.offer(row[ORDER_BY], sample))
        return {displaced for displaced in out if displaced is not None}

    def _holds(self, sample: str) -> bool:
        return sample in self.first or sample in self._drawn or sample in self._worst

    def _store(self, sample: str, picture: Picture) -> None:
        write_whole(picture_path(self.folder, self.method, sample), encode_png(picture.composite))
        truth = picture_path(self.folder, TRUTH, sample)
        if not truth.is_file():
            write_whole(truth, encode_png(picture.truth))

    def _drop(self, sample: str) -> None:
        """Removes a picture, and the truth where no method shows this image any more."""
        picture_path(self.folder, self.method, sample).unlink(missing_ok=True)
        truth = picture_path(self.folder, TRUTH, sample)
        if not self._shown(truth.name):
            with suppress(FileNotFoundError):
                content = truth.read_bytes()
                truth.unlink()
                if self._shown(truth.name):  # since: another process counts on the truth that it saw
                    write_whole(truth, content)

    def _shown(self, name: str) -> bool:
        """Whether any method's picture of an image is there."""
        methods = (place for place in (self.folder / IMAGES).iterdir() if place.name != TRUTH)
        return any((place / name).is_file() for place in methods)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """An H x W x 3 uint8 image as PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def read_picture(folder: Path, method: str, sample: str) -> NDArray[np.uint8] | None:
    """A stored picture, H x W x 3 uint8, or None where none was kept (or it cannot be read)."""
    from PIL import Image

    try:
        with Image.open(picture_path(folder, method, sample)) as file:
            return np.asarray(file.convert("RGB"))
    except OSError:
        return None
