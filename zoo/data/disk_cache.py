"""Decoded samples kept on disk, for sets that do not fit into memory.

    FOLDER/about.json                what the folder's samples were made with; its hash is in the folder's name
    FOLDER/TIME-PROCESS.data         samples (`zoo.data.record`), one behind the other, read through a memory map
    FOLDER/TIME-PROCESS.index        a line for each: id, place, length, SHA-256, and a hash of what it was made from

Filled by the visits themselves: what is not there yet is decoded and appended. Every process writes to files of its own
and reads those of all, so that nothing needs a lock: two that decode the same sample at once write it twice, and a line
that a stopped process left unfinished is passed over. The folder may be deleted at any time.

A sample is used if the files it was made from still have their sizes and times, and its bytes their hash; each process
checks both when it first reads one. Otherwise it is decoded again, and appended; a line on stderr names the first
damage of each file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data import record, transforms
from zoo.data.base import Dataset, Sample
from zoo.errors import DataError, UsageError

AUTO = "auto"
INDEX, DATA = ".index", ".data"
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """Where a sample lies, and what it was made from."""

    part: str
    offset: int
    length: int
    sha256: bytes
    source: str


def cache_folder(
    dataset: Dataset, place: str | Path, size: int | None, options: Mapping[str, Any] | None = None
) -> Path:
    """The folder of a dataset's samples: `cache-SIZE-HASH`, in `ROOT/.zoo` or in a folder of one's own.

    The hash is of all that decides how samples come out, but for the files of each: the dataset, its options, the lists
    and annotations that samples share, the size, and the versions of the transform and of the records.

    Args:
        dataset: An opened dataset.
        place: "auto" for `.zoo` in the dataset's own folder, or another folder.
        size: The size it was opened with.
        options: The options it was opened with.

    Raises:
        UsageError: A dataset without files, or, with "auto", without a folder.
        DataError: A shared file cannot be looked at, or the folder cannot be made.
    """
    if not _has_source(dataset):
        raise UsageError(
            f"dataset '{dataset.name}' does not say which files its samples are from, so they cannot be kept on disk",
            remedy="leave out --data.cache_dir; --data.cache_mb keeps samples in memory",
        )
    root = getattr(dataset, "root", None)
    if place == AUTO and not isinstance(root, Path):
        raise UsageError(f"dataset '{dataset.name}' has no folder here", remedy="name one: --data.cache_dir DIR")
    about = {
        "dataset": dataset.name,
        "size": size,
        "options": {name: str(value) for name, value in sorted((options or {}).items()) if value is not None},
        "shared": _shared(dataset, root),
        "transform": transforms.VERSION,
        "record": record.VERSION,
    }
    text = json.dumps(about, indent=1)
    name = f"cache-{size or 'native'}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder = (Path(str(root)) / ".zoo" if place == AUTO else Path(place)) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "about.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the cache cannot be made: {error}", where=str(folder), remedy="name another folder: --data.cache_dir DIR"
        ) from error
    return folder


class DiskCache:
    """Reads samples from a folder where they are there, and else from the dataset, and writes them to the folder.

    Args:
        dataset: What to read from. It says by `files(index)`, or `identity(index)`, what a sample is made from.
        folder: As `cache_folder` makes it: for this dataset alone.
    """

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self._start()

    def _start(self) -> None:
        self._entries: dict[str, list[Entry]] = {}
        self._read: dict[str, int] = {}  # how far each index has been read
        self._maps: dict[str, mmap.mmap] = {}
        self._checked: dict[int, memoryview] = {}
        self._warned: set[str] = set()
        self._process = 0
        self._part: str | None = None
        self._refresh()  # here, so that forked workers share what is known

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def sample(self, index: int) -> Sample:
        """The sample at a position, whose image cannot be written to.

        Raises:
            DataError: It is not on disk, and the dataset cannot read it.
        """
        if index in self._checked:
            return record.unpack(self._checked[index])
        try:
            source = _digest(_source(self.dataset, index))
        except OSError:  # a file is gone: the dataset says so better
            return self.dataset.sample(index)
        found = self._find(self.dataset.ids[index], source)
        if found is not None:
            self._checked[index] = found
            return record.unpack(found)
        sample = self.dataset.sample(index)
        self._append(sample, source)
        return sample

    def _find(self, sample_id: str, source: str) -> memoryview | None:
        """The bytes of a sample; where they are not known, what other processes have written meanwhile is looked at."""
        content = self._known(sample_id, source)
        if content is None:
            self._refresh()
            content = self._known(sample_id, source)
        return content

    def _known(self, sample_id: str, source: str) -> memoryview | None:
        for entry in self._entries.get(sample_id, [])[::-1]:  # the latest first: it replaced the others
            if entry.source != source:
                continue
            content = self._content(entry)
            if hashlib.sha256(content).digest() == entry.sha256:
                return content
            self._damaged(entry.part, f"{entry.part}{DATA} is not what was written, at byte {entry.offset}")
            self._entries[sample_id].remove(entry)
        return None

    def _content(self, entry: Entry) -> memoryview:
        """The bytes of an entry; fewer where the file has lost some."""
        end = entry.offset + entry.length
        mapped = self._maps.get(entry.part)
        if mapped is None or len(mapped) < end:
            try:
                with (self.folder / (entry.part + DATA)).open("rb") as file:
                    mapped = self._maps[entry.part] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # there is no such file, or an empty one, which cannot be mapped
                return memoryview(b"")
        return memoryview(mapped)[entry.offset : end]

    def _refresh(self) -> None:
        """Reads what the indexes have gained."""
        for file in sorted(self.folder.glob(f"*{INDEX}")):
            with file.open("rb") as lines:
                lines.seek(self._read.get(file.name, 0))
                complete = lines.read().rpartition(b"\n")[0]
            self._read[file.name] = self._read.get(file.name, 0) + (len(complete) + 1 if complete else 0)
            for line in complete.splitlines():
                try:
                    sample_id, offset, length, sha256, source = json.loads(line)
                    entry = Entry(file.stem, int(offset), int(length), bytes.fromhex(sha256), source)
                    self._entries.setdefault(sample_id, []).append(entry)
                except (ValueError, TypeError):
                    self._damaged(file.name, f"a line of {file.name} is no entry")

    def _append(self, sample: Sample, source: str) -> None:
        if self._process != os.getpid():  # a forked worker begins files of its own
            self._process, self._part = os.getpid(), f"{time.time_ns():020d}-{os.getpid()}"
        if self._part is None:
            return
        content = record.pack(sample)
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            with (self.folder / (self._part + DATA)).open("ab") as data:
                offset = data.tell()
                data.write(content)
            line = json.dumps([sample.id, offset, len(content), sha256, source], separators=(",", ":"))
            with (self.folder / (self._part + INDEX)).open("ab") as index:  # after the data: no entry without them
                index.write(line.encode() + b"\n")
        except OSError as error:
            self._part = None
            _log.warning(
                "nothing more can be kept in the cache %s: %s; what it lacks is decoded every time", self.folder, error
            )

    def _damaged(self, file: str, detail: str) -> None:
        if file not in self._warned:
            self._warned.add(file)
            _log.warning("the cache %s is damaged and is made again where it is: %s", self.folder, detail)


def _has_source(dataset: Dataset) -> bool:
    return callable(getattr(dataset, "identity", None)) or callable(getattr(dataset, "files", None))


def _source(dataset: Any, index: int) -> list[Any]:
    """What a sample is made from, in plain types: its files with sizes and times, or what the dataset says itself."""
    if hasattr(dataset, "identity"):
        return list(dataset.identity(index))
    return stamps(dataset.files(index), getattr(dataset, "root", None))


def _digest(source: list[Any]) -> str:
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]


def _shared(dataset: Dataset, root: Any) -> list[Any]:
    try:
        return stamps(getattr(dataset, "shared_files", ()), root)
    except OSError as error:
        raise DataError(f"a file of the dataset cannot be looked at: {error}", where=str(error.filename)) from error


def stamps(files: Iterable[Path], root: Path | None) -> list[Any]:
    """What tells files from others of their names: size and time of each, with its path in the root.

    Raises:
        OSError: A file cannot be looked at.
    """
    found = []
    for file in files:
        facts = file.stat()
        name = file.relative_to(root).as_posix() if root is not None and file.is_relative_to(root) else str(file)
        found.append([name, facts.st_size, facts.st_mtime_ns])
    return found
