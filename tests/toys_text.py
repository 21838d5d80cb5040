"""Text-guided methods, small enough that a test can train them on the words of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from zoo.batch import Batch
from zoo.keyed import Noise
from zoo.module import InpaintingModule
from zoo.words import WordTokenizer


class Speller(InpaintingModule):
    """Paints the hole in one colour, the mean over the words of a colour for each."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})

    def __init__(self, size: int = 32, lr: float = 0.1, vocabulary: Sequence[str] = (), stage: str = "") -> None:
        super().__init__(size=size, multiple=4, stage=stage)
        self.save_hyperparameters()
        self.tokenizer = WordTokenizer(vocabulary, length=24)
        self.colours = nn.Embedding(len(self.tokenizer), 3)

    def inpaint(self, batch: Batch, noise: Noise | None) -> Tensor:
        tokens = self.tokenizer(batch["caption"])
        weight = tokens.words.to(self.device, torch.float32)[..., None]
        colour = (self.colours(tokens.ids.to(self.device)) * weight).sum(1) / weight.sum(1)
        return colour.sigmoid()[:, :, None, None].expand_as(batch["image"])

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        return {"colours": Adam(self.colours.parameters(), self.hparams["lr"])}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        with self.turn("colours") as minimize:
            loss = ((self.inpaint(batch, None) - batch["image"]).abs() * batch["mask"]).mean()
            minimize(loss)
        self.log_terms("train", {"l1": loss})


class TwoSteps(Speller):
    """The same in two stages."""

    stages: ClassVar[tuple[str, ...]] = ("words", "inpaint")


class Chooser(Speller):
    """A method that makes its own list: words of a least length, as its arguments say."""

    def __init__(self, size: int = 32, least: int = 1, vocabulary: Sequence[str] = ()) -> None:
        super().__init__(size=size, vocabulary=vocabulary)
        self.save_hyperparameters()

    @classmethod
    def vocabulary_for(cls, arguments: Mapping[str, Any], captions: Callable[[], Iterable[str]]) -> list[str]:
        return [word for word in super().vocabulary_for(arguments, captions) if len(word) >= arguments["least"]]


class Bringer(Speller):
    """A method that brings its words, as one with a pretrained encoder does."""

    @classmethod
    def vocabulary_for(cls, arguments: Mapping[str, Any], captions: Callable[[], Iterable[str]]) -> list[str]:
        return ["red", "green", "blue"]
