"""Writing a dataset as shards: see `zoo.data.shards` for what they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data import transforms
from zoo.data.base import Dataset, Sample
from zoo.data.shard_index import Shard, ShardIndex
from zoo.data.shards import captions_file, index_file
from zoo.data.storage import Storage
from zoo.errors import UsageError

BLOCK = tarfile.BLOCKSIZE
LEVEL = 1  # of PNG's compression: a twelfth more bytes than the usual 6 in a seventh of the time


def write_shards(
    dataset: Dataset,
    out: str | Path,
    *,
    split: str,
    size: int,
    samples_per_shard: int = 1000,
    progress: Callable[[int, str], None] | None = None,
) -> ShardIndex:
    """Writes all samples of a dataset. The index comes last: shards without one are of a run that did not finish.

    The same samples give the same bytes.

    Args:
        dataset: The opened dataset, with every sample at `size`.
        out: A folder, or a URL of fsspec.
        split: The split's name; the names of the files begin with it.
        size: Height and width of the samples in pixels.
        samples_per_shard: Samples in a file; one file is held in memory while it is made.
        progress: Is told how many samples are done, and the file they are in.

    Returns:
        The index.

    Raises:
        UsageError: The place already has shards of this split, or a sample is of another size.
        DataError: A sample cannot be read, or the place cannot be written to.
    """
    storage = Storage(out)
    if storage.exists(index_file(split)):
        raise UsageError(
            f"there are shards of split '{split}' here already",
            where=storage.url,
            remedy="remove them, or write elsewhere",
        )
    rows = _Rows()
    shards: list[Shard] = []
    for first in range(0, len(dataset), samples_per_shard):
        file = f"{split}-{len(shards):06d}.tar"
        content = bytearray()
        for position in range(first, min(first + samples_per_shard, len(dataset))):
            sample = dataset.sample(position)
            _check_size(sample, size)
            content += rows.add(sample, position, len(content))
            if progress is not None:
                progress(position + 1, file)
        content += bytes(2 * BLOCK)  # the end of a tar file
        shards.append(Shard(file, len(content), hashlib.sha256(content).hexdigest(), first))
        storage.write(file, bytes(content))
    if "caption" in dataset.provides:
        storage.write(captions_file(split), gzip.compress("\n".join(rows.captions).encode() + b"\n", mtime=0))
    index = rows.index(dataset, split, size, shards)
    storage.write(index_file(split), index.text().encode())
    return index


class _Rows:
    """What the index says of each sample."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.offsets: list[int] = []
        self.lengths: list[int] = []
        self.checksums: list[int] = []
        self.captions: list[str] = []

    def add(self, sample: Sample, position: int, offset: int) -> bytes:
        """Notes a sample that begins at an offset of its shard, and returns its part of the file."""
        files = _files(sample)
        group = b"".join(_member(f"{position:09d}.{ending}", content) for ending, content in files)
        self.ids.append(sample.id)
        self.offsets.append(offset)
        self.lengths.append(len(group))
        self.checksums.append(zlib.crc32(group))
        self.captions.append(json.dumps(list(sample.captions), ensure_ascii=False))
        return group

    def index(self, dataset: Dataset, split: str, size: int, shards: list[Shard]) -> ShardIndex:
        return ShardIndex(
            dataset=dataset.name,
            split=split,
            size=size,
            object_rule=dataset.object_rule,
            licence=dataset.licence,
            provides=dataset.provides,
            classes=tuple(dataset.classes),
            transform=transforms.VERSION,
            shards=tuple(shards),
            ids=self.ids,
            offsets=self.offsets,
            lengths=self.lengths,
            checksums=self.checksums,
        )


def _check_size(sample: Sample, size: int) -> None:
    if sample.image.shape != (size, size, 3):
        height, width = sample.image.shape[:2]
        raise UsageError(
            f"the sample is {width}x{height}, the shards are to be of {size} pixels",
            where=sample.id,
            remedy="open the dataset with this size",
        )


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _files(sample: Sample) -> Iterator[tuple[str, bytes]]:
    facts: dict[str, Any] = {
        "id": sample.id,
        "captions": list(sample.captions),
        "boxes": sample.boxes.tolist(),
        "segments": None if sample.segments is None else _runs(sample.segments),
        "mask": None if sample.mask is None else _runs(sample.mask[None])[0],
    }
    yield "json", json.dumps(facts, ensure_ascii=False).encode()
    yield "png", _png(sample.image)
    if sample.segmentation is not None:
        yield "segmentation.png", _png(sample.segmentation)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=LEVEL)
    return file.getvalue()


def _runs(regions: NDArray[Any]) -> list[dict[str, Any]]:
    """N x H x W regions as COCO's compressed run lengths, in plain types."""
    from pycocotools import mask as coco_mask

    codes = coco_mask.encode(np.asfortranarray(np.moveaxis(regions, 0, -1).astype(np.uint8)))
    return [{"size": list(code["size"]), "counts": code["counts"].decode()} for code in codes]
