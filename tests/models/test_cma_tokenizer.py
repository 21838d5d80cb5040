"""WordPiece against transformers' own tokenizer on the same vocabulary, and which vocabularies are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer

from zoo.errors import UsageError
from zoo.models.cma.tokenizer import POSITIONS, WordPieceTokenizer, make_tokenizer
from zoo.words import WordTokenizer

# As in BERT's vocabulary: [PAD] first, unused places, then [UNK] [CLS] [SEP] [MASK] at ids that are not 1 to 4.
PIECES = [
    "[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "!", ",", ".", "'", "-", "2",
    "a", "the", "red", "bird", "##s", "wing", "##ed", "cafe", "with", "un", "##believ", "##able", "s", "中", "文",
    "##a", "pad", "sep",
]  # fmt: skip
CAPTIONS = [
    "a red bird.",
    "The RED Birds, with red-winged bird's wings!",
    "café CAFÉ cafe\u0301",  # accents, composed and not
    "unbelievable winged",
    "xylophone bird 2",  # no piece begins it
    "中文 bird",  # each Chinese character is a word
    "a\tred\u00a0bird\x00\u200b the",  # white space and control characters
    "a" * 101 + " bird",  # longer than BERT takes a word to be
    "the red bird " * 30,  # cut, and still ends with [SEP]
]


@pytest.fixture
def theirs(tmp_path: Path) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(PIECES)  # it has read the file
    return tokenizer


@pytest.mark.parametrize("length", [5, 16, POSITIONS])
def test_ids_are_those_of_transformers(theirs: BertTokenizer, length: int) -> None:
    tokens = WordPieceTokenizer(PIECES, length)(CAPTIONS)
    expected = theirs(CAPTIONS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    assert torch.equal(tokens.ids, expected.input_ids)
    assert torch.equal(tokens.known, expected.attention_mask.bool())
    assert tokens.ids.shape == (len(CAPTIONS), length)
    assert tokens.ids.dtype == torch.long


def test_by_hand() -> None:
    tokens = WordPieceTokenizer(PIECES, 8)(["Winged birds", "a red bird with a red wing."])
    names = [[PIECES[i] for i in row] for row in tokens.ids.tolist()]
    assert names[0] == ["[CLS]", "wing", "##ed", "bird", "##s", "[SEP]", "[PAD]", "[PAD]"]
    assert names[1] == ["[CLS]", "a", "red", "bird", "with", "a", "red", "[SEP]"]
    assert tokens.special.tolist() == [[n in ("[CLS]", "[SEP]") for n in row] for row in names]
    assert tokens.words.sum(1).tolist() == [4, 6]


def test_a_caption_without_a_word_becomes_one_unknown() -> None:
    tokens = WordPieceTokenizer(PIECES, 6)(["", "  \n"])
    assert tokens.ids.tolist() == [[4, 3, 5, 0, 0, 0]] * 2
    assert tokens.words.tolist() == [[False, True, False, False, False, False]] * 2


def test_names_of_special_tokens_in_a_caption_are_text() -> None:
    tokens = WordPieceTokenizer(PIECES, 12)(["red [PAD] bird [SEP] a"])
    names = [PIECES[i] for i in tokens.ids[0].tolist()]
    assert names == ["[CLS]", "red", "[", "pad", "]", "bird", "[", "sep", "]", "a", "[SEP]", "[PAD]"]
    assert tokens.special.sum() == 2


def test_it_travels_to_workers() -> None:
    tokenizer = WordPieceTokenizer(PIECES, 10)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert torch.equal(again(CAPTIONS).ids, tokenizer(CAPTIONS).ids)
    assert len(again) == len(PIECES)


@pytest.mark.parametrize("length", [0, 2, POSITIONS + 1])
def test_lengths_out_of_range(length: int) -> None:
    with pytest.raises(UsageError, match="3 to 40"):
        WordPieceTokenizer(PIECES, length)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ([], r"\[PAD\], \[UNK\], \[CLS\], \[SEP\] missing"),
        (["bird", "red"], r"\[PAD\]"),
        ([p for p in PIECES if p != "[SEP]"], r": \[SEP\] missing"),
        (["[UNK]", "[PAD]", *PIECES[4:], "bird2"], r"\[PAD\] is piece 1"),
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "nothing in it but special tokens"),
        ([*PIECES, "Bird"], "'Bird' is of a cased vocabulary"),
        ([*PIECES, "bird"], "'bird' twice"),
    ],
)
def test_other_vocabularies_are_refused(vocabulary: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        WordPieceTokenizer(vocabulary, 10)
    assert "vocab.txt" in caught.value.remedy


def test_make_tokenizer() -> None:
    words = make_tokenizer("word", ["red", "bird"], 8)
    assert isinstance(words, WordTokenizer)
    assert words(["a red bird"]).ids.tolist() == [[2, 1, 4, 5, 3, 0, 0, 0]]
    assert isinstance(make_tokenizer("wordpiece", PIECES, 8), WordPieceTokenizer)
    with pytest.raises(UsageError, match=r"unknown tokenizer 'wordpieces'\n.*did you mean 'wordpiece'"):
        make_tokenizer("wordpieces", PIECES, 8)
