"""Large training sets as tar files anywhere: samples at their final size, written by `zoo data shard`.

    URL/train.json                 what the shards hold: dataset, classes, and of each sample id, shard, place and CRC
    URL/train-000000.tar           1,000 samples one behind the other, in order; train-000001.tar, ...
    URL/train-captions.jsonl.gz    the captions alone, a line a sample, for the vocabulary; where there are captions

URL is a folder, or what fsspec opens (s3://, gs://, https://, memory://, simplecache::s3://...; some need a package of
their own, such as s3fs). A shard is in WebDataset's format, for any of its readers; a sample has the members

    KEY.json                id, captions, boxes (x0 y0 x1 y1), segments and mask as COCO's run lengths
    KEY.png                 the image, 8-bit RGB, at the size given: lossless, the pixels that methods see
    KEY.segmentation.png    class ids, 255 = unknown; where there is a segmentation

Every sample is that of the original dataset, in every field, under its id and the dataset's name: masks, captions and
orders are keyed by these, and so are the same. What the class of a dataset can do besides (a judge, edited captions) is
not carried over.

Why this reader and none of the libraries for it: an order that is a function of (seed, epoch), whatever the number of
processes, and a resume that loses and repeats nothing, need samples by position. `webdataset` reads a shard from its
beginning and shuffles in a buffer, in which a resume cannot start; its companion `wids` reads by position, but copies
whole shards to the disk first, and not through fsspec; `litdata` and `mosaicml-streaming` have formats of their own,
and orders that depend on the numbers of workers and nodes. With the places in the index a sample is one range of bytes,
which every filesystem of fsspec can read. Where single ranges are slow, `simplecache::` fetches shards whole, and
`--data.cache_dir` keeps decoded samples.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import SPLITS, ObjectRule, Sample
from zoo.data.image import decode_image, decode_segmentation
from zoo.data.shard_index import Shard, ShardIndex
from zoo.data.storage import Storage
from zoo.errors import DataError, UsageError

LAYOUT = (__doc__ or "").partition("\nWhy this")[0].strip()
AGAIN = "copy the shards again, or write them again: zoo data shard"


class Shards:
    """A dataset that `zoo data shard` wrote: its samples by position, read one range of bytes at a time.

    Args:
        split: "train", "val" or "test", as it was written.
        size: The size the shards were written at; None takes it as it is.
        count: At most so many samples, the first ones; None is all.
        root: The folder or URL of the shards.

    Attributes:
        name: The name of the original dataset, the first part of every id; `object_rule` and `licence` are its, too.

    Raises:
        UsageError: No root, another size than that of the shards, or a URL that needs a package that is not here.
        DataError: The index or a shard is missing, damaged or cut short.
    """

    name: ClassVar[str] = "shards"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "that of the dataset they were made from"
    layout: ClassVar[str] = LAYOUT

    def __init__(
        self, split: str = "train", size: int | None = 256, count: int | None = None, root: str | Path | None = None
    ) -> None:
        if root is None:
            raise UsageError("dataset 'shards' needs a folder or URL", remedy="name it: --data.root URL")
        self.storage, self.split = Storage(root), split
        self.root: Path | str = self.storage.folder or self.storage.url
        self.index = _index(self.storage, split)
        if size not in (None, self.index.size):
            raise UsageError(
                f"these shards hold images of {self.index.size} pixels, not {size}",
                where=self.storage.url,
                remedy=f"use size {self.index.size} (--data.size), or write others: zoo data shard --size {size}",
            )
        self.name = self.index.dataset  # type: ignore[misc]  # the original's, so that masks come out the same
        self.object_rule = self.index.object_rule  # type: ignore[misc]
        self.licence = self.index.licence  # type: ignore[misc]
        self._ids = self.index.ids[:count]
        _check_shards(self.storage, [shard for shard in self.index.shards if shard.first < len(self)])

    @property
    def provides(self) -> frozenset[str]:
        return self.index.provides

    @property
    def classes(self) -> tuple[str, ...]:
        return self.index.classes

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def identity(self, index: int) -> list[Any]:
        """What tells this sample from another of the same id: its length and its CRC."""
        return [self.index.lengths[index], self.index.checksums[index]]

    def sample(self, index: int) -> Sample:
        """The sample at a position, as the original dataset gave it.

        Raises:
            DataError: The shard is missing, cut short or damaged here.
        """
        file, offset, length = self.index.shard(index).file, self.index.offsets[index], self.index.lengths[index]
        where = f"{self.storage.url}/{file}, {self._ids[index]}"
        content = self.storage.read(file, offset, offset + length)
        if len(content) < length:
            raise DataError("the shard is cut short", where=where, remedy=AGAIN)
        if zlib.crc32(content) != self.index.checksums[index]:
            raise DataError("the shard is damaged: this sample is not what was written", where=where, remedy=AGAIN)
        try:
            found = _sample(_members(content), where)
        except (KeyError, TypeError, ValueError, tarfile.TarError) as error:
            raise DataError(f"this is no sample: {error}", where=where, remedy=AGAIN) from error
        if found.id != self._ids[index]:
            raise DataError(f"another sample, {found.id}, is in its place", where=where, remedy=AGAIN)
        return found

    def caption_texts(self) -> Iterator[str]:
        """Every caption of every sample, without reading one; see `InpaintingData.captions`."""
        name = captions_file(self.split)
        try:
            lines = gzip.decompress(self.storage.read(name)).splitlines()
            captions = [list(map(str, json.loads(line))) for line in lines]
        except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
            raise DataError(f"{name} is damaged: {error}", where=self.storage.url, remedy=AGAIN) from error
        if len(captions) != len(self.index.ids):
            raise DataError(
                f"{name} has {len(captions)} lines for {len(self.index.ids)} samples", self.storage.url, remedy=AGAIN
            )
        for texts in captions[: len(self)]:
            yield from texts


def index_file(split: str) -> str:
    """The name of a split's index."""
    return f"{split}.json"


def captions_file(split: str) -> str:
    """The name of the file with a split's captions."""
    return f"{split}-captions.jsonl.gz"


def _index(storage: Storage, split: str) -> ShardIndex:
    name = index_file(split)
    if not storage.exists(name):
        present = [other for other in SPLITS if other != split and storage.exists(index_file(other))]
        there = f"; there are {' and '.join(present)}" if present else ""
        raise DataError(
            f"there are no finished shards of split '{split}' here{there}",
            where=storage.url,
            remedy=f"write them: zoo data shard DATASET --split {split} --out {storage.url}",
        )
    return ShardIndex.parse(storage.read(name), f"{storage.url}/{name}")


def _check_shards(storage: Storage, shards: Sequence[Shard]) -> None:
    """Missing and torn shards stop a run before any work, where the place can list its files."""
    sizes = storage.sizes()
    if sizes is None:
        return
    absent = [shard.file for shard in shards if shard.file not in sizes]
    torn = [shard for shard in shards if sizes.get(shard.file, shard.size) not in (shard.size, None)]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(shards)} shards are missing: {', '.join(absent[:3])}", storage.url, remedy=AGAIN
        )
    if torn:
        first = torn[0]
        raise DataError(
            f"{len(torn)} of {len(shards)} shards are not whole: {first.file} has {sizes[first.file]} bytes of"
            f" {first.size}",
            where=storage.url,
            remedy=AGAIN,
        )


def _members(content: bytes) -> dict[str, bytes]:
    """The files of one sample by what follows their key."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                found[member.name.partition(".")[2]] = file.read()
    return found


def _sample(members: dict[str, bytes], where: str) -> Sample:
    facts: dict[str, Any] = json.loads(members["json"])
    image = decode_image(io.BytesIO(members["png"]), where)
    size = (image.shape[0], image.shape[1])
    classes = members.get("segmentation.png")
    segments = None if facts["segments"] is None else _regions(facts["segments"], size)
    return Sample(
        id=str(facts["id"]),
        image=image,
        captions=tuple(map(str, facts["captions"])),
        boxes=np.array(facts["boxes"], np.float32).reshape(-1, 4),
        segments=segments,
        segmentation=None if classes is None else decode_segmentation(io.BytesIO(classes), where, size),
        mask=None if facts["mask"] is None else _regions([facts["mask"]], size)[0].astype(np.uint8),
    )


def _regions(runs: list[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """N run-length codes as N x H x W bool."""
    from pycocotools import mask as coco_mask

    if not runs:
        return np.zeros((0, *size), np.bool_)
    if any(code["size"] != list(size) for code in runs):
        raise ValueError(f"regions for another size than {list(size)}")
    return np.ascontiguousarray(np.moveaxis(coco_mask.decode(runs), -1, 0)).astype(np.bool_)
