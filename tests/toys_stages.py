"""A text-guided method in two stages, the first of which cannot complete an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from zoo.batch import Batch
from zoo.keyed import Noise
from zoo.module import InpaintingModule
from zoo.words import WordTokenizer


class Painter(InpaintingModule):
    """First words and a network that matches them with colours; then a painter that these judge, frozen."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "caption"})
    stages: ClassVar[tuple[str, ...]] = ("match", "inpaint")
    training_only: ClassVar[tuple[str, ...]] = ("match",)

    def __init__(
        self, size: int = 32, lr: float = 0.1, width: int = 4, vocabulary: Sequence[str] = (), stage: str = ""
    ) -> None:
        super().__init__(size=size, multiple=4, stage=stage)
        self.save_hyperparameters()
        self.tokenizer = WordTokenizer(vocabulary, length=24)
        self.words = nn.Embedding(len(self.tokenizer), 3)
        self.match = nn.Linear(3, width)
        if self.stage == "inpaint":
            self.words.requires_grad_(False)
            self.match.requires_grad_(False)
            self.paint = nn.Conv2d(7, 3, 1)

    @property
    def completes(self) -> bool:
        return self.stage == "inpaint"

    def described(self, captions: Sequence[str]) -> Tensor:
        """The mean over the words of each caption, B 3."""
        tokens = self.tokenizer(captions)
        weight = tokens.words.to(self.device, torch.float32)[..., None]
        return (self.words(tokens.ids.to(self.device)) * weight).sum(1) / weight.sum(1).clamp(min=1)

    def scores(self, batch: Batch) -> Tensor:
        """How well each image (row) fits each caption (column), B B."""
        return self.match(batch["image"].mean((2, 3))) @ self.match(self.described(batch["caption"])).T

    def inpaint(self, batch: Batch, noise: Noise | None) -> Tensor:
        words = self.described(batch["caption"])[:, :, None, None].expand_as(batch["image"])
        raw: Tensor = self.paint(torch.cat([batch["image"], batch["mask"], words], 1)).sigmoid()
        return raw

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {self.stage: Adam(parameters, self.hparams["lr"])}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        with self.turn(self.stage) as minimize:
            loss = self.match_loss(batch) if self.stage == "match" else self.paint_loss(batch)
            minimize(loss)
        self.log_terms("train", {"loss": loss})

    def match_loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.scores(batch), torch.arange(len(batch["id"]), device=self.device))

    def paint_loss(self, batch: Batch) -> Tensor:
        image, mask = batch["image"], batch["mask"]
        hidden = Batch(**batch)
        hidden["image"] = torch.where(mask > 0.5, 0.5, image)
        raw = self.inpaint(hidden, None)
        painted = Batch(**batch)
        painted["image"] = raw
        return (raw - image).abs().mean() - 0.01 * self.scores(painted).diagonal().mean()

    def validate_batch(self, batch: Batch) -> Mapping[str, list[float]]:
        best = self.scores(batch).argmax(1).tolist()
        hits = [float(index == found) for index, found in enumerate(best)]
        return {"matched": hits, "matched_odd": [hit if i % 2 else float("nan") for i, hit in enumerate(hits)]}
