"""BERT's uncased WordPiece, as ViLT reads captions, and the choice between it and whole words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.errors import UsageError, unknown_name
from zoo.words import END, PAD, SPECIAL, START, UNKNOWN, Tokens, WordTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KINDS = ("word", "wordpiece")
POSITIONS = 40  # ViLT has so many learned text positions
NAMES = (*SPECIAL, "[MASK]")  # the pieces in capitals
_SHORTEST = 3  # [CLS], a word piece, [SEP]
_REMEDY = "give the lines of bert-base-uncased's vocab.txt (ViLT's own), or use --preset nano, which needs none"


class WordPieceTokenizer:
    """Captions to ids: lower case, accents stripped, words split into the longest pieces of the vocabulary.

    Ids are those of transformers' `BertTokenizer` with the same vocabulary, with two exceptions. A caption without a
    word becomes one [UNK], as in `WordTokenizer`, because the losses take means over words. And "[SEP]" or "[PAD]"
    written in a caption is text like any other: a caption cannot end itself.

    Args:
        vocabulary: The word pieces; the place of a piece is its id. [PAD] comes first.
        length: Ids per caption, 3 to 40; longer captions are cut and still end with [SEP].

    Raises:
        UsageError: The vocabulary is none of WordPiece, or the length is out of range.
    """

    def __init__(self, vocabulary: Sequence[str], length: int) -> None:
        if not _SHORTEST <= length <= POSITIONS:
            raise UsageError(
                f"captions of {length} tokens: WordPiece captions have {_SHORTEST} to {POSITIONS}",
                remedy=f"ViLT knows {POSITIONS} text positions, [CLS] and [SEP] included",
            )
        _check(vocabulary)
        self.length = length
        self._size = len(vocabulary)
        self._unknown, self._start, self._end = (vocabulary.index(name) for name in (UNKNOWN, START, END))
        self._tokenizer = _build(vocabulary)

    def __len__(self) -> int:
        """How many ids there are."""
        return self._size

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """The ids of captions, padded to `length`."""
        import torch

        ids = torch.zeros(len(captions), self.length, dtype=torch.long)
        known = torch.zeros(len(captions), self.length, dtype=torch.bool)
        special = torch.zeros(len(captions), self.length, dtype=torch.bool)
        for row, caption in enumerate(captions):
            # One by one: encode_batch starts threads, after which a data loader that forks its workers complains.
            pieces = self._tokenizer.encode(caption).ids[: self.length - 2] or [self._unknown]
            numbers = [self._start, *pieces, self._end]
            ids[row, : len(numbers)] = torch.tensor(numbers)
            known[row, : len(numbers)] = True
            special[row, [0, len(numbers) - 1]] = True
        return Tokens(ids, known, special)


def make_tokenizer(kind: str, vocabulary: Sequence[str], length: int) -> WordTokenizer | WordPieceTokenizer:
    """The tokenizer of a preset; both put a caption between [CLS] and [SEP].

    Args:
        kind: `word` (nano: words of the training captions) or `wordpiece` (paper: ViLT's).
        vocabulary: Words or word pieces.
        length: Ids per caption.

    Raises:
        UsageError: Another kind, or a vocabulary or length that does not suit it.
    """
    if kind not in KINDS:
        raise unknown_name("tokenizer", kind, list(KINDS))
    return WordTokenizer(vocabulary, length) if kind == "word" else WordPieceTokenizer(vocabulary, length)


def _check(vocabulary: Sequence[str]) -> None:
    missing = [name for name in SPECIAL if name not in vocabulary]
    if missing:
        raise UsageError(f"no WordPiece vocabulary: {', '.join(missing)} missing", remedy=_REMEDY)
    if vocabulary[0] != PAD:
        # Everything downstream takes id 0 for padding: ViLT's word table has its empty row there.
        raise UsageError(f"{PAD} is piece {vocabulary.index(PAD)} of the vocabulary, not piece 0", remedy=_REMEDY)
    if len(vocabulary) <= len(SPECIAL):
        raise UsageError("no WordPiece vocabulary: nothing in it but special tokens", remedy=_REMEDY)
    cased = next((piece for piece in vocabulary if piece not in NAMES and piece != piece.lower()), "")
    if cased:
        # Captions are lower case here: every word that this vocabulary begins with a capital would be split or unknown.
        raise UsageError(f"'{cased}' is of a cased vocabulary, captions are read in lower case", remedy=_REMEDY)
    twice = [piece for piece, count in Counter(vocabulary).items() if count > 1]
    if twice:
        raise UsageError(f"the vocabulary names '{twice[0]}' twice", remedy=_REMEDY)


def _build(vocabulary: Sequence[str]) -> Tokenizer:
    """The `tokenizers` library itself: transformers' classes changed how they take a vocabulary.

    In transformers 5 `BertTokenizer(vocab_file=...)` silently ignores the file and knows five special tokens.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    ids = {piece: index for index, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=100))
    # strip_accents=None follows `lowercase`, as in BERT.
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
