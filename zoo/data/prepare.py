"""Putting the files of a dataset in place: what is here, what is fetched, and what is unpacked where."""

from __future__ import annotations

from pathlib import Path

from zoo.data.archive import is_archive, unpack
from zoo.data.download import Tell, check_hash, check_online, check_space, fetch, hash_file, quiet, recorded_hash
from zoo.data.index import FOLDER
from zoo.data.sources import Source
from zoo.errors import DataError


def downloads(root: Path) -> Path:
    """Where downloads of a dataset are kept while they are under way, and the hashes of what was downloaded."""
    return root / FOLDER / "downloads"


def is_here(source: Source, root: Path) -> bool:
    """Whether what a download brings is in place under a root, fetched by the zoo or put there by hand."""
    if source.makes:
        return any(next(root.glob(pattern), None) is not None for pattern in source.makes)
    return _done(source, root).is_file() or (not source.unpack_to and (root / source.file).is_file())


def waiting_archive(source: Source, root: Path) -> Path | None:
    """The archive of a download where a person has put it into the root and nobody has unpacked it yet."""
    if not (source.unpack_to and is_archive(source.file)) or is_here(source, root):
        return None
    return next((p for p in (root / source.file, downloads(root) / source.file) if p.is_file()), None)


def unpack_waiting(source: Source, archive: Path, root: Path, *, tell: Tell = quiet) -> str:
    """Unpacks an archive that a person has put there; it stays where it is.

    Returns:
        What was done, one line.

    Raises:
        DataError: Its hash is not the published one, or it cannot be unpacked (see `zoo.data.archive.unpack`).
    """
    found = hash_file(archive, lambda done, total: tell("check", done, total))
    if not check_hash(source, found, downloads(root)):
        raise DataError(
            f"the hash of {source.file} is {found}, not {source.sha256 or recorded_hash(downloads(root), source.file)}",
            where=str(archive),
            remedy="it is damaged or another file: delete it and get it again",
        )
    count = unpack(archive, root / source.unpack_to, tell=tell)
    _mark(source, root, found)
    return f"{source.file}: {count} files unpacked into {root / source.unpack_to}"


def install(source: Source, root: Path, *, keep: bool = False, tell: Tell = quiet) -> str:
    """Fetches a download and puts it in place.

    Args:
        source: The download.
        root: The dataset's folder.
        keep: Whether an archive stays, in `ROOT/.zoo/downloads`, once it is unpacked.
        tell: Is told how far it is.

    Returns:
        What was done, one line.

    Raises:
        UsageError: `--offline` is set.
        DataError: It cannot be fetched (see `zoo.data.download.fetch`) or unpacked (`zoo.data.archive.unpack`).
    """
    packed = bool(source.unpack_to) and is_archive(source.file)
    fetched = fetch(source, downloads(root), tell=tell, space=source.size if packed else 0)
    word = "checked" if fetched.checked else "recorded: none is published, later downloads must have it"
    story = f"{source.file}: sha256 {fetched.sha256} {word}"
    if not packed:
        fetched.path.replace(root / source.file)
        _mark(source, root, fetched.sha256)
        return story
    count = unpack(fetched.path, root / source.unpack_to, tell=tell)
    _mark(source, root, fetched.sha256)
    if not keep:
        fetched.path.unlink()
    return f"{story}; {count} files unpacked into {root / source.unpack_to}"


def check_before(sources: list[Source], root: Path) -> None:
    """Refuses downloads that cannot end well, before the first begins.

    Raises:
        UsageError: `--offline` is set.
        DataError: The disk has no room for all of them.
    """
    for source in sources:
        check_online(source.url)
    root.mkdir(parents=True, exist_ok=True)
    largest = max((source.size for source in sources if source.unpack_to), default=0)
    check_space(root, sum(source.size for source in sources) + largest, "the download")


def _done(source: Source, root: Path) -> Path:
    return downloads(root) / f"{source.file}.done"


def _mark(source: Source, root: Path, sha256: str) -> None:
    downloads(root).mkdir(parents=True, exist_ok=True)
    _done(source, root).write_text(f"{sha256}  {source.file}\n", encoding="utf-8")
