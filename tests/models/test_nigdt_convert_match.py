"""Published match networks, their layout described here by hand, against the converter."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fakes_inception import inception_state, numbers
from zoo.errors import WeightsError
from zoo.models.nigdt.convert_match import convert_match, match_network, read_words, text_encoder
from zoo.words import WordTokenizer

WORDS = ["bird", "red", "a", "wing", "yellow"]  # from index 1 on; index 0 is the end of a caption
E, H = 7, 5  # width of the embeddings, and of the states of a direction; 300 and 128 in the published files


def text_state(gates: int = 4) -> dict[str, Tensor]:
    shapes = {"encoder.weight": [len(WORDS) + 1, E]}
    for direction in ("", "_reverse"):
        shapes |= {
            f"rnn.weight_ih_l0{direction}": [gates * H, E], f"rnn.weight_hh_l0{direction}": [gates * H, H],
            f"rnn.bias_ih_l0{direction}": [gates * H], f"rnn.bias_hh_l0{direction}": [gates * H],
        }  # fmt: skip
    return {name: numbers(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


@pytest.fixture(scope="module")
def image_state() -> dict[str, Tensor]:
    heads = {"emb_features.weight": [2 * H, 768, 1, 1], "emb_cnn_code.weight": [2 * H, 2048], "emb_cnn_code.bias": [10]}
    return {**inception_state(), **{name: numbers(shape, 70 + i) for i, (name, shape) in enumerate(heads.items())}}


def captions(words: list[str], path: Path, protocol: int = 2) -> Path:
    by_index = dict(enumerate(["<end>", *words]))
    content = [[[1, 2]], [[3]], by_index, {word: index for index, word in by_index.items()}]
    path.write_bytes(pickle.dumps(content, protocol))
    return path


# --- the three parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gates", "kind"), [(4, nn.LSTM), (3, nn.GRU)], ids=["lstm", "gru"])
def test_the_text_encoder_gives_what_theirs_gives(gates: int, kind: Callable[..., nn.Module]) -> None:
    state = text_state(gates)
    theirs = kind(E, H, batch_first=True, bidirectional=True)
    theirs.load_state_dict({name.removeprefix("rnn."): t for name, t in state.items() if name.startswith("rnn.")})
    ids = torch.tensor([[3, 2, 1]])  # a red bird, by their indices
    with torch.no_grad():
        states, last = theirs(F.embedding(ids, state["encoder.weight"]))
        sentence = (last[0] if kind is nn.LSTM else last).transpose(0, 1).flatten(1)
        ours = text_encoder(state, WORDS)
        found = ours(WordTokenizer(WORDS, 6, brackets=False)(["A red bird"]))
    assert not ours.training
    torch.testing.assert_close(found.words[:, :, :3], states.transpose(1, 2))
    torch.testing.assert_close(found.sentence, sentence)


def test_ids_without_a_published_row() -> None:
    state = text_state()
    table = text_encoder(state, WORDS).embedding.weight
    assert torch.equal(table[4:], state["encoder.weight"][1:])
    assert torch.equal(table[0], state["encoder.weight"][0])
    for row in (1, 2, 3):
        torch.testing.assert_close(table[row], state["encoder.weight"][1:].mean(0))


def test_the_image_encoder_gives_what_theirs_gives(image_state: dict[str, Tensor]) -> None:
    more = {"AuxLogits.fc.weight": torch.zeros(1000, 768), "Mixed_7c.branch1x1.bn.num_batches_tracked": torch.tensor(3)}
    network = match_network({**image_state, **more})
    assert not network.training
    trunk = network.trunk.state_dict()
    assert all(torch.equal(trunk[name], tensor) for name, tensor in image_state.items() if not name.startswith("emb_"))
    image = numbers([1, 3, 32, 32], 9)
    with torch.no_grad():
        features, pooled = network.trunk(image)
        found = network(image)
        regions = F.conv2d(features, image_state["emb_features.weight"]).reshape(1, 2 * H, 17 * 17)
        whole = F.linear(pooled, image_state["emb_cnn_code.weight"], image_state["emb_cnn_code.bias"])
    torch.testing.assert_close(found.regions, regions)
    torch.testing.assert_close(found.image, whole)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_words_in_their_order(protocol: int, tmp_path: Path) -> None:
    assert read_words(captions(WORDS, tmp_path / "captions.pickle", protocol)) == WORDS


def test_words_as_python_2_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "captions.pickle"
    by_index = b"\x80\x02](]]}(K\x00U\x05<end>K\x02U\x03redK\x01U\x04birdu}e."  # its strings are bytes
    path.write_bytes(by_index)
    assert read_words(path) == ["bird", "red"]


def test_three_files_make_one(image_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in text_state().items()}, tmp_path / "text_encoder200.pth")
    torch.save(image_state, tmp_path / "image_encoder200.pth")
    words = captions(WORDS, tmp_path / "captions.pickle")
    found = convert_match(tmp_path / "text_encoder200.pth", tmp_path / "image_encoder200.pth", words)
    assert found.vocabulary == WORDS
    assert torch.equal(found.text.rnn.weight_hh_l0_reverse, text_state()["rnn.weight_hh_l0_reverse"])
    assert torch.equal(found.match.to_image.bias, image_state["emb_cnn_code.bias"])


# --- what does not fit ---------------------------------------------------------------------------------------------


def test_another_vocabulary_is_said(image_state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="6 rows, but there are 4 words and the end of a caption") as caught:
        convert_match(text_state(), image_state, WORDS[:4])
    assert "birds: 5450" in caught.value.remedy
    assert "COCO: 27297" in caught.value.remedy


def test_files_given_for_each_other_are_told_apart(image_state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="no text encoder"):
        text_encoder(image_state, WORDS)
    with pytest.raises(WeightsError, match=r"no image encoder: emb_features\.weight, emb_cnn_code"):
        match_network(text_state())


def test_encoders_of_two_widths_are_refused(image_state: dict[str, Tensor]) -> None:
    narrow = {name: tensor[:4] if name.startswith("emb_") else tensor for name, tensor in image_state.items()}
    with pytest.raises(WeightsError, match="width 10, the image encoder of 4"):
        convert_match(text_state(), narrow, WORDS)


def test_tensors_that_are_missing_or_misshapen_are_named(image_state: dict[str, Tensor], tmp_path: Path) -> None:
    state = text_state()
    del state["rnn.bias_hh_l0_reverse"]
    state["rnn.weight_ih_l0"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "text.pth")
    with pytest.raises(WeightsError, match=r"bias_hh_l0_reverse is missing.*weight_ih_l0 is") as caught:
        text_encoder(tmp_path / "text.pth", WORDS)
    assert caught.value.where == str(tmp_path / "text.pth")
    with pytest.raises(WeightsError, match=r"to_image\.bias is"):
        match_network({**image_state, "emb_cnn_code.bias": torch.zeros(3)})
    with pytest.raises(WeightsError, match="no GRU and no LSTM"):
        text_encoder({**text_state(), "rnn.weight_hh_l0": torch.zeros(2 * H, H)}, WORDS)


class Runs:
    """Its pickle calls a function when read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_no_code_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("captions.pickle").write_bytes(pickle.dumps([[], [], {0: Runs()}, {}]))
    with pytest.raises(WeightsError, match=r"asks for .*, and only plain containers are read"):
        read_words(Path("captions.pickle"))
    assert not Path("ran").exists()


def test_other_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.pickle"
    for content, what in (
        ({"a": 1}, "does not hold captions"),
        ([[], [], {0: 1}, {}], "does not hold captions"),
        ([[], [], {0: "<end>", 2: "red"}, {}], "indices of these words are not 0, 1, 2"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match=what):
            read_words(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_words(path)
    with pytest.raises(WeightsError, match="no such file of captions"):
        read_words(tmp_path / "absent.pickle")
