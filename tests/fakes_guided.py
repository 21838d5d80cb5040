"""A method that reads edges and segmentations where it is given them, and shows in the hole what it saw."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.batch import Batch
from zoo.keyed import Noise
from zoo.module import InpaintingModule


class Guided(InpaintingModule):
    """Red: edges. Green: class ids / 10. Blue: how many of the two it was not given, halved."""

    trainable: ClassVar[bool] = False  # so that it needs no weights
    uses = frozenset({"edge", "segmentation"})

    def __init__(self, size: int = 24) -> None:
        super().__init__(size=size)
        self.network = nn.Conv2d(3, 3, 1)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        nothing = torch.zeros_like(batch["mask"])
        red = batch.get("edge", nothing)
        green = batch["segmentation"][:, None] / 10 if "segmentation" in batch else nothing
        missing = ("edge" not in batch) + ("segmentation" not in batch)
        return torch.cat([red, green, nothing + missing / 2], 1)
