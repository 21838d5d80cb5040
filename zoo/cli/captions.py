"""Captions for `zoo inpaint`: one text for all images, or a file with one for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError

Captions = dict[str, str]


def read_captions(text: str, images: Mapping[str, str]) -> Captions:
    """The caption of each image.

    Args:
        text: A `.jsonl` file of {"file": NAME, "caption": TEXT} lines, a `.txt` file with one caption, or the caption.
        images: File names by name; a line may give either, with or without ending.

    Raises:
        DataError: The file cannot be read, or an image has no caption in it.
    """
    path = Path(text)
    if path.suffix not in (".jsonl", ".txt"):
        return dict.fromkeys(images, text)
    if not path.is_file():
        raise DataError("there is no caption file here", where=text, remedy="check the path")
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return dict.fromkeys(images, content.strip())
    found = _lines(content, text)
    captions = {name: found.get(name, found.get(file)) for name, file in images.items()}
    without = sorted(name for name, caption in captions.items() if caption is None)
    if without:
        raise DataError(
            f"{len(without)} images have no caption: {', '.join(without[:3])}",
            where=text,
            remedy='one line for every image: {"file": "cat.jpg", "caption": "a cat"}',
        )
    return {name: caption for name, caption in captions.items() if caption is not None}


def _lines(content: str, where: str) -> Captions:
    found: Captions = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            caption = entry.get("caption") or entry["captions"][0]
            found[Path(entry["file"]).as_posix()] = str(caption)
            found.setdefault(Path(entry["file"]).with_suffix("").as_posix(), str(caption))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            remedy = '{"file": "cat.jpg", "caption": "a cat"}'
            raise DataError(f"this line is no caption: {error}", f"{where}, line {number}", remedy) from error
    return found


def unknown_words(arguments: Mapping[str, Any], captions: Iterable[str]) -> list[str]:
    """The words that a method with a vocabulary of whole words reads as one and the same unknown word.

    A caption without any letter that such words are made of counts as one.

    Args:
        arguments: The method's constructor arguments.
        captions: What it is to read.
    """
    from zoo.words import split

    known = {*(arguments.get("vocabulary") or ())}
    if not known or arguments.get("tokenizer", "word") != "word":  # pieces spell any word
        return []
    return sorted({word for caption in captions if caption for word in split(caption) or [caption]} - known)
