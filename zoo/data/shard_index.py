"""What a split's shards hold, and where each sample lies in them: URL/train.json."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

from zoo.data.base import ObjectRule
from zoo.errors import DataError

FORMAT = 1  # to be raised with every change of what is in an index or a shard
REMEDY = "copy the shards again, or write them again: zoo data shard"


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        file: Its name.
        size: Its bytes.
        sha256: Of the whole file.
        first: The position of its first sample.
    """

    file: str
    size: int
    sha256: str
    first: int


@dataclass(frozen=True)
class ShardIndex:
    """The index of a split. Lists have an entry for each sample, in order.

    Attributes:
        dataset: The short name of the dataset that the samples are from.
        split: Its split.
        size: Height and width of the samples in pixels.
        object_rule: The dataset's.
        licence: The dataset's, one line.
        provides: The dataset's.
        classes: The dataset's.
        transform: The version of the transform that they were made with.
        shards: The files, in order.
        ids: The samples' ids.
        offsets: Where each begins in its shard, in bytes.
        lengths: How many bytes it has: its members with their headers.
        checksums: CRC-32 of these bytes.
    """

    dataset: str
    split: str
    size: int
    object_rule: ObjectRule
    licence: str
    provides: frozenset[str]
    classes: tuple[str, ...]
    transform: int
    shards: tuple[Shard, ...]
    ids: list[str]
    offsets: list[int]
    lengths: list[int]
    checksums: list[int]

    def shard(self, position: int) -> Shard:
        """The file that has the sample at a position."""
        return self.shards[bisect_right(self.shards, position, key=lambda shard: shard.first) - 1]

    def text(self) -> str:
        """The index as JSON."""
        facts = asdict(self) | {"provides": sorted(self.provides)}
        return json.dumps({"format": FORMAT, **facts}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, content: bytes, where: str) -> ShardIndex:
        """Reads an index.

        Args:
            content: The file.
            where: What errors call it.

        Raises:
            DataError: It is damaged, or of another version.
        """
        try:
            facts: dict[str, Any] = json.loads(content)
            version = facts.pop("format")
            if version != FORMAT:
                raise DataError(f"these shards are of format {version}, this version reads {FORMAT}", where, REMEDY)
            shards = tuple(Shard(**shard) for shard in facts.pop("shards"))
            provides, classes = frozenset(facts.pop("provides")), tuple(facts.pop("classes"))
            index = cls(**facts, shards=shards, provides=provides, classes=classes)
            counts = {len(values) for values in (index.ids, index.offsets, index.lengths, index.checksums)}
            if counts != {len(index.ids)} or not index.ids or not shards or shards[0].first != 0:
                raise ValueError("its lists do not fit together")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"the index of these shards is damaged: {error}", where, REMEDY) from error
        return index
