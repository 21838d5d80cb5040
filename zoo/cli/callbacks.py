"""What shows how a training run goes: progress on stderr, and the images for the picture at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from zoo.batch import Batch
from zoo.cli.files import save_png
from zoo.cli.progress import Meter, figures

SHOWN = ("l1_hole", "colour_fidelity", "shape_fidelity", "psnr")


class Samples(Callback):
    """Keeps the first validation images for the picture at the end, and counts the training images.

    Args:
        count: How many to keep.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count
        self.batch: Batch | None = None
        self.seen = 0
        self.validated_at = -1
        self.values: dict[str, float] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += len(batch["id"]) * trainer.world_size

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        missing = self.count - (len(self.batch["id"]) if self.batch else 0)
        if missing > 0:
            kept = {k: v[:missing].cpu() if isinstance(v, Tensor) else v[:missing] for k, v in batch.items()}
            self.batch = Batch(**kept) if self.batch is None else _join(self.batch, kept)  # type: ignore[typeddict-item]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated_at = trainer.global_step
        self.values = _values(trainer, "val/")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "validated_at": self.validated_at, "values": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"]


class PredictionWriter(BasePredictionWriter):
    """Writes each completed image as FOLDER/ID.png.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("batch")
        self.folder = folder

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        images = prediction["image"].permute(0, 2, 3, 1).cpu().numpy()
        for sample, image in zip(prediction["id"], images, strict=True):
            save_png(image, self.folder / f"{sample}.png")


def _join(first: Batch, second: dict[str, Any]) -> Batch:
    values: dict[str, Any] = dict(first)
    joined = {k: torch.cat([v, second[k]]) if isinstance(v, Tensor) else v + second[k] for k, v in values.items()}
    batch: Batch = Batch(**joined)  # type: ignore[typeddict-item]
    return batch


def shown(values: dict[str, float]) -> dict[str, float]:
    """The figures worth a line: those of `SHOWN`, each followed by its variants (`guided_l1_hole`); or, where there are
    none of these, all."""
    chosen = [name for last in SHOWN for name in values if name == last or name.endswith(f"_{last}")]
    return {name: values[name] for name in chosen} or values


def _values(trainer: Trainer, prefix: str) -> dict[str, float]:
    metrics = trainer.callback_metrics
    return {k.removeprefix(prefix): float(v) for k, v in sorted(metrics.items()) if k.startswith(prefix)}


class FitProgress(Callback):
    """Step, losses, speed and validation figures on stderr while a method trains.

    Args:
        stage: The stage that is trained, the first word of every line.
        every: Iterations between two lines.
    """

    def __init__(self, stage: str, every: int) -> None:
        self.stage, self.every = stage, max(1, every)
        self._meter: Meter | None = None
        self._mark = (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._meter = Meter(self.stage, total).__enter__()
            self._mark = (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._meter is None:
            return
        step = trainer.global_step
        first, start = self._mark
        if step > first and (step == trainer.max_steps or step % self.every == 0):
            rate = (step - first) / max(time.monotonic() - start, 1e-9)
            self._mark = (step, time.monotonic())
            self._meter.update(
                step, f"{figures(_values(trainer, 'train/'))}  {rate:.3g} it/s", self._left(trainer, rate)
            )
        else:
            self._meter.update(step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._meter is None or trainer.sanity_checking:
            return
        values = figures(shown(_values(trainer, "val/")))
        self._meter.say(f"{self.stage} {trainer.global_step}  val {values}")
        self._mark = (trainer.global_step, time.monotonic())  # validation is no part of the training speed

    @staticmethod
    def _left(trainer: Trainer, rate: float) -> str:
        return f"{_clock((trainer.max_steps - trainer.global_step) / rate)} left" if trainer.max_steps > 0 else ""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._meter is not None:
            self._meter.close()
            self._meter = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
