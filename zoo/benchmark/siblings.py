"""Features of the truths that runs beside this one have taken: those of the same images under other masks.

A plan has one mask, and a comparison has several (buckets of hole ratios, say): a run folder for each, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.plan import FILE, Plan
from zoo.errors import ZooError
from zoo.metrics.store import FeatureStore

# What else the bits of a feature depend on, besides the pixels and the network: kernels differ between batch shapes.
SAME = ("dataset", "split", "root", "data_options", "size", "batch_size", "precision", "accelerator", "threads")


class Siblings:
    """The runs beside a run whose truths are computed like its own.

    What cannot be read of them is their own affair: it counts as not there.

    Args:
        plan: The plan of the run.
        folder: Its folder.
        stores: Where its features go, by extractor.
        part: The set of the truths.
    """

    def __init__(self, plan: Plan, folder: Path, stores: Mapping[str, FeatureStore], part: str) -> None:
        self.part = part
        self._stores: dict[str, list[FeatureStore]] = {
            name: [FeatureStore(other / store.folder.parent.name, store.extractor) for other in _beside(plan, folder)]
            for name, store in stores.items()
        }

    def truths(self, name: str, ids: Sequence[str], digests: Sequence[str]) -> NDArray[np.float32] | None:
        """The features of a block of truths, N x D; None where no run beside has taken them of the same pixels.

        Args:
            name: The extractor.
            ids: N ids, as the loop has them in a batch: the last one is filled up with repeats.
            digests: The hashes of their pixels.
        """
        wanted = dict(zip(ids, digests, strict=True))
        for store in self._stores[name]:
            try:
                found = store.block(self.part, list(wanted))
            except ZooError:
                continue
            if found is not None and found.digests == list(wanted.values()):
                rows = {sample: row for row, sample in enumerate(wanted)}
                return found.values[[rows[sample] for sample in ids]]
        return None


def _beside(plan: Plan, folder: Path) -> list[Path]:
    """The run folders beside one whose plans agree in `SAME`."""
    found = []
    for path in sorted(folder.resolve().parent.glob(f"*/{FILE}")):
        if path.parent == folder.resolve():
            continue
        try:
            other = Plan.read(path.parent)
        except ZooError:
            continue
        if all(getattr(other, name) == getattr(plan, name) for name in SAME):
            found.append(path.parent)
    return found
