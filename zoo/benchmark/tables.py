"""The rows of a run as columns: one array per metric, images down, methods across. Made in one pass over the files.

Rows are read one at a time and never held together: a run of 36,500 images and five methods takes a few hundred
megabytes as a list of rows and a few dozen as columns. What may be merged is the same as in `zoo.benchmark.store`: a
failure counts only where its image was not measured, and two rows of one image and method that differ are an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark import samples
from zoo.benchmark.plan import ordered
from zoo.benchmark.store import KEY, VARYING, Row

Numbers = NDArray[np.float64]
Line = tuple[int, int]  # number of the file, offset in it
EXTRA = ("seconds",)
META = frozenset(
    {*KEY, *VARYING, "preset", "trained_on", "objects", "hole_ratio", "image_hash", "mask_hash", "undefined"}
    | {"batch", "error", "unedited", samples.KEY}
)
"""What of a row is no metric."""
_CHUNK = 20_000  # rows that are written to Parquet at a time


@dataclass(frozen=True)
class Table:
    """What a run folder holds.

    Attributes:
        labels: The methods of the plan, M.
        ids: The images that have a row, N, sorted.
        values: By metric, N x M; NaN where there is no row or the metric is undefined. `samples.METRIC.WAY` and
            `samples.diversity` hold what rows say of several samples, `seconds` how long an image took.
        measured: N x M, whether there is a row that is no failure.
        failures: By method, then by id: the error.
        ratios: N, the hole's share of the image; NaN where no method completed it.
        objects: N, the objects in the scene; NaN where the data has no judge.
        image_hashes: N, the hash of the truth's pixels; empty where no method completed the image.
        captions: By id, where a caption was given.
        unedited: The ids whose caption was to be edited and could not be.
        files: The files of rows.
        lines: N x M x 2, the file and the offset of the row that counts; -1 where there is none.
    """

    labels: tuple[str, ...]
    ids: list[str]
    values: dict[str, Numbers]
    measured: NDArray[np.bool_]
    failures: dict[str, dict[str, str]]
    ratios: Numbers
    objects: Numbers
    image_hashes: list[str]
    captions: dict[str, str]
    unedited: frozenset[str]
    files: tuple[Path, ...]
    lines: NDArray[np.int64]

    @property
    def metrics(self) -> list[str]:
        """Metrics of single images that some row has a value of: those of the definitions first, then by name."""
        there = {name for name in self.values if name not in EXTRA and not name.startswith(f"{samples.KEY}.")}
        return ordered(there)

    def columns(self, name: str, labels: Sequence[str]) -> dict[str, Numbers]:
        """One metric of several methods, N values each."""
        return {label: self.values[name][:, self.labels.index(label)] for label in labels}

    def outlines(self, label: str) -> list[Row]:
        """Of each row of a method `id`, and `image_hash` or `error`, by id: all that metrics of sets ask of rows."""
        column, failures = self.labels.index(label), self.failures[label]
        return [
            {"id": sample, "error": failures[sample]}
            if sample in failures
            else {"id": sample, "image_hash": self.image_hashes[place]}
            for place, sample in enumerate(self.ids)
            if sample in failures or self.measured[place, column]
        ]

    def rows(self) -> Iterator[Row]:
        """The rows that count, ordered by file and line."""
        order = self.lines.reshape(-1, 2)
        order = order[order[:, 0] >= 0]
        order = order[np.lexsort((order[:, 1], order[:, 0]))]
        for number, path in enumerate(self.files):
            with path.open("rb") as file:
                for offset in order[order[:, 0] == number, 1].tolist():
                    file.seek(offset)
                    yield json.loads(file.readline())


def chunks(rows: Iterator[Row], size: int = _CHUNK) -> Iterator[list[Row]]:
    """Rows in lists of `size`, the last one shorter."""
    while chunk := list(islice(rows, size)):
        yield chunk
