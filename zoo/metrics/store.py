"""Features of images on disk, by id: taken once, and read by every metric that wants them.

`FOLDER/<extractor>/<set>/<hash>.safetensors`: a file per block, written whole or not at all, which says in its header
which extractor and weights made it, of which images and of which pixels. Processes write side by side and need no word
between them; a file is named by its ids, so that the same block written twice is one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError

_KEY = "zoo"
_FORMAT = "inpainting-zoo-features/1"


@dataclass(frozen=True)
class Extractor:
    """What features are made by.

    Attributes:
        name: The name of its folder: `inception_tf`.
        fingerprint: Changes with the weights, the way images are prepared and the library's version.
        width: Numbers per image.
    """

    name: str
    fingerprint: str
    width: int


class Stored(NamedTuple):
    """Features of a set, ordered by id.

    Attributes:
        ids: N ids.
        values: N x D float32.
        digests: N hashes of the pixels they were taken of (`pixel_digest`).
    """

    ids: list[str]
    values: NDArray[np.float32]
    digests: list[str]


def pixel_digest(image: Tensor) -> str:
    """A short hash of the pixels of one image, 3 H W uint8: the `image_hash` of a row."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()


class FeatureStore:
    """Features of one extractor, in named sets: `truth`, and one for each method and mask.

    Args:
        folder: Where the sets are, made when the first block is written.
        extractor: What makes the features.
    """

    def __init__(self, folder: str | Path, extractor: Extractor) -> None:
        self.folder, self.extractor = Path(folder) / extractor.name, extractor

    def append(self, part: str, ids: Sequence[str], values: NDArray[np.float32], digests: Sequence[str]) -> Path:
        """Writes a block of a set.

        Args:
            part: The set.
            ids: N ids, none twice.
            values: N x D, finite.
            digests: N hashes of pixels.

        Raises:
            DataError: The numbers do not fit, an id comes twice, or a value is not finite.
            OSError: The disk is full; nothing of the block is left.
        """
        from safetensors.numpy import save

        values = np.ascontiguousarray(values, np.float32)
        if values.shape != (len(ids), self.extractor.width) or len(digests) != len(ids) or not ids:
            raise DataError(
                f"{len(ids)} ids and {len(digests)} hashes for features of shape {values.shape}", str(self.folder)
            )
        if len(set(ids)) != len(ids):
            raise DataError("an id comes twice in a block of features", str(self.folder))
        if not np.isfinite(values).all():
            raise DataError("features are not finite; the network's weights are damaged", str(self.folder))
        about = {
            "format": _FORMAT,
            "extractor": self.extractor.name,
            "fingerprint": self.extractor.fingerprint,
            "ids": list(ids),
            "digests": list(digests),
        }
        content = save({"features": values}, metadata={_KEY: json.dumps(about)})
        path = self._path(part, ids)
        _write(path, content)
        return path

    def block(self, part: str, ids: Sequence[str]) -> Stored | None:
        """A block as it was appended with these ids, in their order; None where there is none.

        Raises:
            DataError: A damaged file, or one of another extractor or weights.
        """
        path = self._path(part, ids)
        if not path.is_file():
            return None
        rows = list(self._rows(path))
        if [sample for sample, _, _ in rows] != list(ids):
            raise DataError("this block of features is of other images than its name says", str(path), _AGAIN)
        return Stored(list(ids), np.stack([row for _, row, _ in rows]), [digest for _, _, digest in rows])

    def known(self, part: str) -> dict[str, str]:
        """The ids of a set with the hashes of their pixels, without reading the features.

        Raises:
            DataError: A damaged file, or one of another extractor or weights.
        """
        return {i: d for path in self._files(part) for i, d in self._header(path).items()}

    def missing(self, part: str, wanted: Mapping[str, str]) -> list[str]:
        """The ids of which no features are there, in order.

        Args:
            part: The set.
            wanted: The hash of the pixels of each id.

        Raises:
            DataError: Features of other pixels are there: the images changed since.
        """
        known = self.known(part)
        for sample, digest in wanted.items():
            if known.get(sample, digest) != digest:
                raise DataError(
                    "features are stored of other pixels of this image: it changed since",
                    f"{self._set(part)}: {sample}",
                    "delete that folder, and give the same command again",
                )
        return [sample for sample in wanted if sample not in known]

    def read(self, part: str, ids: Sequence[str] | None = None) -> Stored:
        """The features of a set, or of some of its ids, ordered by id.

        Raises:
            DataError: An id that is asked for is missing, two files contradict each other, or a file is damaged or of
                another extractor or weights.
        """
        found: dict[str, tuple[NDArray[np.float32], str]] = {}
        for path in self._files(part):
            for sample, row, digest in self._rows(path):
                before = found.setdefault(sample, (row, digest))
                if before[1] != digest or not np.array_equal(before[0], row):
                    raise DataError("two blocks hold other features of the same image", f"{path}: {sample}", _AGAIN)
        names = sorted(found if ids is None else set(ids))
        lacking = [name for name in names if name not in found]
        if lacking:
            some = ", ".join(lacking[:3])
            raise DataError(f"{len(lacking)} images have no features: {some}", str(self._set(part)), _AGAIN)
        rows = [found[name][0] for name in names]
        values = np.stack(rows) if rows else np.empty((0, self.extractor.width), np.float32)
        return Stored(names, values, [found[name][1] for name in names])

    def compact(self, part: str) -> None:
        """Makes one file of a set's many; no process may be writing to it.

        Raises:
            DataError: As of `read`.
        """
        before = self._files(part)
        if len(before) > 1:
            stored = self.read(part)
            kept = self.append(part, stored.ids, stored.values, stored.digests)
            for path in before:
                if path != kept:
                    path.unlink()

    def _set(self, part: str) -> Path:
        plain = re.sub(r"[^A-Za-z0-9._@,+-]", "_", part)
        # Two sets whose names differ in what no file system takes keep folders of their own.
        return self.folder / (plain if plain == part else f"{plain}-{hashlib.sha256(part.encode()).hexdigest()[:8]}")

    def _path(self, part: str, ids: Sequence[str]) -> Path:
        name = hashlib.blake2b(chr(0).join(ids).encode(), digest_size=12).hexdigest()
        return self._set(part) / f"{name}.safetensors"

    def _files(self, part: str) -> list[Path]:
        return sorted(self._set(part).glob("*.safetensors"))

    def _rows(self, path: Path) -> Iterator[tuple[str, NDArray[np.float32], str]]:
        from safetensors import safe_open

        about = self._header(path)
        with safe_open(str(path), framework="numpy") as file:
            values = file.get_tensor("features")
        if values.shape != (len(about), self.extractor.width):
            raise DataError("this block of features is damaged", str(path), _AGAIN)
        yield from zip(about, values, about.values(), strict=True)

    def _header(self, path: Path) -> dict[str, str]:
        """Ids and hashes of a block, in its order."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                about = json.loads((file.metadata() or {})[_KEY])
            ids, digests, made_by = about["ids"], about["digests"], (about["extractor"], about["fingerprint"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"this block of features cannot be read: {error}", str(path), _AGAIN) from error
        if made_by != (self.extractor.name, self.extractor.fingerprint):
            raise DataError("these features were made by another network, weights or version", str(path), _AGAIN)
        return dict(zip(ids, digests, strict=True))


_AGAIN = "delete the file, and give the same command again: its features are taken anew"


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; two processes may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
