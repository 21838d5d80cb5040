"""Decoded samples kept in memory, for sets that fit."""

from __future__ import annotations

from typing import Any

from zoo.data.base import Dataset, Sample
from zoo.data.disk_cache import DiskCache


class Cache:
    """Reads samples and remembers them: the first visit decodes, later ones look up.

    All or nothing: where the set would not fit (the first sample stands for the others), nothing is kept, because
    a small part of a large set saves no time. Each worker process has a cache of its own, filled by its own visits.

    Args:
        dataset: What to read from.
        limit_mb: Most megabytes (10^6 bytes) of samples to keep in this process; 0 keeps nothing.
        disk: The same dataset's samples on disk, which the first visits then read and fill; None decodes.
    """

    def __init__(self, dataset: Dataset, limit_mb: float, disk: DiskCache | None = None) -> None:
        self.dataset, self.limit = dataset, limit_mb * 1e6
        self._source = dataset if disk is None else disk
        self.used = 0
        self._samples: dict[int, Sample] = {}

    def sample(self, index: int) -> Sample:
        """The sample at a position; its arrays are shared between visits, so do not write to them."""
        if index in self._samples:
            return self._samples[index]
        sample = self._source.sample(index)
        size = _bytes(sample)
        if not self._samples and size * len(self.dataset) > self.limit:
            self.limit = 0
        if self.used + size <= self.limit:
            self._samples[index] = sample
            self.used += size
        return sample

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_samples": {}, "used": 0}  # a spawned worker starts empty


def _bytes(sample: Sample) -> int:
    arrays = (sample.image, sample.boxes, sample.segments, sample.segmentation, sample.mask)
    return sum(a.nbytes for a in arrays if a is not None) + sum(len(c) for c in sample.captions) + 1000
