"""Reads the rows of a run into a `Table`, one at a time."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark import samples
from zoo.benchmark.plan import Plan
from zoo.benchmark.store import ROWS, VARYING, Row, constant
from zoo.benchmark.tables import EXTRA, META, Line, Numbers, Table
from zoo.errors import DataError
from zoo.metrics.definitions import definition


def read_table(folder: str | Path, plan: Plan) -> Table:
    """Reads the rows of a run.

    Args:
        folder: The run folder.
        plan: Its plan; rows of other methods are passed over.

    Raises:
        DataError: A line before the last of a file cannot be read, two rows measure the same and differ, or methods
            were measured on different pixels of an image.
    """
    files = tuple(sorted((Path(folder) / ROWS).glob("*.jsonl")))
    builder = _Builder(tuple(method.label for method in plan.methods), files)
    for number, path in enumerate(files):
        for offset, row in read_lines(path):
            builder.add(row, (number, offset))
    return builder.table()


def read_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """The offset and the row of each line of a file, without a torn last line.

    Raises:
        DataError: A line before the last cannot be read.
    """
    offset, damaged = 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                offset += len(line)
                continue
            if damaged:
                remedy = "delete the line; its image is measured again"
                raise DataError("this line is not a row", f"{path}:{damaged}", remedy)
            row = _parse(line)
            if row is None:
                damaged = number
            else:
                yield offset, row
            offset += len(line)


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(str(line, "utf-8"))  # bytes would have their encoding guessed, line by line
    except ValueError:
        return None
    return row if isinstance(row, dict) and "id" in row and "method" in row else None


@dataclass
class _Shape:
    """Rows of the same keys: the metrics they have, their values and where these belong."""

    names: tuple[str, ...]
    get: Callable[[Row], Any]
    values: array[float] = field(default_factory=lambda: array("d"))
    slots: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def of(cls, row: Row) -> _Shape:
        numbers = (name for name, x in row.items() if x is None or isinstance(x, int | float))
        names = tuple(name for name in numbers if name in EXTRA or name not in META)
        get: Callable[[Row], Any] = itemgetter(*names) if len(names) > 1 else lambda row: [row[n] for n in names]
        return cls(names, get)

    def add(self, row: Row, slot: int) -> None:
        found = self.get(row)
        try:
            values = array("d", found)
        except TypeError:
            values = array("d", [x if isinstance(x, int | float) else math.nan for x in found])
        self.values.extend(values)
        self.slots.append(slot)


class _Failure(NamedTuple):
    """When a method failed on an image, how, and which line says so."""

    at: str
    error: str
    line: Line


class _Builder:
    """Takes rows in one by one."""

    def __init__(self, labels: tuple[str, ...], files: tuple[Path, ...]) -> None:
        self.labels, self.files = labels, files
        self.columns = {label: column for column, label in enumerate(labels)}
        self.index: dict[str, int] = {}
        self.lines = array("q")  # two for each image and method
        self.failures: dict[tuple[str, str], _Failure] = {}
        self.captions: dict[str, str] = {}
        self.pixels: list[tuple[str, str] | None] = []
        self.ratios, self.objects = array("d"), array("d")
        self.unedited: set[str] = set()
        self.shapes: dict[tuple[str, ...], _Shape] = {}

    def add(self, row: Row, line: Line) -> None:
        column = self.columns.get(row["method"])
        if column is None:
            return
        sample = row["id"]
        if row.get("unedited"):
            self.unedited.add(sample)
        if sample not in self.index:
            self._begin(sample)
        if row.get("caption"):
            self.captions.setdefault(sample, row["caption"])
        if "error" in row:
            failure = _Failure(str(row.get("at", "")), str(row["error"]), line)
            before = self.failures.get((row["method"], sample))
            if before is None or before.at <= failure.at:  # the last one counts, whichever file it is in
                self.failures[row["method"], sample] = failure
            return
        place = self.index[sample]
        slot = place * len(self.labels) + column
        if self.lines[2 * slot] >= 0:
            self._check_twin(row, (self.lines[2 * slot], self.lines[2 * slot + 1]))
            return
        self.lines[2 * slot], self.lines[2 * slot + 1] = line
        self._about(row, place)
        if samples.KEY in row:
            row = {**row, **_flat(row[samples.KEY])}
        keys = tuple(row)
        shape = self.shapes.get(keys)
        if shape is None:
            shape = self.shapes[keys] = _Shape.of(row)
        shape.add(row, slot)

    def _begin(self, sample: str) -> None:
        self.index[sample] = len(self.index)
        self.lines.extend([-1] * 2 * len(self.labels))
        self.pixels.append(None)
        self.ratios.append(math.nan)
        self.objects.append(math.nan)

    def _about(self, row: Row, place: int) -> None:
        """What all methods share: the pixels, which must be the same, and what follows from them."""
        pixels = (str(row.get("image_hash", "")), str(row.get("mask_hash", "")))
        if self.pixels[place] is None:
            self.pixels[place] = pixels
            self.ratios[place] = _number(row.get("hole_ratio"))
        elif self.pixels[place] != pixels:
            raise DataError(
                "the methods were measured on different pixels of the same image: the data changed during the run",
                where=row["id"],
                remedy="run the benchmark into another folder",
            )
        if row.get("objects"):
            self.objects[place] = row["objects"]

    def _check_twin(self, row: Row, line: Line) -> None:
        with self.files[line[0]].open("rb") as file:
            file.seek(line[1])
            before = json.loads(file.readline())
        if constant(before) != constant(row):
            names = sorted(k for k in before.keys() | row.keys() if k not in VARYING and before.get(k) != row.get(k))
            raise DataError(
                f"two rows measure the same thing and differ in {', '.join(names)}",
                where=f"{row['method']} on {row['id']}",
                remedy="this folder holds rows of two machines or code versions; run it again into another folder",
            )

    def table(self) -> Table:
        ids = sorted(self.index)
        order = np.fromiter((self.index[sample] for sample in ids), np.int64, len(ids))
        lines = np.array(self.lines, np.int64).reshape(len(ids), len(self.labels), 2)[order]
        measured = lines[..., 0] >= 0
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        failures: dict[str, dict[str, str]] = {label: {} for label in self.labels}
        for (label, sample), failure in self.failures.items():
            place, column = rank[self.index[sample]], self.columns[label]
            if not measured[place, column]:
                failures[label][sample] = failure.error
                lines[place, column] = failure.line
        return Table(
            self.labels, ids, self._values(rank), measured, failures, np.array(self.ratios)[order],
            np.array(self.objects)[order], [(self.pixels[place] or ("",))[0] for place in order], self.captions,
            frozenset(self.unedited), self.files, lines,
        )  # fmt: skip

    def _values(self, rank: NDArray[np.int64]) -> dict[str, Numbers]:
        """One array per metric; what has no value and no definition is no metric, and left out."""
        width = len(self.labels)
        found: dict[str, Numbers] = {}
        for shape in self.shapes.values():
            if not shape.names:
                continue
            table = np.frombuffer(shape.values, np.float64).reshape(-1, len(shape.names))
            slots = np.frombuffer(shape.slots, np.int64)
            places = rank[slots // width] * width + slots % width
            for name, column in zip(shape.names, table.T, strict=True):
                if name not in found:
                    found[name] = np.full((len(rank), width), math.nan)
                found[name].ravel()[places] = column
        self.shapes.clear()
        return {name: values for name, values in found.items() if definition(name) or not np.isnan(values).all()}


def _flat(stored: dict[str, Any]) -> dict[str, Any]:
    """What a row says of several samples, with a name for each number."""
    flat: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, dict):
            flat |= {f"{samples.KEY}.{name}.{way}": number for way, number in value.items()}
        else:
            flat[f"{samples.KEY}.{name}"] = value
    return flat


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
