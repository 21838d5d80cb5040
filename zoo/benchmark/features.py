"""The metrics that a plan asks for, while it runs: their values on each batch, and features kept in the run folder.

`RUN/features/<extractor>/truth` has those of the truths, which all methods share, and runs of other masks beside this
one (`zoo.benchmark.siblings`); `.../method-<label>` those of each method's composites (`zoo.metrics.FeatureStore`): a
file per block, so that processes and shards write side by side. `RUN/features/extractors.json` says what they were made
by, so that they can be read without the networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.plan import Plan
from zoo.benchmark.siblings import Siblings
from zoo.benchmark.store import read_json, storing, write_whole
from zoo.errors import DataError
from zoo.metrics.asked import Asked
from zoo.metrics.store import Extractor, FeatureStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zoo.metrics.suite import Suite

FOLDER = "features"
EXTRACTORS = "extractors.json"
TRUTH = "truth"
Vector = NDArray[np.float32]


class Taken(NamedTuple):
    """Features of one image, and a hash of the pixels they were taken of.

    Attributes:
        vector: D values; None where they are stored already.
        digest: Of `zoo.metrics.pixel_digest`.
    """

    vector: Vector | None
    digest: str


class Pair(NamedTuple):
    """By one extractor: features of a composite, and of its truth."""

    composite: Taken
    truth: Taken


def part_of(label: str) -> str:
    """The set of a method's composites; no label makes it that of the truths."""
    return f"method-{label}"


def read_stores(folder: Path) -> dict[str, FeatureStore]:
    """The stores of a run folder by extractor; none where no features were taken yet.

    Raises:
        DataError: The list of extractors is damaged.
    """
    path = folder / FOLDER / EXTRACTORS
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        return {name: FeatureStore(folder / FOLDER, Extractor(name, *about)) for name, about in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"this list of extractors cannot be read: {error}", str(path), "delete it and run again"
        ) from error


class Measures:
    """What a plan asks for besides the metrics of every run, in one process.

    The networks are loaded when they are first wanted: a finished run needs none.

    Args:
        plan: The plan.
        folder: The run folder.
        device: Where the networks run.
    """

    def __init__(self, plan: Plan, folder: Path, device: torch.device | str = "cpu") -> None:
        self.plan, self.folder, self.device = plan, folder, device
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def set_up(self) -> None:
        """Loads the networks, outside of what makes a failure of one image.

        Raises:
            WeightsError: A file of weights is gone, or has changed since the plan was made.
        """
        _ = self.suite

    @cached_property
    def suite(self) -> Suite:
        """The networks."""
        from zoo.metrics.suite import Suite

        facts = {name: self.plan.metrics[name] for name in self.plan.asked}
        return Suite(Asked(self.plan.asked, {}, self.plan.features_files, facts), self.device)

    @cached_property
    def stores(self) -> dict[str, FeatureStore]:
        """Where features go, by extractor.

        Raises:
            DataError: The disk is full.
        """
        if not self._extractors:
            return {}
        found = read_stores(self.folder)
        if set(found) != self._extractors:
            made_by = self.suite.extractors
            content = {name: [made_by[name].fingerprint, made_by[name].width] for name in sorted(made_by)}
            text = json.dumps(content, indent=2, sort_keys=True) + "\n"
            write_whole(self.folder / FOLDER / EXTRACTORS, text.encode())
            found = {name: FeatureStore(self.folder / FOLDER, extractor) for name, extractor in made_by.items()}
        return found

    @cached_property
    def _extractors(self) -> set[str]:
        from zoo.metrics.definitions import DEFINITIONS, STAND_IN
        from zoo.metrics.sets import extractor_of

        names = [n for n in self.plan.asked if DEFINITIONS[n.removesuffix(STAND_IN)].of == "set"]
        return set(map(extractor_of, names))

    def lacking(self, label: str, ids: Iterable[str]) -> set[str]:
        """The images of which features of the truth, or of a method's composite, are not stored yet."""
        wanted = set(ids)
        self._known.clear()  # other processes may have stored some since
        stored = [self._digests(name, part).keys() for name in self.stores for part in (TRUTH, part_of(label))]
        return {sample for sample in wanted if not all(sample in known for known in stored)}

    def values(self, composite: Tensor, truth: Tensor, mask: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        """The metrics of each image of a batch (`Suite.measure`)."""
        return self.suite.measure(composite, truth, mask, captions)

    def features(self, composite: Tensor, truth: Tensor, ids: Sequence[str]) -> list[dict[str, Pair]]:
        """The features of each image of a batch, by extractor.

        Args:
            composite: B 3 H W uint8.
            truth: B 3 H W uint8.
            ids: B ids.
        """
        if not self.stores:
            return [{} for _ in ids]
        from zoo.metrics.store import pixel_digest

        ours = self.suite.features(composite)
        hashes = [(pixel_digest(a), pixel_digest(b)) for a, b in zip(composite, truth, strict=True)]
        absent = any(sample not in self._digests(name, TRUTH) for name in self.stores for sample in ids)
        theirs: Mapping[str, NDArray[np.float32]] = {}
        if absent:
            theirs = self._shared(ids, [of_truth for _, of_truth in hashes]) or self.suite.features(truth)
        return [
            {
                name: Pair(Taken(ours[name][k], hash_a), Taken(theirs[name][k] if absent else None, hash_b))
                for name in self.stores
            }
            for k, (hash_a, hash_b) in enumerate(hashes)
        ]

    def _shared(self, ids: Sequence[str], digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Features of truths that runs beside this one have taken; empty unless of every extractor."""
        found = {}
        for name in self.stores:
            block = self._siblings.truths(name, ids, digests)
            if block is None:
                return {}
            found[name] = block
        return found

    @cached_property
    def _siblings(self) -> Siblings:
        return Siblings(self.plan, self.folder, self.stores, TRUTH)

    def store(self, label: str, taken: Sequence[tuple[str, dict[str, Pair]]]) -> None:
        """Stores what is not there yet of a method's images: their ids, and what `features` gave.

        Raises:
            DataError: The disk is full, or features of other pixels of an image are stored.
        """
        for name in self.stores:
            truths = [(sample, found[name].truth) for sample, found in taken if name in found]
            self._append(name, TRUTH, [(sample, truth) for sample, truth in truths if truth is not None])
            self._append(
                name, part_of(label), [(sample, found[name].composite) for sample, found in taken if name in found]
            )

    def _append(self, name: str, part: str, taken: Sequence[tuple[str, Taken]]) -> None:
        known, store = self._digests(name, part), self.stores[name]
        for sample, one in taken:
            if known.get(sample, one.digest) != one.digest:
                raise DataError(
                    f"features of other pixels of '{sample}' are stored: the images, or what a method makes of them, "
                    "changed since",
                    str(self.folder / FOLDER),
                    "delete that folder, and give the same command again",
                )
        new = {sample: one for sample, one in taken if sample not in known}
        vectors = [one.vector for one in new.values() if one.vector is not None]
        if new:
            digests = [one.digest for one in new.values()]
            with storing(store.folder):
                store.append(part, list(new), np.stack(vectors), digests)
            known.update(zip(new, digests, strict=True))

    def _digests(self, name: str, part: str) -> dict[str, str]:
        """What is stored of a set: read once for each method, and kept up by this process."""
        if (name, part) not in self._known:
            self._known[name, part] = self.stores[name].known(part)
        return self._known[name, part]
