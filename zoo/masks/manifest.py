"""Manifests: masks made once, hashed, and shared by every method and every machine.

A manifest is gzipped JSON lines. The first line says what it is (dataset, split, kind, seed, size, count); each further
line is a mask: id, size, COCO run lengths, hole ratio and a hash of its bits, and where a protocol fixes it, which of
the image's captions goes with it. The same masks give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError
from zoo.masks.canvas import Canvas, Mask
from zoo.masks.mixture import draw_mixture, parse_mixture

FORMAT = "inpainting-zoo-masks/1"
REMEDY = "zoo masks make --dataset D --mask KIND --out FILE"


@dataclass(frozen=True)
class Entry:
    """One mask.

    Attributes:
        id: The image it is for.
        size: Height and width in pixels.
        rle: Compressed run lengths of COCO (column by column, starting with known pixels).
        ratio: The hole's share of the image, six digits.
        sha: SHA-256 of the mask's bits, row by row.
        caption: Which of the image's captions it is used with, counted from 0 in the dataset's order; None leaves that
            open. The text itself is not here: not every licence lets it travel.
    """

    id: str
    size: tuple[int, int]
    rle: str
    ratio: float
    sha: str
    caption: int | None = None

    @classmethod
    def of(cls, sample: str, mask: Mask, caption: int | None = None) -> Entry:
        """The entry of a mask, H x W in {0, 1}."""
        from pycocotools import mask as coco

        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")
        ratio = round(float(mask.mean()), 6)
        return cls(sample, (mask.shape[0], mask.shape[1]), rle, ratio, bits_sha(mask), caption)

    def line(self) -> dict[str, Any]:
        """What stands in the file, without `caption` where that is open."""
        fields = {**vars(self), "size": list(self.size)}
        return {name: value for name, value in fields.items() if value is not None}

    def mask(self) -> Mask:
        """The mask, H x W uint8, 1 = hole.

        Raises:
            DataError: The run lengths are damaged.
        """
        from pycocotools import mask as coco

        # The decoder trusts its input; lengths that do not add up would be read beyond the image.
        counts = _counts(self.rle)
        if min(counts, default=0) < 0 or sum(counts) != self.size[0] * self.size[1]:
            raise DataError("the run lengths of this mask do not fill its image", where=self.id)
        decoded: Mask = coco.decode({"size": list(self.size), "counts": self.rle.encode("ascii")})
        return np.ascontiguousarray(decoded)


@dataclass(frozen=True)
class Manifest:
    """The masks of one kind and seed for the images of a split, by id."""

    dataset: str
    split: str
    kind: str
    seed: int
    entries: Mapping[str, Entry]

    def mask(self, sample: str) -> Mask:
        """The mask of an image.

        Raises:
            DataError: There is none, or it is damaged.
        """
        if sample not in self.entries:
            raise DataError(
                "the manifest has no mask for this image", sample, "make one for this data (zoo masks make)"
            )
        return self.entries[sample].mask()


def bits_sha(mask: Mask) -> str:
    """SHA-256 of a mask's size and bits."""
    content = f"{mask.shape[0]}x{mask.shape[1]}:".encode() + np.packbits(mask > 0).tobytes()
    return hashlib.sha256(content).hexdigest()


def make(
    path: str | Path, canvases: Iterable[Canvas], *, dataset: str, split: str, kind: str, seed: int = 0
) -> Manifest:
    """Draws the masks of a split into a file, whole or not at all.

    Args:
        path: The file to write, `*.jsonl.gz`.
        canvases: The images, in order.
        dataset: Short name of the dataset.
        split: Its split.
        kind: A kind of mask or a mixture.
        seed: The seed of the masks.

    Raises:
        DataError: An id comes twice.
        OSError: The disk is full; nothing is left behind.
    """
    mixture = parse_mixture(kind)
    entries: dict[str, Entry] = {}
    for canvas in canvases:
        if canvas.id in entries:
            raise DataError("two images have the same id", where=canvas.id)
        entries[canvas.id] = Entry.of(canvas.id, draw_mixture(mixture, canvas, seed))
    manifest = Manifest(dataset, split, kind, seed, entries)
    write(path, manifest)
    return manifest


def write(path: str | Path, manifest: Manifest) -> None:
    """Writes a manifest, whole or not at all.

    Raises:
        OSError: The disk is full; nothing is left behind.
    """
    head = {name: getattr(manifest, name) for name in ("dataset", "split", "kind", "seed")}
    entries = [entry.line() for entry in manifest.entries.values()]
    lines = [{"format": FORMAT, **head, "count": len(entries)}, *entries]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    _write(Path(path), gzip.compress(text.encode(), mtime=0))  # without a time, so that the bytes are the masks' alone


def read(path: str | Path) -> Manifest:
    """Reads a manifest; masks are decoded when asked for.

    Raises:
        DataError: No such file, a torn or damaged one, or one with a wrong count or a repeated id.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such mask manifest", str(path), REMEDY)
    try:
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        head = lines[0]
        entries = [Entry(**{**line, "size": tuple(line["size"])}) for line in lines[1:]]
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"a torn or damaged mask manifest: {error}", str(path), REMEDY) from error
    _check_head(head, entries, path)
    by_id = {entry.id: entry for entry in entries}
    return Manifest(head["dataset"], head["split"], head["kind"], head["seed"], by_id)


def verify(path: str | Path, canvases: Iterable[Canvas] | None = None) -> list[str]:
    """Every way in which a manifest is wrong, one line each; empty where it is sound.

    Args:
        path: The manifest.
        canvases: The images it is for; their masks are then drawn again and compared.

    Raises:
        DataError: The file cannot be read at all.
    """
    manifest = read(path)
    problems = []
    for entry in manifest.entries.values():
        try:
            mask = entry.mask()
        except DataError as error:
            problems.append(f"{entry.id}: {error.what}")
            continue
        if bits_sha(mask) != entry.sha:
            problems.append(f"{entry.id}: the mask's hash differs")
        if round(float(mask.mean()), 6) != entry.ratio:
            problems.append(f"{entry.id}: the ratio is {mask.mean():.6f}, not {entry.ratio}")
    return problems + _compare(manifest, canvases)


def _compare(manifest: Manifest, canvases: Iterable[Canvas] | None) -> list[str]:
    mixture, problems = parse_mixture(manifest.kind), []
    for canvas in canvases or ():
        entry = manifest.entries.get(canvas.id)
        if entry is None:
            problems.append(f"{canvas.id}: missing")
        elif bits_sha(draw_mixture(mixture, canvas, manifest.seed)) != entry.sha:
            problems.append(f"{canvas.id}: drawn again, the mask differs")
    return problems


def _check_head(head: Any, entries: list[Entry], path: Path) -> None:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise DataError("not a mask manifest of inpainting-zoo", str(path), REMEDY)
    if head["count"] != len(entries):
        remedy = f"the file is torn; {REMEDY}"
        raise DataError(f"{len(entries)} masks where the first line says {head['count']}", str(path), remedy)
    if len({entry.id for entry in entries}) != len(entries):
        raise DataError("an id comes twice in the mask manifest", str(path), REMEDY)


def _counts(rle: str) -> list[int]:
    """The run lengths of COCO's compressed string: base 32 with a sign, from the fourth on as differences."""
    counts: list[int] = []
    position = 0
    while position < len(rle):
        value, shift, more = 0, 0, True
        while more and position < len(rle):
            chunk = ord(rle[position]) - 48
            value |= (chunk & 0x1F) << (5 * shift)
            more = bool(chunk & 0x20)
            position, shift = position + 1, shift + 1
            if not more and chunk & 0x10:
                value |= -1 << (5 * shift)
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
