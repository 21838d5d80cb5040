"""Fetching a file over http: goes on where it stopped, checks the hash, and leaves nothing half done in sight."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from zoo.data.sources import Source, size_text
from zoo.errors import DataError, UsageError

CHUNK = 1 << 20
RETRIES = 5
"""Attempts in a row that may bring nothing before it gives up."""
TIMEOUT = 30.0
SPARE = 200_000_000
"""Bytes that stay free on the disk."""
Tell = Callable[[str, int, int], None]
"""Is told what goes on ("download", "check"), how many bytes are done, and of how many (0 where nobody knows)."""


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        path: Where it is.
        sha256: Its hash.
        checked: Whether the hash was held against one that is published or was recorded before; False for the first
            download of a file without a published hash, whose hash is now recorded.
    """

    path: Path
    sha256: str
    checked: bool


class _InterruptedError(Exception):
    """An attempt that broke off in a way that another may mend."""


def quiet(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def fetch(source: Source, folder: Path, *, tell: Tell = quiet, wait: float = 1.0, space: int = 0) -> Fetched:
    """Downloads a file into a folder, through `FILE.part`, which a later call goes on with.

    Args:
        source: What to fetch.
        folder: Where to put it, under its own name, with the record `FILE.sha256` beside it.
        tell: Is told how far it is.
        wait: Seconds before the second attempt; doubled for each further one.
        space: Free bytes that are needed besides the file's own.

    Raises:
        UsageError: `--offline` is set.
        DataError: The address is refused, does not answer or gives a page instead of a file; the disk is too full; or
            the hash is another than the published or recorded one.
    """
    check_online(source.url)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.file
    part = folder / f"{source.file}.part"
    if not target.is_file():
        _download(source, part, tell, wait, space)
    found = hash_file(target if target.is_file() else part, lambda done, total: tell("check", done, total))
    checked = check_hash(source, found, folder)
    if not checked:  # what was fetched is of no use, and going on with it neither
        wanted = source.sha256 or recorded_hash(folder, source.file)
        for path in (part, _validator(part), target):
            path.unlink(missing_ok=True)
        raise DataError(
            f"the hash of {source.file} is {found}, not {wanted}",
            where=source.url,
            remedy="it was deleted; try again, and if that does not help, the file at this address is another one",
        )
    known = bool(source.sha256 or recorded_hash(folder, source.file))
    if part.is_file():
        part.replace(target)
    _validator(part).unlink(missing_ok=True)
    (folder / f"{source.file}.sha256").write_text(f"{found}  {source.file}\n", encoding="utf-8")
    return Fetched(target, found, known)


def check_online(url: str) -> None:
    """Refuses an address under `--offline`.

    Raises:
        UsageError: `--offline` is set.
    """
    if os.environ.get("ZOO_OFFLINE") == "1":
        raise UsageError("--offline forbids downloads", where=url, remedy="leave out --offline, or put the file there")


def check_hash(source: Source, found: str, folder: Path) -> bool:
    """Whether a hash is the published one, or the recorded one, or nobody knows better."""
    return found == (source.sha256 or recorded_hash(folder, source.file) or found)


def recorded_hash(folder: Path, file: str) -> str:
    """The hash that was recorded when a file was first downloaded; empty where none was."""
    record = folder / f"{file}.sha256"
    words = record.read_text(encoding="utf-8").split() if record.is_file() else []
    return words[0] if words else ""


def hash_file(path: Path, tell: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            tell(done, total)
    return digest.hexdigest()


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuses work for which the disk has no room.

    Raises:
        DataError: Less than `needed` bytes, and some to spare, are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise DataError(
            f"{what} needs {size_text(needed)}, but only {size_text(free)} are free on this disk",
            where=str(folder),
            remedy="free some space, or choose another folder with --data.root",
        )


def _download(source: Source, part: Path, tell: Tell, wait: float, space: int) -> None:
    """Fills `part`, in as many attempts as it takes."""
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _attempt(source, part, tell, space)
        except (_InterruptedError, URLError, HTTPException, TimeoutError, ConnectionError) as error:
            grown = part.is_file() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= RETRIES:
                raise DataError(
                    f"{source.file} cannot be fetched: {error}",
                    where=source.url,
                    remedy="check the network; the same command goes on where this one stopped",
                ) from error
            time.sleep(wait * 2 ** (failures - 1))
        else:
            return


def _attempt(source: Source, part: Path, tell: Tell, space: int) -> None:
    """One request: all of the file, or what is missing of it."""
    start = part.stat().st_size if part.is_file() else 0
    with _open(source, part, start) as response:
        if response.status == 416:  # nothing lies beyond what is here: all of it, or of another file
            if _total(response) != start:
                part.unlink()
                raise _InterruptedError("the file at this address has become shorter")
            return
        if response.status != 206 or not _starts_at(response, start):
            start = 0
        length = int(response.headers.get("Content-Length") or 0)
        total = start + length if length else 0
        check_space(part.parent, length + space, source.file)
        _validator(part).write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        done = start
        with part.open("ab" if start else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                tell("download", done, total)
    if total and done < total:
        raise _InterruptedError(f"the connection broke off after {size_text(done)} of {size_text(total)}")


def _open(source: Source, part: Path, start: int) -> HTTPResponse:
    if urlsplit(source.url).scheme not in ("http", "https"):
        raise DataError("this is no http address", where=source.url, remedy="fetch it by hand")
    headers = {"User-Agent": "inpainting-zoo"}
    if start:
        headers["Range"] = f"bytes={start}-"
        same = _validator(part).read_text() if _validator(part).is_file() else ""
        if same and not same.startswith("W/"):  # else a file that has changed would be joined to the old one's start
            headers["If-Range"] = same
    try:
        response: HTTPResponse = urlopen(Request(source.url, headers=headers), timeout=TIMEOUT)  # scheme checked above
    except HTTPError as error:
        if error.code == 416 and start:
            return error  # type: ignore[return-value]  # it is a response as well
        if error.code >= 500 or error.code in (408, 425, 429):
            raise _InterruptedError(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"the server answers {error.code} {error.reason}",
            where=source.url,
            remedy="the address may have moved: look for the file on the dataset's page and put it there by hand",
        ) from error
    if response.headers.get_content_type() == "text/html" and not source.file.endswith((".html", ".htm")):
        response.close()
        raise DataError(
            "the address gives a web page instead of the file",
            where=source.url,
            remedy="open it in a browser: it may ask to sign in or to agree to terms",
        )
    return response


def _starts_at(response: HTTPResponse, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return found is not None and int(found[1]) == start


def _total(response: HTTPResponse) -> int:
    found = re.search(r"/(\d+)$", response.headers.get("Content-Range") or "")
    return int(found[1]) if found else -1


def _validator(part: Path) -> Path:
    """What the server said to know the file by, beside the part that is here of it."""
    return part.with_name(f"{part.name}.tag")
