"""Published match networks (AttnGAN's DAMSM encoders, which TDANet uses too), read into this project's modules.

They are three files: `text_encoder*.pth`, `image_encoder*.pth` (with Inception-v3 in it) and `captions.pickle`, which
alone knows the order of the words. No code of that project is needed, and no code in a file is run.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.models.nigdt.inception import load_exactly, read_tensors
from zoo.models.nigdt.match import InceptionTrunk, MatchNetwork
from zoo.models.nigdt.text import TextEncoder
from zoo.words import SPECIAL

REMEDY = (
    "the encoders and captions.pickle of AttnGAN belong together, three files of one data set (birds: 5450 words, "
    "COCO: 27297, the end of a caption counted)"
)
_EMBEDDING = "encoder.weight"
_GATES = {3: "gru", 4: "lstm"}
_HEADS = {
    "emb_features.weight": "to_regions.weight",
    "emb_cnn_code.weight": "to_image.weight",
    "emb_cnn_code.bias": "to_image.bias",
}


class Published(NamedTuple):
    """Published match networks as modules of this project, in evaluation mode.

    Attributes:
        text: The text encoder, whose ids are those of `WordTokenizer(vocabulary, length, brackets=False)`.
        match: The image side.
        vocabulary: The words, in the order of the ids.
    """

    text: TextEncoder
    match: MatchNetwork
    vocabulary: list[str]


def convert_match(
    text: Path | Mapping[str, Tensor], image: Path | Mapping[str, Tensor], words: Path | Sequence[str]
) -> Published:
    """Reads the three files of published match networks.

    Args:
        text: The text encoder's file, or its tensors.
        image: The image encoder's file, or its tensors; Inception-v3 is among them.
        words: `captions.pickle`, or its words from index 1 on (index 0 is the end of a caption).

    Raises:
        WeightsError: A file cannot be read, or they do not fit this layout or each other.
    """
    vocabulary = read_words(words) if isinstance(words, Path) else list(words)
    encoder, network = text_encoder(text, vocabulary), match_network(image)
    c, d = 2 * encoder.rnn.hidden_size, network.to_image.out_features
    if c != d:
        raise WeightsError(f"the text encoder gives vectors of width {c}, the image encoder of {d}", remedy=REMEDY)
    return Published(encoder, network, vocabulary)


def text_encoder(source: Path | Mapping[str, Tensor], vocabulary: Sequence[str]) -> TextEncoder:
    """The published text encoder, its word table in the order of this project's ids.

    The ids of [UNK], [CLS] and [SEP] have no row there: that project drops unknown words. They get the mean of all
    words.

    Args:
        source: The file, or its tensors.
        vocabulary: The published words from index 1 on.

    Raises:
        WeightsError: The table has another number of rows than there are words, or the tensors do not fit.
    """
    found, where = _tensors(source)
    table, state_weight = found.get(_EMBEDDING), found.get("rnn.weight_hh_l0")
    if table is None or state_weight is None or table.dim() != 2 or state_weight.dim() != 2:
        raise WeightsError("this is no text encoder: no word table and recurrent network", where, REMEDY)
    if len(table) != len(vocabulary) + 1:
        counted = (
            f"the word table has {len(table)} rows, but there are {len(vocabulary)} words and the end of a caption"
        )
        raise WeightsError(counted, where, REMEDY)
    width = state_weight.shape[1]
    cell = _GATES.get(len(state_weight) // width)
    if cell is None:
        raise WeightsError(f"the recurrent weights are {tuple(state_weight.shape)}: no GRU and no LSTM", where, REMEDY)
    others = table[1:].mean(0, keepdim=True).expand(len(SPECIAL) - 1, -1)
    renamed = {name: tensor for name, tensor in found.items() if name != _EMBEDDING}
    renamed["embedding.weight"] = torch.cat([table[:1], others, table[1:]])
    encoder = TextEncoder(len(renamed["embedding.weight"]), table.shape[1], 2 * width, cell)
    load_exactly(encoder, renamed, where, REMEDY)
    return encoder.eval()


def match_network(source: Path | Mapping[str, Tensor]) -> MatchNetwork:
    """The published image encoder with its own Inception-v3.

    Args:
        source: The file, or its tensors.

    Raises:
        WeightsError: The tensors do not fit.
    """
    found, where = _tensors(source)
    heads = {ours: found[theirs] for theirs, ours in _HEADS.items() if theirs in found}
    if len(heads) < len(_HEADS):
        missing = ", ".join(theirs for theirs in _HEADS if theirs not in found)
        raise WeightsError(f"this is no image encoder: {missing} is missing", where, REMEDY)
    trunk = InceptionTrunk({name: tensor for name, tensor in found.items() if name not in _HEADS}, where)
    network = MatchNetwork(trunk, trunk.regions, trunk.pooled, len(heads["to_image.weight"]))
    load_exactly(network, {**network.state_dict(), **heads}, where, REMEDY)
    return network.eval()


def read_words(path: Path) -> list[str]:
    """The words of a published `captions.pickle`, from index 1 on.

    The file is a list of four: captions of training and of test, index to word, word to index. The reader takes plain
    containers, numbers and strings, and refuses everything that would run code.

    Raises:
        WeightsError: No such file, it holds something else, or its indices are not 0, 1, 2, ...
    """
    if not path.is_file():
        raise WeightsError("no such file of captions", str(path), REMEDY)
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except Exception as error:  # damage shows as any of half a dozen errors
        raise WeightsError(f"this file cannot be read: {error}", str(path), REMEDY) from error
    by_index = content[2] if isinstance(content, list | tuple) and len(content) == 4 else None
    if not isinstance(by_index, dict) or not all(isinstance(word, str) for word in by_index.values()):
        raise WeightsError("this file does not hold captions and two tables of words", str(path), REMEDY)
    if sorted(by_index) != list(range(len(by_index))):
        raise WeightsError("the indices of these words are not 0, 1, 2, ...", str(path), REMEDY)
    return [by_index[index] for index in range(1, len(by_index))]


class _PlainUnpickler(pickle.Unpickler):
    """Reads built-in containers, numbers and strings, and nothing that names a class or a function."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # strings of Python 2 are bytes

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only plain containers are read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside itself")


def _tensors(source: Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors and where they are from."""
    if isinstance(source, Path):
        return read_tensors(source, REMEDY), str(source)
    return {name.removeprefix("module."): tensor for name, tensor in source.items()}, ""
