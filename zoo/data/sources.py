"""Where the files of a dataset come from: addresses, sizes, licences, and which of them a program may fetch.

What `zoo data` asks of a dataset that has files, besides `zoo.data.base.Dataset`:

    name, licence, layout, sources, counts      class variables; `counts` is the official number of images by split
    root: Path                                  the folder that it was opened with
    official: int | None                        property: how many images this split should hold; None where unknown
    files(index) -> tuple[Path, ...]            what the sample at a position is read from: image, masks, sentences
    shared_files: tuple[Path, ...]              property: what all samples share: lists, captions, annotations
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Source:
    """One download that a dataset is made of.

    Attributes:
        what: What it holds, such as "validation images".
        url: The address of the file, or of the page that leads to it where only a person can get it.
        size: Approximate size in bytes; 0 where nobody publishes it.
        licence: Under which terms it may be used, one line.
        sha256: The published SHA-256, lower case; empty where none is published. The first download then records the
            hash it saw, which later ones must have.
        unpack_to: The folder under the dataset's root into which an archive is unpacked, "." for the root itself;
            empty where the file stays as it is.
        automatic: Whether `zoo data prepare --download` fetches it: only where the licence allows a plain download and
            the address is stable.
        note: What a person must do, or know; for a file that is not automatic, how to get it.
        saved_as: The file's name where the address does not end in it.
        makes: Files or folders under the dataset's root, one of which exists once this is in place, also where a person
            put it there by hand: one for each place that the dataset looks at. Patterns are allowed; none where nothing
            tells.
    """

    what: str
    url: str
    size: int
    licence: str
    sha256: str = ""
    unpack_to: str = ""
    automatic: bool = False
    note: str = ""
    saved_as: str = ""
    makes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file's name: `saved_as`, or the last part of the address."""
        return self.saved_as or PurePosixPath(unquote(urlsplit(self.url).path)).name


def size_text(size: int) -> str:
    """A number of bytes for people: 241 MB, 19.3 GB; "size not published" for 0."""
    if size <= 0:
        return "size not published"
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            value = size / scale
            return f"{value:.1f} {unit}" if value < 100 and unit == "GB" else f"{value:.0f} {unit}"
    return f"{size} bytes"
