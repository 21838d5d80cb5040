"""Annotation files read as text or JSON, and checked against the list of images and against what lies on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import DataError


def read_text(path: Path, remedy: str) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: It is missing, or no UTF-8.
    """
    if not path.is_file():
        raise DataError(f"{path.name} is missing", where=str(path.parent), remedy=remedy)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path), remedy=remedy) from error


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: It is missing, or no JSON.
    """
    text = read_text(path, remedy)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path.name} is no valid JSON: {error}", where=str(path), remedy=remedy) from error


def check_present(names: Sequence[str], folder: Path, what: str, remedy: str) -> set[str]:
    """Refuses a list of files some of which are absent.

    Each folder is listed once: far quicker than asking for one file after the other, on network disks above all.

    Args:
        names: Their paths below `folder`, with "/" between the parts.
        folder: Where they should be.
        what: What they are, in the plural: "images".
        remedy: What to do about it.

    Returns:
        The paths of all that lies in the folders of these, listed or not.

    Raises:
        DataError: The folder, or one of the files, is missing.
    """
    if not folder.is_dir():
        raise DataError(f"the folder of {what}, '{folder.name}', is missing", where=str(folder.parent), remedy=remedy)
    found: set[str] = set()
    for part in sorted({str(PurePosixPath(name).parent) for name in names}):
        if (folder / part).is_dir():
            prefix = "" if part == "." else f"{part}/"
            found |= {prefix + entry.name for entry in os.scandir(folder / part)}
    absent = [name for name in names if name not in found]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(names)} {what} that the lists name are absent: {', '.join(absent[:3])}",
            where=str(folder),
            remedy=remedy,
        )
    return found


def check_known(found: Iterable[str], known: Iterable[str], what: str, where: Path, remedy: str) -> None:
    """Refuses captions, boxes, ... of images that no list knows.

    Args:
        found: The images that have them.
        known: The images of all splits.
        what: What they have: "captions".
        where: The file or folder with them.
        remedy: What to do about it.

    Raises:
        DataError: Some are unknown.
    """
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise DataError(
            f"{len(unknown)} images have {what} but are in no list of images: {', '.join(unknown[:3])}",
            where=str(where),
            remedy=remedy,
        )
