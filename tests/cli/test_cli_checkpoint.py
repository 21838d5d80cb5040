"""What the command line changes when a run is resumed: learning rates under a schedule too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from tests.toys import Toy, loader
from zoo.cli.checkpoint import CommandLineWins


class Falling(Toy):
    """A toy whose learning rate falls to zero over the training."""

    def schedulers_by_name(self) -> dict[str, LRScheduler]:
        total = self.trainer.max_steps
        return {name: LambdaLR(optimizer, lambda step: 1 - step / total) for name, optimizer in self.by_name.items()}


class Rates(Callback):
    """The learning rates that steps were taken with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        if optimizer is trainer.optimizers[0] or getattr(optimizer, "optimizer", None) is trainer.optimizers[0]:
            self.seen.append(optimizer.param_groups[0]["lr"])


def fit(module: Toy, steps: int, folder: Path, changed: list[str], resume: bool = False) -> list[float]:
    rates = Rates()
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, logger=False, enable_progress_bar=False, limit_val_batches=0,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[rates, CommandLineWins(changed)],
    )  # fmt: skip
    path = folder / "last.ckpt"
    trainer.fit(module, loader(), ckpt_path=str(path) if resume else None, weights_only=True)
    trainer.save_checkpoint(path)
    return rates.seen


def test_a_schedule_goes_on_with_the_rate_that_was_typed(tmp_path: Path) -> None:
    assert fit(Falling(lr=0.1), 2, tmp_path, []) == pytest.approx([0.1, 0.05])
    assert fit(Falling(lr=0.4), 4, tmp_path, ["lr"], resume=True) == pytest.approx([0.4 * 2 / 4, 0.4 * 1 / 4])


def test_a_lengthened_run_does_not_begin_at_zero(tmp_path: Path) -> None:
    fit(Falling(lr=0.1), 2, tmp_path, [])
    assert fit(Falling(lr=0.1), 4, tmp_path, [], resume=True) == pytest.approx([0.05, 0.025])
