"""Trains a tiny CMA with two processes and with one, and saves the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset

from tests.fakes_cma import make, scenes, some, trainer
from tests.toys import Strided
from zoo.batch import Batch
from zoo.models.cma import CMA


class Plain(CMA):
    """With gradients as steps: Adam's would blow rounding of gradients near zero up to whole steps."""

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        return {name: SGD(o.param_groups, self.options["lr"]) for name, o in super().optimizers_by_name().items()}


class Squares(Dataset[int]):
    """Eight scenes by number."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


def collate(numbers: list[int]) -> Batch:
    return some(scenes(8), *numbers)


def main(devices: int, folder: Path) -> None:
    """Two steps of a batch of four."""
    module = Plain(**make(lr=0.1, wpa_mode="positive").hparams)
    torch.manual_seed(0)
    module.load_state_dict(make().state_dict())
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    forked = DDPStrategy(start_method="fork", find_unused_parameters=True)  # ten seconds faster than a launch
    settings = {"devices": devices, "strategy": forked if devices > 1 else "auto", "use_distributed_sampler": False}
    fit = trainer(max_steps=2, **settings)
    fit.fit(module, DataLoader(Squares(), batch_size=4 // devices, collate_fn=collate, sampler=Strided(8)))
    if fit.is_global_zero:
        state = {name: p.detach() for name, p in module.named_parameters()}
        torch.save({"state": state, "start": start}, folder / f"{devices}.pt")


def one_and_two(folder: Path) -> None:
    """Both, first the two: a process that has trained cannot be forked."""
    for devices in (2, 1):
        main(devices, folder)
