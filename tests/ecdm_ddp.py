"""Trains a tiny ECDM with two processes and with one, and saves the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from tests.fakes_cma import some, trainer
from tests.fakes_ecdm import edged, make
from tests.nigdt_ddp import Squares
from tests.toys import Strided
from zoo.batch import Batch
from zoo.models.ecdm import ECDM


class Plain(ECDM):
    """Gradients are its steps, since Adam's would blow rounding up to whole ones."""

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        rate = 1.0 if "fitted" in self._parameters else 0.05
        return {
            name: SGD([p for group in made.param_groups for p in group["params"]], rate)
            for name, made in super().optimizers_by_name().items()
        }


def collate(numbers: list[int]) -> Batch:
    """Scenes by number."""
    batch = some(edged(8), *numbers)
    batch["id"] = [f"squares/{k}" for k in numbers]
    return batch


def main(stage: str, codec: str, devices: int, folder: Path) -> None:
    """Two steps of a batch of four."""
    module = Plain(**make(stage=stage, codec=codec, sail_max_timestep=700).hparams)
    module.load_state_dict(make(lively=True, stage=stage, codec=codec).state_dict())
    start = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    forked = DDPStrategy(start_method="fork", find_unused_parameters=True)  # ten seconds faster than a launch
    settings: dict[str, Any] = {"devices": devices, "strategy": forked if devices > 1 else "auto"}
    fit = trainer(max_steps=2, use_distributed_sampler=False, **settings)
    fit.fit(module, DataLoader(Squares(), batch_size=4 // devices, collate_fn=collate, sampler=Strided(8)))
    if fit.is_global_zero:
        state = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        torch.save({"state": state, "start": start}, folder / f"{stage}-{codec}-{devices}.pt")


def one_and_two(folder: Path) -> None:
    """Both, for every stage; first the two: a process that has trained cannot be forked."""
    for devices in (2, 1):
        for stage, codec in (*((stage, "pca") for stage in ECDM.stages), ("autoencoder", "kl")):
            main(stage, codec, devices, folder)
