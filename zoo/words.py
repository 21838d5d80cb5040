"""Word-level text: splitting captions, a vocabulary from training captions, and captions as padded ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from zoo.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = (PAD, UNKNOWN, START, END)
LIMIT = 2048
_WORD = re.compile(r"\w+", re.ASCII)


class Tokens(NamedTuple):
    """Captions as numbers.

    Attributes:
        ids: B L, int64, 0 where a caption has ended.
        known: B L, bool, True where there is a token, the special ones included.
        special: B L, bool, True at tokens that stand for no word ([CLS], [SEP]); never at padding.
    """

    ids: Tensor
    known: Tensor
    special: Tensor

    @property
    def words(self) -> Tensor:
        """B L, bool: tokens that stand for a word of the caption."""
        return self.known & ~self.special


def split(caption: str) -> list[str]:
    """The words of a caption: runs of ASCII letters, digits and underscores, in lower case (as AttnGAN does)."""
    return _WORD.findall(caption.lower())


def vocabulary(captions: Iterable[str], limit: int = LIMIT) -> list[str]:
    """The words of captions, the most frequent first, equals in alphabetical order. Special tokens are no words.

    Args:
        captions: Training captions; evaluation captions do not belong here.
        limit: At most so many words.

    Raises:
        UsageError: There is no word in them.
    """
    counts = Counter(word for caption in captions for word in split(caption))
    if not counts:
        raise UsageError("no words in the training captions", remedy="text-guided methods need data with captions")
    return sorted(counts, key=lambda word: (-counts[word], word))[:limit]


class WordTokenizer:
    """Captions to ids, a word each. Ids 0 to 3 are [PAD], [UNK], [CLS] and [SEP]; the vocabulary follows.

    Args:
        vocabulary: The words.
        length: Ids per caption; longer captions are cut.
        brackets: Whether captions begin with [CLS] and end with [SEP].

    Raises:
        UsageError: The vocabulary is empty or names a word twice, or `length` has no room for a word.
    """

    def __init__(self, vocabulary: Sequence[str], length: int, brackets: bool = True) -> None:
        if not vocabulary:
            raise UsageError(
                "a word-level tokenizer needs a vocabulary",
                remedy="zoo fit builds one from the training captions; in Python: vocabulary=zoo.words.vocabulary(...)",
            )
        if len(set(vocabulary)) != len(vocabulary):
            raise UsageError("the vocabulary names a word twice")
        if length < 1 + 2 * brackets:
            raise UsageError(f"{length} ids have no room for a word" + " between [CLS] and [SEP]" * brackets)
        self.length, self.brackets = length, brackets
        self._ids = {word: index for index, word in enumerate(vocabulary, len(SPECIAL))}

    def __len__(self) -> int:
        """How many ids there are."""
        return len(self._ids) + len(SPECIAL)

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """The ids of captions, padded to `length`. A caption without a word becomes one [UNK]."""
        import torch

        ids = torch.zeros(len(captions), self.length, dtype=torch.long)
        special = torch.zeros(len(captions), self.length, dtype=torch.bool)
        room = self.length - 2 * self.brackets
        for row, caption in enumerate(captions):
            numbers = [self._ids.get(word, SPECIAL.index(UNKNOWN)) for word in split(caption)[:room]]
            numbers = numbers or [SPECIAL.index(UNKNOWN)]
            if self.brackets:
                numbers = [SPECIAL.index(START), *numbers, SPECIAL.index(END)]
                special[row, [0, len(numbers) - 1]] = True
            ids[row, : len(numbers)] = torch.tensor(numbers)
        return Tokens(ids, ids != 0, special)
