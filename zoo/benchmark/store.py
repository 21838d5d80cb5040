"""The rows of a run: one JSON line per (method, weights, image, mask, captions, seed), a file per job and method.

A line is written whole and at once, so that whatever kills the process loses at most the line being written. Readers
pass over a torn last line.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from zoo.errors import DataError

Row = dict[str, Any]
Key = tuple[Any, ...]

KEY = ("method", "weights", "id", "mask", "mask_seed", "captions", "caption", "seed", "guidance")
VARYING = frozenset({"seconds", "at", "peak_mb"})
ROWS = "rows"


def key_of(row: Row) -> Key:
    """What a row is about; two rows with the same key are the same measurement."""
    return tuple(tuple(v) if isinstance(v := row.get(name), list) else v for name in KEY)


def constant(row: Row) -> Row:
    """A row without the fields that may vary between two runs of the same plan."""
    return {name: value for name, value in row.items() if name not in VARYING}


def failed(row: Row) -> bool:
    """Whether a row says that a method failed on an image."""
    return "error" in row


class StorageError(DataError):
    """Results that could not be written: what they are of is missing, and everything else is there."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an OSError while writing into an error that says what to do.

    Raises:
        StorageError: The disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write the results: {error.strerror or error}",
            where=str(path),
            remedy="free some space (or use --out) and give the same command again: what is stored is kept",
        ) from error


class Writer:
    """Makes a file of rows, and appends to it as its only writer.

    Args:
        path: `RUN/rows/<label>-<job>.jsonl`, which is not there.

    Raises:
        StorageError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

    def append(self, row: Row) -> None:
        """Writes one row; when it returns the system has it, and only a power failure can lose it.

        Raises:
            StorageError: The disk is full; nothing of the row is left in the file.
        """
        line = (json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n").encode()
        start = os.fstat(self._file).st_size
        with storing(self.path):
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
            except OSError:
                os.ftruncate(self._file, start)
                raise

    def publish(self) -> None:
        """Makes the rows visible to the other machines of a shared file system, and safe from a power failure.

        Raises:
            StorageError: The disk is full, as some file systems find out only now.
        """
        with storing(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "id" in row and "method" in row else None


def read_file(path: Path) -> list[Row]:
    """The rows of one file, without a torn last line.

    Raises:
        DataError: A line before the last cannot be read.
    """
    return _read_on(path, 0)[0]


def _read_on(path: Path, start: int) -> tuple[list[Row], int]:
    """The rows of a file from an offset on, and the offset behind them."""
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    rows, end = [], start
    for number, line in enumerate(lines):
        if not line.strip():
            end += len(line)
            continue
        row = _parse(line)
        if row is None:
            if not b"".join(lines[number + 1 :]).strip():
                break
            with path.open("rb") as file:
                place = file.read(end).count(b"\n") + 1
            raise DataError("this line is not a row", f"{path}:{place}", "delete the line; its image is measured again")
        rows.append(row)
        end += len(line)
    return rows, end


class Seen:
    """The images that have rows, by method: those of a folder, then also what any job adds to it.

    Attributes:
        measured: Images with a row that is no failure.
        settled: These, and those whose failure was added since: nobody needs to try them again.

    Args:
        folder: The run folder.

    Raises:
        DataError: A damaged line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / ROWS
        self.measured: dict[str, set[str]] = defaultdict(set)
        self.settled: dict[str, set[str]] = defaultdict(set)
        self._ends: dict[Path, int] = {}
        self._read(failures=False)

    def look(self) -> None:
        """Reads what was added since the last time."""
        self._read(failures=True)

    def _read(self, failures: bool) -> None:
        for path in sorted(self.folder.glob("*.jsonl")):
            end = self._ends.get(path, 0)
            if path.stat().st_size > end:
                rows, self._ends[path] = _read_on(path, end)
                for row in rows:
                    if not failed(row):
                        self.measured[row["method"]].add(row["id"])
                    if failures or not failed(row):
                        self.settled[row["method"]].add(row["id"])


def merge(rows: Iterable[Row], expected: Mapping[str, Sequence[str]] | None = None) -> list[Row]:
    """One row per method and image, whoever wrote them, ordered by these.

    A failure counts only while its image has not been measured. Of rows that differ in nothing but time and memory, as
    two jobs make them that measured the same image, one counts.

    Args:
        rows: In any order.
        expected: The ids that each method must have rows of, be they failures; None where the rows may be unfinished.

    Raises:
        DataError: An id comes twice with rows that differ; or ids are missing, or others there than `expected`.
    """
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row["method"], row["id"], failed(row), str(row.get("at", "")))):
        place = (row["method"], row["id"])
        before = found.setdefault(place, row)
        if failed(row):
            found[place] = row if failed(before) else before
        elif constant(before) != constant(row):
            raise _double(before, row)
    if expected is not None:
        wanted = {(label, sample): None for label, ids in expected.items() for sample in ids}
        _name("are missing", [place for place in wanted if place not in found], "give the same command again")
        _name("are not of this plan", [place for place in found if place not in wanted], "remove their file of rows")
    return list(found.values())


def _double(one: Row, other: Row) -> DataError:
    names = sorted(k for k in one.keys() | other.keys() if k not in VARYING and one.get(k) != other.get(k))
    return DataError(
        f"two rows measure the same thing and differ in {', '.join(names)}",
        where=f"{other['method']} on {other['id']}",
        remedy="this folder holds rows of two machines or code versions; run it again into another folder",
    )


def _name(problem: str, places: Sequence[tuple[str, str]], remedy: str) -> None:
    if places:
        some = ", ".join(f"{label} on {sample}" for label, sample in places[:3])
        raise DataError(f"{len(places)} rows {problem}", some + (", ..." if len(places) > 3 else ""), remedy)


def read_rows(folder: Path, expected: Mapping[str, Sequence[str]] | None = None) -> list[Row]:
    """All rows of a run, from every writer: `merge` of its files.

    Raises:
        DataError: A damaged line, or as of `merge`.
    """
    files = sorted((Path(folder) / ROWS).glob("*.jsonl"))
    return merge((row for path in files for row in read_file(path)), expected)


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows grouped by the label of their method, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, with an error for the user where that fails.

    Raises:
        StorageError: The disk is full, or the place cannot be written.
    """
    from zoo.weights import write_atomically

    with storing(path):
        write_atomically(path, content)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file."""
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
