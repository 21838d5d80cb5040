"""Two processes over one datamodule: writes down which ids each rank trained on and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.data.module import InpaintingData


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[list[str]]] = {"train": [], "val": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen["train"].append(batch["id"])
        return (self.weight - batch["image"].mean()).square().sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.seen["val"].append(batch["id"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def main(out: Path, devices: int, batch_size: int) -> None:
    """Trains two epochs; every rank writes what it saw to `OUT/rankN.json`."""
    module = Recorder()
    data = InpaintingData(
        size=32, batch_size=batch_size, train_count=24, val_count=9, mask="center", train_mask="center"
    )
    strategy = "ddp_fork" if devices > 1 else "auto"
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=2, enable_checkpointing=False, **quiet
    )
    module.on_fit_end = lambda: write(out, module, trainer)  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)


def write(out: Path, module: Recorder, trainer: Trainer) -> None:
    """In the process of each rank: under ddp_fork its memory is gone afterwards."""
    (out / f"rank{trainer.global_rank}.json").write_text(json.dumps(module.seen))
