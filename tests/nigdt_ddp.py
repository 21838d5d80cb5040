"""Trains a tiny NIGDT with two processes and with one, and saves the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset

from tests.fakes_cma import scenes, some, trainer
from tests.fakes_nigdt import make
from tests.toys import Strided
from zoo.batch import Batch
from zoo.keyed import Noise
from zoo.models.nigdt import NIGDT

IDS = [0, 0, 1, 2, 3, 4, 5, 4]  # an image twice in each batch: in different processes, and in one


class Plain(NIGDT):
    """Gradients are its steps, since Adam's would blow rounding up to whole ones; noise is of each sample."""

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        return {
            name: SGD([p for group in adam.param_groups for p in group["params"]], 0.01)
            for name, adam in super().optimizers_by_name().items()
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        calls = iter(("generative", "reconstructive"))

        def randn_like(x: Tensor) -> Tensor:
            return Noise(batch["caption"], self.iteration).normal(next(calls), x.shape[1:])

        plain, torch.randn_like = torch.randn_like, randn_like  # type: ignore[assignment]
        try:
            super().training_step(batch, batch_idx)
        finally:
            torch.randn_like = plain


class Squares(Dataset[int]):
    """Eight scenes by number."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


def collate(numbers: list[int]) -> Batch:
    """Scenes; the noise of each is keyed by its caption, which is its own."""
    batch = some(scenes(8), *numbers)
    batch["id"] = [f"squares/{IDS[k]}" for k in numbers]
    batch["caption"] = [f"{caption} {'the ' * k}" for k, caption in zip(numbers, batch["caption"], strict=True)]
    return batch


def main(stage: str, devices: int, folder: Path) -> None:
    """Two steps of a batch of four."""
    module = Plain(**make(stage=stage, text_length=20, l1_hole=1.0, kl=3.0, l1=2.0).hparams)
    torch.manual_seed(0)
    module.load_state_dict(make(lively=True, stage=stage, text_length=20).state_dict())
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    forked = DDPStrategy(start_method="fork", find_unused_parameters=True)  # ten seconds faster than a launch
    settings: dict[str, Any] = {"devices": devices, "strategy": forked if devices > 1 else "auto"}
    fit = trainer(max_steps=2, use_distributed_sampler=False, **settings)
    fit.fit(module, DataLoader(Squares(), batch_size=4 // devices, collate_fn=collate, sampler=Strided(8)))
    if fit.is_global_zero:
        state = {name: p.detach() for name, p in module.named_parameters()}
        torch.save({"state": state, "start": start}, folder / f"{stage}-{devices}.pt")


def one_and_two(folder: Path) -> None:
    """Both, for every stage; first the two: a process that has trained cannot be forked."""
    for devices in (2, 1):
        for stage in NIGDT.stages:
            main(stage, devices, folder)
