"""Unpacking archives that nobody vouches for: nothing outside the folder, no links, no devices, no endless files."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from zoo.data.download import Tell, check_space, quiet
from zoo.data.sources import size_text
from zoo.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RATIO, ALLOWANCE = 50, 100_000_000
"""An archive may come to at most so many times its own size, and so many bytes: annotations shrink to a tenth."""
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked here."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, *, limit: int | None = None, tell: Tell = quiet) -> int:
    """Unpacks a zip or tar into a folder; files of the same names are replaced, others stay.

    Everything is unpacked beside the target first and moved there at the end, so a bad archive leaves nothing behind.

    Args:
        archive: The file.
        folder: Where its content goes.
        limit: Most bytes that the content may have; None is 50 times the archive and 100 MB.
        tell: Is told how many bytes of the archive (tar) or of its content (zip) are done.

    Returns:
        How many files it held.

    Raises:
        DataError: It is damaged, encrypted or too large, the disk is too full, or a member is an absolute path, a path
            with "..", a link or a device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    most = archive.stat().st_size * RATIO + ALLOWANCE if limit is None else limit
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
        with _explained(archive):
            if archive.name.lower().endswith(".zip"):
                count = _unzip(archive, Path(temporary), most, tell)
            else:
                count = _untar(archive, Path(temporary), most, tell)
        _move(Path(temporary), folder)
    return count


def member_path(name: str, archive: Path) -> PurePosixPath:
    """The path of a member below the folder it is unpacked into.

    Raises:
        DataError: It is absolute, has "..", a backslash or a drive, or names nothing.
    """
    windows = PureWindowsPath(name)
    path = PurePosixPath(name)
    outside = path.is_absolute() or windows.drive or windows.root or ".." in path.parts
    if outside or "\\" in name or "\0" in name or not name.strip():
        raise _refused(archive, f"'{name}' lies outside the folder, or is no plain path")
    return path


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine: no space, no permission
            raise
        raise DataError(
            f"{archive.name} cannot be unpacked: {error or 'it ends too early'}",
            where=str(archive),
            remedy="it is damaged or incomplete: delete it and get it again",
        ) from error


def _refused(archive: Path, why: str) -> DataError:
    return DataError(
        f"{archive.name} is refused: {why}",
        where=str(archive),
        remedy="nothing was unpacked; get the archive from its official place",
    )


def _unzip(archive: Path, folder: Path, most: int, tell: Tell) -> int:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        total = sum(member.file_size for member in members)
        _check_size(archive, total, most)
        check_space(folder, total, f"unpacking {archive.name}")
        paths = [member_path(member.filename, archive) for member in members]
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, f"'{member.filename}' is a link or a device")
            if member.flag_bits & 1:
                raise _refused(archive, f"'{member.filename}' is encrypted")
        done = count = 0
        for member, path in zip(members, paths, strict=True):
            if member.is_dir():
                (folder / path).mkdir(parents=True, exist_ok=True)
                continue
            with opened.open(member) as content:
                _write(content, folder / path)
            done, count = done + member.file_size, count + 1
            tell("unpack", done, total)
    return count


def _untar(archive: Path, folder: Path, most: int, tell: Tell) -> int:
    """In one pass: a compressed tar of many gigabytes would take twice as long with a look at its list first."""
    size = archive.stat().st_size
    total = count = 0
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as opened:
        for member in opened:
            path = member_path(member.name, archive)
            if not (member.isreg() or member.isdir()):
                raise _refused(archive, f"'{member.name}' is a link or a device")
            if hasattr(tarfile, "data_filter"):  # not in the first patches of Python 3.11
                try:
                    tarfile.data_filter(member, str(folder))
                except tarfile.FilterError as error:
                    raise _refused(archive, str(error)) from error
            if member.isdir():
                (folder / path).mkdir(parents=True, exist_ok=True)
                continue
            total += member.size
            _check_size(archive, total, most)
            check_space(folder, member.size, f"unpacking {archive.name}")
            content = opened.extractfile(member)
            if content is not None:  # never None of a regular file
                _write(content, folder / path)
            count += 1
            tell("unpack", file.tell(), size)
    if not count:
        raise DataError(f"{archive.name} holds no files", where=str(archive), remedy="delete it and get it again")
    return count


def _check_size(archive: Path, total: int, most: int) -> None:
    if total > most:
        raise _refused(
            archive, f"its content has {size_text(total)} or more, and at most {size_text(most)} is credible"
        )


def _write(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _move(source: Path, target: Path) -> None:
    """Moves the content of a folder into another; whole folders at once where the target has none of that name."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
            continue
        try:
            path.replace(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(path, place)  # the target is a link to another disk
