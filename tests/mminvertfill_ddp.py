"""Trains a tiny MMInvertFill with two processes and with one: `python -m tests.mminvertfill_ddp FOLDER`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from tests.fakes_cma import some, trainer
from tests.fakes_mminvertfill import guided, make
from tests.nigdt_ddp import Squares
from tests.toys import Strided
from zoo.batch import Batch
from zoo.keyed import Noise, torch_generator
from zoo.models.mminvertfill import MMInvertFill, stylegan_discriminator
from zoo.models.mminvertfill.stylegan_discriminator import minibatch_std


class Plain(MMInvertFill):
    """Gradients are its steps, since Adam's would blow rounding up to whole ones; noise is of each sample."""

    folder: Path

    def on_train_end(self) -> None:
        """Each process leaves its own mean latent."""
        if self.stage == "inpaint":
            torch.save(self.mean.online, self.folder / f"mean-{self.trainer.world_size}-{self.global_rank}.pt")

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        return {
            name: SGD([p for group in adam.param_groups for p in group["params"]], 0.003)
            for name, adam in super().optimizers_by_name().items()
        }

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        calls, plain = count(), {name: getattr(torch, name) for name in ("randn", "rand", "randint")}

        def keyed(name: str) -> Any:
            def draw(*arguments: Any, generator: Any = None, **options: Any) -> Tensor:
                if generator is not None:
                    return plain[name](*arguments, generator=generator, **options)
                call = f"{self.iteration} {next(calls)}"
                if name == "randint" or arguments == ((),):  # of all samples together
                    return plain[name](*arguments, generator=torch_generator(call))
                ids = batch["id"][: arguments[0]]
                noise = Noise(ids, 5)
                made = noise.normal if name == "randn" else noise.uniform
                torch.__dict__.update(plain)  # which is what these call
                try:
                    return made(call, arguments[1:])
                finally:
                    torch.__dict__.update(patched)

            return draw

        patched = {name: keyed(name) for name in plain}
        torch.__dict__.update(patched)
        try:
            super().training_step(batch, batch_idx)
        finally:
            torch.__dict__.update(plain)


def collate(numbers: list[int]) -> Batch:
    """Scenes with as many edges in each: an entropy that is balanced over a batch then is so over any part of it."""
    batch = some(guided(8), *numbers)
    first = guided(1)["edge"]
    batch["edge"] = torch.cat([first.roll((8 * (k % 2), 8 * (k % 3)), (2, 3)) for k in numbers])
    batch["id"] = [f"squares/{k}" for k in numbers]
    return batch


def main(stage: str, devices: int, folder: Path) -> None:
    """Two steps of a batch of four."""
    # Over a part of a batch the deviation would be another; and the running mean of path lengths is each process's own.
    stylegan_discriminator.minibatch_std = lambda x: minibatch_std(x, 1)  # type: ignore[assignment]
    options = {"stage": stage, "pl": 0.0, "r1_every": 1, "w_l1_hole": 1.0, "tau": 0.5, "mean_eps": 0.6, "w_hrf": 1.0}
    module = Plain(**make(**options).hparams)
    module.load_state_dict(make(lively=True, **options).state_dict())
    module.folder = folder
    start = {name: p.detach().clone() for name, p in module.named_parameters() if not name.startswith("phi")}
    forked = DDPStrategy(start_method="fork", find_unused_parameters=True)  # ten seconds faster than a launch
    settings: dict[str, Any] = {"devices": devices, "strategy": forked if devices > 1 else "auto"}
    fit = trainer(max_steps=2, use_distributed_sampler=False, **settings)
    fit.fit(module, DataLoader(Squares(), batch_size=4 // devices, collate_fn=collate, sampler=Strided(8)))
    if fit.is_global_zero:
        state = {name: t.detach() for name, t in module.state_dict().items() if not name.startswith("phi")}
        torch.save({"state": state, "start": start}, folder / f"{stage}-{devices}.pt")


def one_and_two(folder: Path) -> None:
    """Both, for every stage; first the two: a process that has trained cannot be forked."""
    for devices in (2, 1):
        for stage in MMInvertFill.stages:
            main(stage, devices, folder)
