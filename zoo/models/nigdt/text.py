"""The text encoder of NIGDT (Sec. 3.1, Eq. 2): a caption as word vectors and one sentence vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.errors import UsageError, unknown_name
from zoo.words import Tokens

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class Described(NamedTuple):
    """What the text encoder makes of captions.

    Attributes:
        words: t_wrd, B c T; zero where a caption has ended.
        sentence: t_sent, B c.
        known: B T, bool, True at words: a prefix of each row, at least one.
    """

    words: Tensor
    sentence: Tensor
    known: Tensor


class TextEncoder(nn.Module):
    """Word embeddings and a recurrent network.

    Args:
        vocabulary: How many ids there are, those of padding and unknown words included.
        embedding: Width of the word embeddings.
        width: c, of the word and sentence vectors.
        cell: `gru` as in the paper, or `lstm` as in the published networks.
        dropout: Share of the embeddings' values that training drops.
        bidirectional: Whether captions are read in both directions, with half of the width for each.

    Raises:
        UsageError: An unknown cell, or a width that cannot be halved.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 300,
        width: int = 256,
        cell: str = "gru",
        dropout: float = 0.5,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise unknown_name("cell of the text encoder", cell, list(CELLS))
        directions = 2 if bidirectional else 1
        if width < directions or width % directions:
            raise UsageError(f"a text encoder of width {width} cannot be halved", remedy="an even number, 2 or more")
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(dropout)
        # Deviation: the recurrent network reads in both directions, with half of the hidden size for each.
        self.rnn = CELLS[cell](embedding, width // directions, batch_first=True, bidirectional=bidirectional)
        _initialize(self.rnn)

    def forward(self, tokens: Tokens) -> Described:
        """Reads captions; a caption gives the same alone and in a batch, whatever follows it as padding.

        Args:
            tokens: B T, on the device of this module; every row has a word, and its words come first.
        """
        embedded = self.dropout(self.embedding(tokens.ids))
        lengths = tokens.known.sum(1).cpu()  # packing keeps the backward direction from starting in the padding
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.rnn(packed)
        words, _ = pad_packed_sequence(states, batch_first=True, total_length=tokens.ids.shape[1])
        hidden = last[0] if isinstance(last, tuple) else last  # an LSTM's second state is its memory
        return Described(words.transpose(1, 2), torch.cat([*hidden], 1), tokens.known)


def _initialize(rnn: nn.GRU | nn.LSTM) -> None:
    """Orthogonal weights (Sec. 4.2), gate by gate, since torch stacks the gates of a cell; zero biases."""
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            continue
        for gate in torch.split(parameter.detach(), rnn.hidden_size):
            nn.init.orthogonal_(gate)
