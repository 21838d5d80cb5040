"""A two-network method and a tiny dataset, small enough that a test can train them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.batch import Batch, finish_batch
from zoo.keyed import Noise
from zoo.module import InpaintingModule


class Toy(InpaintingModule):
    """A generator of one convolution, a discriminator of one, and a frozen network."""

    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)
    frozen: ClassVar[tuple[str, ...]] = ("perceptual",)

    def __init__(
        self, size: int = 16, lr: float = 0.1, noisy: bool = False, clip_norm: float = 0.0, accumulate: int = 1
    ) -> None:
        super().__init__(size=size, multiple=4, clip_norm=clip_norm, accumulate=accumulate)
        self.save_hyperparameters()
        self.generator = nn.Conv2d(4, 3, 3, padding=1)
        self.discriminator = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 2, 3))
        self.perceptual = nn.Conv2d(3, 1, 1).requires_grad_(False)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.sigmoid(self.generator(torch.cat([image, mask], 1)))

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        raw: Tensor = self(batch["image"], batch["mask"])
        if self.hparams["noisy"]:
            raw = raw + 0.1 * noise.normal("latent", raw.shape[1:], raw.device)
        return raw

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        lr = self.hparams["lr"]
        return {
            "generator": SGD(self.generator.parameters(), lr=lr),
            "discriminator": SGD(self.discriminator.parameters(), lr=lr),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        image, mask = batch["image"], batch["mask"]
        raw = self(torch.where(mask > 0.5, 0.5, image), mask)
        with self.turn("discriminator") as minimize:
            real, fake = self.discriminator(
                torch.cat([torch.cat([image, mask], 1), torch.cat([raw.detach(), mask], 1)])
            ).chunk(2)
            minimize((1 - real).relu().mean() + (1 + fake).relu().mean())
        with self.turn("generator") as minimize:
            adversarial = -self.discriminator(torch.cat([raw, mask], 1)).mean()
            loss = (raw - image).abs().mean() + 0.01 * adversarial + 0.01 * self.perceptual(raw).mean()
            minimize(loss)
        self.log_terms("train", {"loss": loss})


class Coder(Toy):
    """The same with a stage before, which trains the discriminator alone and cannot complete an image."""

    stages: ClassVar[tuple[str, ...]] = ("code", "inpaint")

    def __init__(self, size: int = 16, lr: float = 0.1, stage: str = "") -> None:
        super().__init__(size=size, lr=lr)
        self.save_hyperparameters()
        self.stage = stage or self.stages[0]

    @property
    def completes(self) -> bool:
        return self.stage == "inpaint"

    def validate_batch(self, batch: Batch) -> dict[str, list[float]]:
        if self.training or torch.is_grad_enabled():
            raise ValueError("validation is without gradients, in evaluation mode")
        numbers = [float(sample.rpartition("/")[2]) for sample in batch["id"]]
        return {"number": numbers, "even": [n if n % 2 == 0 else float("nan") for n in numbers], "none": [float("nan")]}


class Scenes(Dataset[dict[str, object]]):
    """Random images with one square hole, uint8, fixed by index."""

    def __init__(self, count: int = 16, size: int = 16) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, object]:
        image = torch.randint(0, 256, (3, self.size, self.size), generator=torch.Generator().manual_seed(index))
        mask = torch.zeros(1, self.size, self.size, dtype=torch.uint8)
        mask[:, 4:10, 4:10] = 1
        return {"id": f"scenes/{index}", "image": image.to(torch.uint8), "mask": mask}


def collate(items: list[dict[str, object]]) -> Batch:
    raw: dict[str, object] = {"id": [i["id"] for i in items]}
    raw |= {k: torch.stack([i[k] for i in items]) for k in ("image", "mask")}  # type: ignore[misc]
    return finish_batch(raw)


class Strided(Sampler[int]):
    """Every world-th index, from the rank on, in order: the batches of all ranks together are those of one process."""

    def __init__(self, count: int) -> None:
        self.count = count

    def _mine(self) -> range:
        together = torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        return range(rank, self.count, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self._mine())

    def __len__(self) -> int:
        return len(self._mine())


def loader(count: int = 16, batch_size: int = 4, size: int = 16) -> DataLoader[dict[str, object]]:
    return DataLoader(Scenes(count, size), batch_size=batch_size, collate_fn=collate, sampler=Strided(count))
