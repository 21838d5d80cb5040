"""Pictures of a run: the composites of the first images of the plan and of each method's worst, as lossless PNG."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Collection, Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.store import Row, failed, write_whole
from zoo.benchmark.work import Picture

IMAGES = "images"
TRUTH = "_truth"  # a folder no method label can clash with: file names of labels start with what users type
FIRST = 16
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


class Keeper:
    """Decides which pictures of one method stay on disk: the first ones, and the worst so far.

    Args:
        folder: The run folder.
        method: The method's file name.
        first: The ids whose pictures stay whatever they look like.
        rows: What this writer has measured before: its worst ones compete with the new ones.
    """

    def __init__(self, folder: Path, method: str, first: Collection[str], rows: Iterable[Row] = ()) -> None:
        self.folder, self.method, self.first = folder, method, frozenset(first)
        self._worst: list[tuple[float, str]] = []
        for row in rows:
            if self._competes(row) and picture_path(folder, method, row["id"]).is_file():
                heapq.heappush(self._worst, (row[ORDER_BY], row["id"]))

    def keep(self, row: Row, picture: Picture | None) -> None:
        """Stores a picture if it is to stay, and drops the one that it displaces.

        Raises:
            DataError: The disk is full.
        """
        if picture is None:
            return
        if row["id"] in self.first:
            self._store(row["id"], picture)
        elif self._competes(row):
            entry = (row[ORDER_BY], row["id"])
            if entry in self._worst:
                return
            if len(self._worst) < WORST:
                heapq.heappush(self._worst, entry)
            elif entry > self._worst[0]:
                dropped = heapq.heapreplace(self._worst, entry)
                picture_path(self.folder, self.method, dropped[1]).unlink(missing_ok=True)
            else:
                return
            self._store(row["id"], picture)

    def _competes(self, row: Row) -> bool:
        return not failed(row) and row.get(ORDER_BY) is not None and row["id"] not in self.first

    def _store(self, sample: str, picture: Picture) -> None:
        write_whole(picture_path(self.folder, self.method, sample), encode_png(picture.composite))
        truth = picture_path(self.folder, TRUTH, sample)
        if not truth.is_file():
            write_whole(truth, encode_png(picture.truth))


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
