"""Trains the toy with two processes and with one, and saves the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from tests.test_module import make, trainer
from tests.toys import loader


def main(devices: int, folder: Path) -> None:
    """Two steps of a batch of eight, and a validation."""
    toy = make()
    forked = DDPStrategy(start_method="fork", find_unused_parameters=True)  # ten seconds faster than a launch
    settings = {"devices": devices, "strategy": forked if devices > 1 else "auto", "use_distributed_sampler": False}
    fit = trainer(folder, max_steps=2, **settings)
    fit.fit(toy, loader(count=16, batch_size=8 // devices))
    # Nine images on two processes: five and four, so that a mean of means would be wrong.
    values = fit.validate(toy, loader(count=9, batch_size=2), verbose=False)[0]
    if fit.is_global_zero:
        torch.save({"state": toy.state_dict(), "values": values}, folder / f"{devices}.pt")


def one_and_two(folder: Path) -> None:
    """Both, first the two: a process that has trained cannot be forked."""
    for devices in (2, 1):
        main(devices, folder)
