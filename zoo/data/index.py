"""The hashes of a dataset's files, so that a file that changes is noticed: `ROOT/.zoo/index-SPLIT.jsonl`.

One line a file: {"id": "coco/val2017/000000000139", "file": "val2017/000000000139.jpg", "size": 161811, "sha256": ...}
`id` is empty for what all samples share, such as annotations. `file` is relative to the root; what lies elsewhere has
its whole path.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.data.download import hash_file
from zoo.errors import DataError

FOLDER = ".zoo"
"""Below a dataset's root: what the zoo itself keeps there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file.

    Attributes:
        id: The sample it belongs to; empty for what all samples share.
        file: Its path below the root, with "/" between the parts.
        size: In bytes.
        sha256: Its hash.
    """

    id: str
    file: str
    size: int
    sha256: str

    def problem(self, before: Entry) -> str:
        """What tells it from the entry of the index, `before`; empty where nothing does."""
        if self.size != before.size:
            return f"the file has {self.size} bytes, the index says {before.size}"
        if self.sha256 != before.sha256:
            return f"the hash of the file is {self.sha256[:12]}..., the index says {before.sha256[:12]}..."
        return ""


def index_path(root: Path, split: str, options: Mapping[str, Any]) -> Path:
    """Where the index of a split lies. Options of the dataset, such as a variant, have one of their own."""
    words = [split, *(f"{name}={value}" for name, value in sorted(options.items()))]
    return root / FOLDER / f"index-{re.sub(r'[^A-Za-z0-9._=-]', '_', '-'.join(words))}.jsonl"


def entry_of(path: Path, root: Path, sample: str) -> Entry:
    """The entry of a file as it is now.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return Entry(sample, _relative(path, root), path.stat().st_size, hash_file(path))
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", str(path), "get it again") from error


def read_index(path: Path) -> dict[str, Entry]:
    """The entries by file; empty where there is no index yet.

    Raises:
        DataError: The index is damaged.
    """
    entries: dict[str, Entry] = {}
    if not path.is_file():
        return entries
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = Entry(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise DataError(
                "this line of the index is damaged", f"{path}, line {number}", "make it anew with --reindex"
            ) from error
        entries[entry.file] = entry
    return entries


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Writes an index at once, in order of the files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for entry in sorted(entries, key=lambda entry: entry.file):
                file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
