"""Captions as CLIP's text encoder reads them: tokens of words (nano) or of CLIP's own tokenizer (paper)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.words import END, SPECIAL, START, WordTokenizer, split

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

_PAD, _START, _END = 0, SPECIAL.index(START), SPECIAL.index(END)
_SHOWN = 80  # characters of what is cut off


class Cut(NamedTuple):
    """Captions as tokens.

    Attributes:
        ids: B T, int64.
        rest: For each caption what did not fit, in words; empty where all did.
    """

    ids: Tensor
    rest: list[str]


class PromptTokenizer(Protocol):
    """Captions to ids: a start, the caption, an end, padding; the empty caption has only a start and an end."""

    @property
    def length(self) -> int:
        """T, ids per caption."""

    def __len__(self) -> int:
        """How many ids there are."""

    def __call__(self, captions: Sequence[str]) -> Cut:
        """The ids of captions, and what did not fit."""


class WordPrompts:
    """A word each, with [CLS] and [SEP] around them, which serve as CLIP's start and end.

    Args:
        vocabulary: The words.
        length: Ids per caption.

    Raises:
        UsageError: The vocabulary is empty or names a word twice, or the length has no room for a word.
    """

    def __init__(self, vocabulary: Sequence[str], length: int = 24) -> None:
        self._tokenizer = WordTokenizer(vocabulary, length)
        self.length = length

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, captions: Sequence[str]) -> Cut:
        ids = self._tokenizer(captions).ids
        empty = [row for row, caption in enumerate(captions) if not split(caption)]
        if empty:  # the words' tokenizer has an unknown word there
            ids[empty] = torch.tensor([_START, _END] + [_PAD] * (self.length - 2))
        return Cut(ids, [" ".join(split(caption)[self.length - 2 :]) for caption in captions])


class ClipPrompts:
    """CLIP's byte pairs, padded as the files say (Stable Diffusion 1.5: with the end).

    Args:
        tokenizer: From `zoo.models.ecdm.hub`, which checks what it loads.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self.tokenizer = tokenizer
        self.length = int(tokenizer.model_max_length)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, captions: Sequence[str]) -> Cut:
        found = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_overflowing_tokens=True,
            return_tensors="pt",
        )
        # A caption that is too long has several rows: the first is what fits, the others follow it.
        owners: list[int] = found["overflow_to_sample_mapping"].tolist()
        rest = [""] * len(captions)
        for row, owner in enumerate(owners):
            if row and owners[row - 1] == owner:
                tail = str(self.tokenizer.decode(found["input_ids"][row], skip_special_tokens=True))
                rest[owner] = f"{rest[owner]} {tail.strip()}".strip()
        return Cut(found["input_ids"][[owners.index(caption) for caption in range(len(captions))]], rest)


class PromptEncoder(nn.Module):
    """CLIP's text encoder: the last hidden state after the final normalisation, of every token, padding included.

    There is no mask of padding: Stable Diffusion's networks were trained to attend to it.

    Args:
        model: The network.
        tokenizer: Its tokenizer.

    Raises:
        UsageError: They are of different sizes.
    """

    def __init__(self, model: CLIPTextModel, tokenizer: PromptTokenizer) -> None:
        super().__init__()
        ids, positions = model.config.vocab_size, model.config.max_position_embeddings
        if len(tokenizer) > ids or tokenizer.length > positions:
            raise UsageError(
                f"the tokenizer has {len(tokenizer)} ids and captions of {tokenizer.length}, "
                f"the text encoder {ids} and {positions}",
                remedy="take both from one repository, or build both from one vocabulary",
            )
        self.model, self.tokenizer = model, tokenizer
        self._warned = False

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Encodes captions; "" is the empty prompt of guidance.

        A caption that is too long is cut; the first time, a warning says where.

        Returns:
            B T c, in the type of the weights: computed in it, whatever the surrounding precision.
        """
        ids, rest = self.tokenizer(captions)
        self._warn(rest)
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, enabled=False):
            states: Tensor = self.model(input_ids=ids.to(device)).last_hidden_state
        return states

    def _warn(self, rest: Sequence[str]) -> None:
        tail = next(filter(None, rest), "")
        if not tail or self._warned:
            return
        self._warned = True
        shown = tail if len(tail) <= _SHOWN else f"{tail[:_SHOWN]}..."
        logging.getLogger(__name__).warning(
            "captions are cut to %d tokens; of the first one '%s' is left out (said once)", self.tokenizer.length, shown
        )


def word_encoder(
    vocabulary: Sequence[str], length: int = 40, width: int = 64, layers: int = 2, heads: int = 4
) -> PromptEncoder:
    """An untrained encoder of words, of `nano`'s sizes by default; its inner layers are twice as wide.

    Args:
        vocabulary: The words.
        length: Ids per caption, the two brackets included.
        width: c.
        layers: Its transformer blocks.
        heads: Heads of its attention; they divide `width`.

    Raises:
        UsageError: The vocabulary or the sizes do not work.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = WordPrompts(vocabulary, length)
    if heads < 1 or layers < 1 or width < 1 or width % heads:
        raise UsageError(f"{layers} layers of width {width} with {heads} heads: the heads must divide the width")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        bos_token_id=_START,
        eos_token_id=_END,
        pad_token_id=_PAD,
        projection_dim=width,
    )
    return PromptEncoder(CLIPTextModel(config), tokenizer)


def drop_prompts(captions: Sequence[str], share: float, draws: Tensor) -> list[str]:
    """Captions of which a share is replaced by the empty prompt, so that a network learns to do without.

    Args:
        captions: B captions.
        share: The probability, in [0, 1].
        draws: B numbers uniform in [0, 1).

    Raises:
        UsageError: The share is no probability.
    """
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"the share of dropped prompts must lie in [0, 1], got {share}")
    return ["" if draw < share else caption for caption, draw in zip(captions, draws.flatten().tolist(), strict=True)]
