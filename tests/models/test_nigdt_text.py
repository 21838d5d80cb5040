"""NIGDT's text encoder against a loop over words; padding and neighbours change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.nigdt.text import Described, TextEncoder
from zoo.words import Tokens, WordTokenizer

WORDS = ["a", "red", "green", "circle", "square"]
CAPTIONS = ["a red circle", "square", "a green square a red circle", "unheard-of"]
LENGTH = 8


def encoder(cell: str = "gru", seed: int = 0, **changes: bool) -> TextEncoder:
    torch.manual_seed(seed)
    built = TextEncoder(len(WORDS) + 4, embedding=6, width=10, cell=cell, **changes)
    for name, parameter in built.rnn.named_parameters():
        if name.startswith("bias"):  # zero at first, which would hide a bias at a wrong place
            nn.init.normal_(parameter, std=0.3)
    return built.eval()


def tokens(captions: list[str]) -> Tokens:
    return WordTokenizer(WORDS, LENGTH, brackets=False)(captions)


def naive(built: TextEncoder, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Word vectors (c T) and the sentence vector (c) of one caption, a word and a direction at a time."""
    kind = {nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[type(built.rnn)]
    embedded = built.embedding.weight[ids]
    directions = []
    for suffix in ("_l0", "_l0_reverse"):
        cell = kind(6, 5)
        cell.load_state_dict({name: getattr(built.rnn, name + suffix) for name in cell.state_dict()})
        order = range(len(ids)) if suffix == "_l0" else reversed(range(len(ids)))
        states = torch.zeros(len(ids), 5)
        state = None
        for t in order:
            state = cell(embedded[t : t + 1], state)
            states[t] = state[0] if kind is nn.LSTMCell else state
        directions.append(states)
    forward, backward = directions
    return torch.cat([forward, backward], 1).t(), torch.cat([forward[-1], backward[0]])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_it_is_a_loop_over_words_in_both_directions(cell: str) -> None:
    built, given = encoder(cell), tokens(CAPTIONS)
    with torch.no_grad():
        found = built(given)
        for row, count in enumerate([3, 1, 6, 2]):
            words, sentence = naive(built, given.ids[row, :count].tolist())
            torch.testing.assert_close(found.words[row, :, :count], words)
            torch.testing.assert_close(found.sentence[row], sentence)


def test_padding_is_zero_and_known_says_so() -> None:
    found = encoder()(tokens(CAPTIONS))
    assert isinstance(found, Described)
    assert found.words.shape == (4, 10, LENGTH)
    assert found.sentence.shape == (4, 10)
    assert found.known.sum(1).tolist() == [3, 1, 6, 2]
    assert torch.equal(found.words.abs().sum(1) > 0, found.known)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_caption_gives_the_same_alone_and_in_a_batch(cell: str) -> None:
    built = encoder(cell)
    together = built(tokens(CAPTIONS))
    for row, caption in enumerate(CAPTIONS):
        alone = built(tokens([caption]))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[row])


def test_ids_in_the_padding_change_nothing() -> None:
    built, given = encoder(), tokens(CAPTIONS)
    other = given._replace(ids=given.ids.where(given.known, torch.tensor(5)))
    assert not torch.equal(given.ids, other.ids)
    before, after = built(given), built(other)
    assert torch.equal(before.words, after.words)
    assert torch.equal(before.sentence, after.sentence)


def test_gradients_reach_the_words_that_occur_and_no_others() -> None:
    built = encoder()
    found = built(tokens(["a red circle", "square"]))
    (found.words.square().sum() + found.sentence.square().sum()).backward()
    touched = built.embedding.weight.grad.abs().sum(1) > 0
    assert [i for i, yes in enumerate(touched.tolist()) if yes] == [4, 5, 7, 8]  # not padding, not "green"
    assert all(parameter.grad.abs().sum() > 0 for parameter in built.rnn.parameters())


def test_order_matters() -> None:
    found = encoder()(tokens(["red circle green square", "green circle red square"]))
    assert (found.sentence[0] - found.sentence[1]).abs().max() > 1e-2


def test_dropout_is_for_training() -> None:
    built, given = encoder(), tokens(CAPTIONS)
    assert torch.equal(built(given).words, built(given).words)
    built.train()
    assert not torch.equal(built(given).words, built(given).words)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_begin_orthogonal(cell: str) -> None:
    rnn = TextEncoder(9, embedding=6, width=10, cell=cell).rnn
    gates = rnn.weight_hh_l0_reverse.split(5)
    assert len(gates) == {"gru": 3, "lstm": 4}[cell]
    for gate in gates:
        torch.testing.assert_close(gate @ gate.t(), torch.eye(5), atol=1e-5, rtol=0)
    assert not torch.allclose(gates[0], gates[1])
    assert not rnn.bias_ih_l0.any()


def test_one_direction_reads_forward_with_the_whole_width() -> None:
    built = encoder(bidirectional=False)
    found = built(tokens(["a red circle", "a red square"]))
    assert found.words.shape == (2, 10, LENGTH)
    torch.testing.assert_close(found.words[0, :, :2], found.words[1, :, :2])
    torch.testing.assert_close(found.sentence, found.words[:, :, 2])


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"vocabulary": 5450}, 5450 * 300 + 2 * 3 * 128 * (300 + 128 + 2)),
        ({"vocabulary": 5450, "cell": "lstm"}, 5450 * 300 + 2 * 4 * 128 * (300 + 128 + 2)),
        ({"vocabulary": 64, "embedding": 48, "width": 48}, 64 * 48 + 2 * 3 * 24 * (48 + 24 + 2)),
    ],
    ids=["paper", "tdanet", "nano"],
)
def test_parameter_counts(arguments: dict[str, int], parameters: int) -> None:
    assert sum(p.numel() for p in TextEncoder(**arguments).parameters()) == parameters  # type: ignore[arg-type]


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(UsageError, match="unknown cell of the text encoder 'rnn'"):
        TextEncoder(9, cell="rnn")
    with pytest.raises(UsageError, match="width 7 cannot be halved"):
        TextEncoder(9, width=7)
