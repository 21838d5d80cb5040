"""Checking a split of a dataset: every sample read, every file hashed, the number of images the official one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.base import Dataset
from zoo.data.index import Entry, entry_of, index_path, read_index, write_index
from zoo.data.info import read_error
from zoo.errors import UsageError, ZooError

_BLOCK = 16  # samples that a worker is given at a time
_dataset: Any = None  # of a worker process
_root: Path | None = None


@dataclass(frozen=True)
class Checked:
    """One sample, or one file that all samples share.

    Attributes:
        id: The sample's id; empty for a shared file.
        error: What is wrong with it; empty where nothing is.
        entries: Its files as they are now; none of a sample that cannot be read.
    """

    id: str
    error: str = ""
    entries: tuple[Entry, ...] = ()


@dataclass
class Findings:
    """What was found in a split.

    Attributes:
        n: How many samples were read.
        official: How many the whole split has officially; None where nothing says, or only the first were read.
        damaged: Samples that cannot be read, `id` and `error` each; an empty `id` is of a file that samples share.
        changed: Files that are not as the index has them, `id`, `file` and `error` each.
        index: The file of the hashes; empty where none is kept.
        note: Why none is kept, one line; empty where it is.
    """

    n: int
    official: int | None = None
    damaged: list[dict[str, str]] = field(default_factory=list)
    changed: list[dict[str, str]] = field(default_factory=list)
    index: str = ""
    note: str = ""

    @property
    def unread(self) -> int:
        """How many samples cannot be read; other damage is of files that samples share."""
        return sum(bool(entry["id"]) for entry in self.damaged)

    @property
    def wrong_count(self) -> bool:
        """Whether there are more or fewer samples than officially."""
        return self.official is not None and self.n != self.official


def check_split(
    dataset: Dataset,
    root: Path | None,
    split: str,
    options: Mapping[str, Any],
    *,
    limit: int | None = None,
    workers: int = 0,
    reindex: bool = False,
    tell: Callable[[int, Checked], None] = lambda done, checked: None,
) -> Findings:
    """Reads every sample, and holds its files against the index, which is made or completed.

    Args:
        dataset: The split, opened.
        root: The folder of its files; None where it has none, and then there is no index.
        split: Its name.
        options: The options it was opened with.
        limit: How many samples it was opened with at most.
        workers: Processes that read; 0 reads in this one.
        reindex: Whether the index is made anew, whatever it says. Not with a limit: the rest would be lost.
        tell: Is told of each sample, with how many are done.

    Raises:
        DataError: The index is damaged.
        UsageError: `reindex` with a limit.
    """
    if reindex and limit is not None:
        raise UsageError("an index is made anew from all samples", remedy="leave out --limit, or --reindex")
    official = getattr(dataset, "official", None)
    if official is not None and limit is not None:
        official = min(official, limit)
    findings = Findings(len(dataset), official)
    path = None if root is None else index_path(root, split, options)
    before = {} if path is None or reindex else read_index(path)
    now: dict[str, Entry] = {}
    done = 0
    for checked in _all(dataset, root, limit, workers):
        if checked.error:
            findings.damaged.append({"id": checked.id, "error": checked.error})
        now |= {entry.file: entry for entry in checked.entries}
        if checked.id:
            done += 1
            tell(done, checked)
    findings.changed = _changes(before, now, None if limit is not None else root)
    if path is not None and (now or before):
        _keep(findings, path, now | before)  # a file that has changed keeps the hash it had
    return findings


def _changes(before: Mapping[str, Entry], now: Mapping[str, Entry], root: Path | None) -> list[dict[str, str]]:
    """Files that are not as they were; with a root, those that are gone from it as well."""
    changed = []
    for file, entry in before.items():
        problem = now[file].problem(entry) if file in now else ""
        if file not in now and root is not None and not (root / file).exists():
            problem = "the file is gone"
        if problem:
            changed.append({"id": entry.id, "file": file, "error": problem})
    return changed


def _keep(findings: Findings, path: Path, entries: Mapping[str, Entry]) -> None:
    try:
        write_index(path, entries.values())
        findings.index = str(path)
    except OSError as error:  # data on a disk that may only be read is no fault of the data
        findings.note = f"no index is kept: {error.strerror}"


def _all(dataset: Dataset, root: Path | None, limit: int | None, workers: int) -> Iterator[Checked]:
    if root is not None:
        yield from _shared(dataset, root, limit)
    if workers == 0:
        yield from (_check(dataset, root, index) for index in range(len(dataset)))
        return
    with multiprocessing.Pool(workers, _start, (dataset, root)) as pool:
        yield from pool.imap(_check_here, range(len(dataset)), chunksize=_BLOCK)


def _shared(dataset: Dataset, root: Path, limit: int | None) -> Iterator[Checked]:
    """What all samples share; all files under the root of a dataset that does not say which files a sample has."""
    if _names_files(dataset):
        paths = list(getattr(dataset, "shared_files", ()))
    else:
        paths = [] if limit is not None else _every_file(root)
    for path in paths:
        try:
            yield Checked("", entries=(entry_of(path, root, ""),))
        except ZooError as error:
            yield Checked("", str(error))


def _names_files(dataset: Any) -> bool:
    return callable(getattr(dataset, "files", None))


def _every_file(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(files) if not name.startswith(".")]
    return found


def _check(dataset: Any, root: Path | None, index: int) -> Checked:
    sample = dataset.ids[index]
    error = read_error(dataset, index)
    if error is not None:
        return Checked(sample, str(error))
    if root is None or not _names_files(dataset):
        return Checked(sample)
    try:
        return Checked(sample, entries=tuple(entry_of(path, root, sample) for path in dataset.files(index)))
    except ZooError as unread:
        return Checked(sample, str(unread))


def _start(dataset: Dataset, root: Path | None) -> None:
    global _dataset, _root
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends these
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _dataset, _root = dataset, root


def _check_here(index: int) -> Checked:
    return _check(_dataset, _root, index)
