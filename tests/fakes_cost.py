"""Methods whose cost is known on paper, for the tests of the cost pass. Reached by dotted path."""

from __future__ import annotations

import os
from typing import ClassVar

import torch
from torch import Tensor, nn

from tests.fakes_benchmark import Fake
from zoo.batch import Batch
from zoo.keyed import Noise

SIZE = 24
STEPS = 7


class Convolving(Fake):
    """Two layers, and one that only training would use."""

    parameters_read: ClassVar[int] = 4 * 8 * 9 + 8 + 8 * 3 + 3
    macs: ClassVar[int] = SIZE * SIZE * (4 * 8 * 9 + 8 * 3)
    evaluations: ClassVar[int] = 1

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 3, 1))
        self.critic = nn.Linear(1000, 1000)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        return torch.sigmoid(self.network(torch.cat([batch["image"], batch["mask"]], 1)))


class Sampling(Fake):
    """A denoiser that is no sub-module, once a step; and a small network that is called more often."""

    parameters_read: ClassVar[int] = 3 * 3 * 9 + 3 + 2 * 2
    macs: ClassVar[int] = STEPS * SIZE * SIZE * 3 * 3 * 9 + 3 * STEPS * 2 * 2
    evaluations: ClassVar[int] = STEPS

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.held = [nn.Conv2d(3, 3, 3, padding=1)]
        self.text = nn.Linear(2, 2, bias=False)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        image = batch["image"]
        for _ in range(STEPS):
            for _ in range(3):
                self.text(torch.ones(1, 2))
            image = self.held[0](image)
        return image.sigmoid()


class Reading(Fake):
    """A recurrent layer and a transformer layer, which are single operations where nothing is counted."""

    parameters_read: ClassVar[int] = 4 * 8 * (4 + 8 + 2) + 4 * 8 * 8 + 4 * 8 + 2 * 8 * 16 + 16 + 8 + 4 * 8
    macs: ClassVar[int] = 5 * 4 * 8 * (4 + 8) + 5 * (4 * 8 * 8 + 2 * 5 * 8 + 2 * 8 * 16)
    evaluations: ClassVar[int] = 1

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        words = self.layer(self.lstm(torch.ones(len(batch["image"]), 5, 4))[0])
        return batch["image"] + 0 * words.sum()


class Silent(Fake):
    """Nothing to be called and nothing to be read."""

    parameters_read: ClassVar[int] = 0
    macs: ClassVar[int] = 0
    evaluations: ClassVar[int] = 0


class Moody(Convolving):
    """Fails where the environment says so."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        if os.environ.get("ZOO_TEST_MOOD") == "exit":
            os._exit(3)
        if os.environ.get("ZOO_TEST_MOOD") == "raise":
            raise RuntimeError("not today")
        return super().inpaint(batch, noise)
