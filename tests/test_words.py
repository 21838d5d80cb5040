"""Words: splitting, a vocabulary in a fixed order, and captions as padded ids."""

from __future__ import annotations

import pytest
import torch

from zoo.errors import UsageError
from zoo.words import SPECIAL, WordTokenizer, split, vocabulary

WORDS = ["red", "star", "on", "a"]  # ids 4, 5, 6, 7
PAD, UNK, CLS, SEP = range(4)


def test_captions_are_split_into_lower_case_words() -> None:
    assert split("A red STAR, on  a_b 2x4; it's\nhere.") == ["a", "red", "star", "on", "a_b", "2x4", "it", "s", "here"]
    assert split("caf\u00e9") == ["caf"]
    assert split(" .,;! ") == []


def test_the_most_frequent_words_come_first_and_equals_by_the_alphabet() -> None:
    captions = ["the red star", "the blue star", "the end"]
    assert vocabulary(captions) == ["the", "star", "blue", "end", "red"]
    assert vocabulary(reversed(captions)) == vocabulary(captions)
    assert vocabulary(captions, limit=2) == ["the", "star"]


def test_no_words_are_an_error() -> None:
    for captions in ([], ["", " ... "]):
        with pytest.raises(UsageError, match="no words in the training captions"):
            vocabulary(captions)


def test_captions_become_padded_ids() -> None:
    tokens = WordTokenizer(WORDS, length=6)(["Red star", "a red star on a red star"])
    assert tokens.ids.tolist() == [[CLS, 4, 5, SEP, PAD, PAD], [CLS, 7, 4, 5, 6, SEP]]
    assert tokens.ids.dtype == torch.int64
    assert tokens.known.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert tokens.special.tolist() == [[True, False, False, True, False, False], [True, *[False] * 4, True]]
    assert tokens.words.tolist() == [[False, True, True, False, False, False], [False, *[True] * 4, False]]


def test_without_brackets_every_id_is_a_word() -> None:
    tokens = WordTokenizer(WORDS, length=3, brackets=False)(["red star", "a red star on"])
    assert tokens.ids.tolist() == [[4, 5, PAD], [7, 4, 5]]
    assert not tokens.special.any()
    assert torch.equal(tokens.words, tokens.known)


def test_words_that_are_not_in_the_vocabulary_are_unknown() -> None:
    tokens = WordTokenizer(WORDS, length=5)(["a mauve star"])
    assert tokens.ids.tolist() == [[CLS, 7, UNK, 5, SEP]]
    assert tokens.words[0, 2], "an unknown word is a word"


@pytest.mark.parametrize("caption", ["", "   ", "?!"])
def test_a_caption_without_a_word_is_one_unknown_word(caption: str) -> None:
    tokens = WordTokenizer(WORDS, length=4)([caption])
    assert tokens.ids.tolist() == [[CLS, UNK, SEP, PAD]]
    assert tokens.words.sum() == 1, "a mean over words has something to divide by"


def test_a_caption_cannot_spell_a_special_token() -> None:
    tokens = WordTokenizer(WORDS, length=6)(["[SEP] [PAD] red"])
    assert tokens.ids.tolist() == [[CLS, UNK, UNK, 4, SEP, PAD]]


def test_a_vocabulary_and_a_length_that_cannot_be_used() -> None:
    assert len(WordTokenizer(WORDS, length=3)) == len(WORDS) + len(SPECIAL)
    with pytest.raises(UsageError, match=r"needs a vocabulary") as found:
        WordTokenizer([], length=3)
    assert "zoo fit builds one" in found.value.remedy
    with pytest.raises(UsageError, match="twice"):
        WordTokenizer(["red", "red"], length=3)
    with pytest.raises(UsageError, match=r"2 ids have no room for a word between \[CLS\] and \[SEP\]"):
        WordTokenizer(WORDS, length=2)
    with pytest.raises(UsageError, match="0 ids"):
        WordTokenizer(WORDS, length=0, brackets=False)
