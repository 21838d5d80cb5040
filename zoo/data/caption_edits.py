"""Edits of captions that people wrote: one colour word, or one noun, replaced by another.

Two word lists, and nothing learned. A caption without a word of the list stays as it is, and its row says so. What is
replaced is the first such word; what replaces it is keyed by the seed and the image's id.

- `recoloured`: the basic colour terms of English (Berlin and Kay, 1969), but for `orange`, which is also a fruit.
- `renamed`: the categories of COCO in singular and plural, but for `orange`. One that a caption names already is not
  chosen, and a plural is replaced by a plural.

The word need not be about what the hole took: unlike the edits of `shapes`, these go with every mask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import EditedCaption, Sample
from zoo.errors import unknown_name
from zoo.keyed import numpy_generator

COLOURS = ("black", "white", "red", "green", "blue", "yellow", "brown", "pink", "purple", "gray")
NOUNS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "broccoli", "carrot",
    "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv",
    "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_IRREGULAR = {"person": "people", "mouse": "mice", "knife": "knives"}
_ALWAYS_PLURAL = ("skis", "scissors")
_UNCHANGED = ("sheep", "broccoli")  # in the plural; taken for singulars


def _plural(noun: str) -> str:
    if noun in _IRREGULAR or noun in (*_ALWAYS_PLURAL, *_UNCHANGED):
        return _IRREGULAR.get(noun, noun)
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_SINGULARS = {noun: noun for noun in NOUNS if noun not in _ALWAYS_PLURAL}
_PLURALS = {_plural(noun): noun for noun in NOUNS if noun not in _UNCHANGED}
# What a caption may say, then what that is: one list of words that can take each other's place.
_LISTS: dict[str, tuple[dict[str, str], ...]] = {
    "recoloured": ({colour: colour for colour in COLOURS} | {"grey": "gray"},),
    "renamed": (_SINGULARS, _PLURALS),
}


class WordEditor:
    """Edits the captions of any dataset that has some; a `zoo.data.base.CaptionEditor`."""

    caption_edits: ClassVar[tuple[str, ...]] = tuple(_LISTS)

    def edit_caption(
        self, edit: str, sample: Sample, caption: str, mask: NDArray[np.uint8], seed: int
    ) -> EditedCaption:
        """The caption with one word replaced, keyed by the seed and the image's id; see the top of this module.

        Args:
            edit: One of `caption_edits`.
            sample: The image; only its id counts.
            caption: Its own caption.
            mask: Does not count.
            seed: The seed of the plan.

        Raises:
            UsageError: An unknown edit.
        """
        if edit not in _LISTS:
            raise unknown_name("caption edit", edit, list(_LISTS))
        lists = _LISTS[edit]
        found = _pattern({word for words in lists for word in words}).search(caption)
        if found is None:
            what = "colour" if edit == "recoloured" else "noun"
            return EditedCaption(caption, f"the caption has no {what} of the list")
        words = next(words for words in lists if found[0].lower() in words)
        there = {words_of[word] for words_of in lists for word in _all(words_of, caption)}
        others = [word for word, meaning in words.items() if meaning not in there]
        rng = numpy_generator("caption", seed, edit, sample.id)
        return EditedCaption(_replaced(caption, found, others[int(rng.integers(len(others)))]))


def _pattern(words: set[str]) -> re.Pattern[str]:
    """Any of the words, the longest first: a teddy bear is no bear."""
    return re.compile(rf"\b(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})\b", re.IGNORECASE)


def _all(words: Mapping[str, str], caption: str) -> set[str]:
    return {word.lower() for word in _pattern(set(words)).findall(caption)}


def _replaced(caption: str, found: re.Match[str], word: str) -> str:
    """The caption with a word in the place of a match; its capital and the article before it agree."""
    before, after = caption[: found.start()], caption[found.end() :]
    article = re.search(r"\b(a|an)(\s+)$", before, re.IGNORECASE)
    if article:
        agreed = article[1][0] + ("n" if word[0] in "aeiou" else "")
        before = before[: article.start()] + agreed + article[2]
    return before + (word.capitalize() if found[0][0].isupper() else word) + after
