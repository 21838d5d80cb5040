"""Fetching weights: what, from where, how large and under what licence is said before anything is stored."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from zoo.cli.progress import Meter
from zoo.errors import UsageError, WeightsError
from zoo.weights import Header, home, parse_header, read_header, write_atomically

CHUNK = 1 << 20
_LONGEST_HEADER = 100_000_000  # the format's own limit


def pull(source: str, wanted: str | None) -> Path:
    """Copies a weights file into `ZOO_HOME/weights`, under the name by which methods find it.

    Args:
        source: An http(s) address or a file.
        wanted: The SHA-256 it must have; None accepts any and prints it.

    Raises:
        UsageError: `--offline` is set and the source is an address.
        WeightsError: It cannot be fetched, is no weights file of the zoo, has another hash, or names itself so that it
            would be stored elsewhere.
    """
    with _opened(source) as (stream, size):
        start, header = _read_start(stream, source)
        name = _file_name(header, source)
        known = f"{size / 1e6:.1f} MB" if size else "of unknown size"
        print(f"pulling {header.method}, preset {header.preset}, {known}, licence {header.licence}", file=sys.stderr)
        print(f"  from {source}\n  to   {home() / name}", file=sys.stderr)
        return _store(stream, start, size, home() / name, wanted, source)


def _file_name(header: Header, source: str) -> str:
    """The name by which methods find weights. What it is made of was written by others: no path may be in it."""
    for what, part in (("method", header.method), ("preset", header.preset)):
        if not (isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", part) and part.strip(".")):
            remedy = "names have letters, digits, _ . - only; take weights from whom you trust"
            raise WeightsError(f"the {what} of these weights cannot be part of a file name: {part!r}", source, remedy)
    return f"{header.method}-{header.preset}.safetensors"


def recorded_hash(path: Path) -> str | None:
    """The hash that was written beside a file when it was pulled."""
    record = Path(f"{path}.sha256")
    return record.read_text(encoding="utf-8").split()[0] if record.is_file() else None


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], int]]:
    """The content and its length in bytes (0 where nobody says)."""
    scheme = urlsplit(source).scheme
    if scheme not in ("http", "https"):
        path = Path(source)
        if not path.is_file():
            raise WeightsError("no such file", where=source, remedy="give an http(s) address or a file")
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    if os.environ.get("ZOO_OFFLINE") == "1":
        raise UsageError("--offline forbids downloads", where=source, remedy="leave out --offline, or name a file")
    try:
        with urlopen(source, timeout=30) as response:  # the scheme is checked above
            yield response, int(response.headers.get("Content-Length") or 0)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise WeightsError(f"it cannot be fetched: {error}", where=source, remedy="check the address") from error


def _read_start(stream: IO[bytes], source: str) -> tuple[bytes, Header]:
    """The first bytes of a safetensors file, which hold its header, and what that says."""
    wrong = WeightsError("this is no weights file of inpainting-zoo", where=source, remedy="zoo weights convert")
    length = stream.read(8)
    if len(length) < 8:
        raise wrong
    count = struct.unpack("<Q", length)[0]
    if count > _LONGEST_HEADER:
        raise wrong
    text = stream.read(count)
    try:
        metadata = json.loads(text)["__metadata__"]
    except (ValueError, KeyError, TypeError) as error:
        raise wrong from error
    return length + text, parse_header(metadata, source)


def _store(stream: IO[bytes], start: bytes, size: int, path: Path, wanted: str | None, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(start)
    temporary, record = path.with_name(f".{path.name}.{uuid.uuid4().hex}"), Path(f"{path}.sha256")
    try:
        with temporary.open("xb") as file, Meter("pull", size or None, seconds=2.0) as meter:  # as the umask says
            file.write(start)
            done = len(start)
            while chunk := stream.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                meter.update(done, f"{done / 1e6:.1f} MB")
        found = digest.hexdigest()
        if wanted and wanted.lower() != found:
            raise WeightsError(f"the hash is {found}, not {wanted}", source, "nothing was stored; check the source")
        read_header(temporary)  # a download that broke off is refused here
        record.unlink(missing_ok=True)  # no record at all, rather than that of another file, if what follows breaks off
        temporary.replace(path)
        write_atomically(record, f"{found}  {path.name}\n".encode())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not wanted:
        print(f"sha256 {found} (not checked against anything: give it with --sha256)", file=sys.stderr)
    return path
