"""The rows of a run: one JSON line per (method, weights, image, mask, captions, seed), a file per writer.

A line is written whole and at once, so that whatever kills the process loses at most the line being written. Readers
pass over a torn last line; the next writer of that file cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from zoo.benchmark.plan import canonical
from zoo.errors import DataError, UsageError

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


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an OSError while writing into an error that says what to do.

    Raises:
        DataError: The disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write the results: {error.strerror or error}",
            where=str(path),
            remedy="free some space (or use --out) and give the same command again: what is stored is kept",
        ) from error


class Writer:
    """Appends rows to one file, as its only writer.

    Args:
        path: `RUN/rows/<label>-<writer>.jsonl`; made where it is missing, a torn last line is cut off.

    Raises:
        UsageError: Another process writes to this file.
        DataError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(self._file, path)
            with storing(path):
                _cut_torn_line(self._file)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, row: Row) -> None:
        """Writes one row; when it returns the system has it, and only a power failure can lose it.

        Raises:
            DataError: The disk is full; nothing of the row is left in the file.
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

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(file: int, path: Path) -> None:
    """Holds the file for this process; the system lets go of it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        remedy = "wait for it, or share the work with --shard i/n"
        raise UsageError("another process is writing these rows", str(path), remedy) from error
    except OSError:
        return  # some network file systems cannot lock; rows are checked for contradictions when they are read


def _cut_torn_line(file: int) -> None:
    size = os.fstat(file).st_size
    content = os.pread(file, size, 0)
    end = content.rfind(b"\n") + 1
    last = content[content.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]
    if end and _parse(last) is None:
        end -= len(last)
    if end < size:
        os.ftruncate(file, end)


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
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1]:
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is None:
            if number == len(lines):
                break
            raise DataError(
                "this line is not a row", f"{path}:{number}", "delete the line; its image is measured again"
            )
        rows.append(row)
    return rows


def merge(rows: Iterable[Row]) -> list[Row]:
    """One row per measurement. A failure counts only while its image has not been measured, and the last one at that.

    Raises:
        DataError: Two rows measure the same thing and differ.
    """
    measured: dict[Key, Row] = {}
    failures: dict[tuple[str, str], Row] = {}
    for row in rows:
        if failed(row):
            failures[row["method"], row["id"]] = row
            continue
        before = measured.setdefault(key_of(row), row)
        if constant(before) != constant(row):
            names = sorted(k for k in before.keys() | row.keys() if k not in VARYING and before.get(k) != row.get(k))
            raise DataError(
                f"two rows measure the same thing and differ in {', '.join(names)}",
                where=f"{row['method']} on {row['id']}",
                remedy="this folder holds rows of two machines or code versions; run it again into another folder",
            )
    for row in measured.values():
        failures.pop((row["method"], row["id"]), None)
    return [*measured.values(), *failures.values()]


def read_rows(folder: Path) -> list[Row]:
    """All rows of a run, from every writer, one per key, ordered by method and id.

    Raises:
        DataError: A damaged line, or two rows that contradict each other.
    """
    files = sorted((Path(folder) / ROWS).glob("*.jsonl"))
    merged = merge(row for path in files for row in read_file(path))
    return sorted(merged, key=lambda row: (row["method"], row["id"], canonical(constant(row))))


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows grouped by the label of their method, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, with an error for the user where that fails.

    Raises:
        DataError: The disk is full, or the place cannot be written.
    """
    from zoo.weights import write_atomically

    with storing(path):
        write_atomically(path, content)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file."""
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
