"""Checkpoints that resume to the bit, a moving average of the weights, and whose settings a resumed run has."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from zoo.cli.interrupt import Stopped
from zoo.errors import WeightsError

AGREE_EVERY = 8  # batches between two looks of several processes at each other's signals


class RunCheckpoint(ModelCheckpoint):
    """`last.ckpt` every so many iterations, at the end, and when the run is stopped.

    SIGTERM and SIGINT set a flag that is looked at after a whole step: a checkpoint made in the middle of one (the
    generator stepped, the discriminator not yet) would not resume to the same weights. A second signal does not wait.
    When a step fails, the checkpoint before it is kept.

    Args:
        folder: Where `last.ckpt` goes.
        every: Iterations between two checkpoints.
        advice: How to go on, for the message after a signal.
    """

    def __init__(self, folder: str | Path, every: int, advice: str = "") -> None:
        super().__init__(
            dirpath=folder,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=every,
            save_on_exception=True,
            enable_version_counter=False,
        )
        self.every, self.advice = every, advice
        self._signal = 0
        self._whole = True
        self._before = 0
        self._handlers: dict[int, Any] = {}
        self._generators: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            raise Stopped(number, self.advice)
        self._signal = number
        print("zoo: stopping after this step, to save a checkpoint", file=sys.stderr, flush=True)

    def _restore_handlers(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._generators is not None:
            # Not earlier: making the loaders' iterators draws from torch's generator, in a resumed run once more.
            _restore_generators(self._generators)
            self._generators = None
        self._whole, self._before = False, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Replaces ModelCheckpoint's, which under manual optimization warns that weights are saved after the step.
        self._whole = True
        stepped = trainer.global_step > self._before
        if stepped and trainer.global_step % self.every == 0:
            self.save(trainer)
        if stepped and self._asked_to_stop(trainer, batch_idx):
            raise Stopped(self._signal or signal.SIGTERM, self.advice)

    def _asked_to_stop(self, trainer: Trainer, batch_idx: int) -> bool:
        if trainer.world_size == 1:
            return bool(self._signal)
        if batch_idx % AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves before validation, so that a process killed during a long one loses no step."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self._signal and trainer.world_size == 1 and trainer.state.fn == "fit":
            raise Stopped(self._signal, self.advice)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing more to save: see `on_validation_start`."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing to save: checkpoints go by iterations."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        agreed = isinstance(exception, Stopped) or trainer.world_size == 1  # saving needs every process
        disk = isinstance(exception, OSError)
        if self._whole and agreed and not disk and trainer.global_step and not trainer.sanity_checking:
            self.save(trainer)
        self._restore_handlers()

    def save(self, trainer: Trainer) -> None:
        """Writes `last.ckpt`, unless this iteration's is there."""
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["generators"] = _generators()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._generators = checkpoint.get("generators")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; its tensors are read from the disk when they are looked at.

    Raises:
        WeightsError: There is no such file, or it is no checkpoint.
    """
    if not path.is_file():
        raise WeightsError("there is no such checkpoint", where=str(path), remedy="check the path")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"the checkpoint cannot be read: {reason}", where=str(path), remedy="resume from another, or train anew"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError("this is no checkpoint of a training run", where=str(path), remedy="resume from another")
    return content


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


class Ema(EMAWeightAveraging):
    """An exponential moving average of the parameters: validated, exported, and part of every checkpoint.

    Args:
        decay: How much of the average stays at every iteration.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay, use_buffers=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        frozen = tuple(f"{name}." for name in getattr(pl_module, "frozen", ()))
        current = checkpoint.get("current_model_state", {})
        checkpoint["current_model_state"] = {k: v for k, v in current.items() if not k.startswith(frozen)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # The average is loaded strictly, and frozen networks are not in the file: they come from the module.
        checkpoint["state_dict"] = {**pl_module.state_dict(), **checkpoint["state_dict"]}
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def finish(self, pl_module: LightningModule) -> None:
        """Puts the average into the module; Lightning does so too, but not where a finished run is resumed."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)


class CommandLineWins(Callback):
    """Keeps the learning rates (and betas, ...) of the command line where a checkpoint would bring back its own.

    Args:
        changed: The names of the hyperparameters that differ; nothing is touched where it is empty, so that a
            schedule goes on where it was.
    """

    def __init__(self, changed: list[str]) -> None:
        self.changed = changed
        self._fresh: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fresh = [
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        schedulers = {id(c.scheduler.optimizer): c.scheduler for c in trainer.lr_scheduler_configs}
        for optimizer, groups in zip(trainer.optimizers, self._fresh, strict=True):
            scheduler = schedulers.get(id(optimizer))
            if self.changed:
                scheduled = ("lr",) if isinstance(scheduler, LambdaLR) else ()
                for group, fresh in zip(optimizer.param_groups, groups, strict=True):
                    group.update({k: v for k, v in fresh.items() if k not in scheduled})
            if isinstance(scheduler, LambdaLR):
                _reschedule(scheduler, [group["initial_lr"] for group in groups])


def _reschedule(scheduler: LambdaLR, rates: list[float]) -> None:
    """Puts the learning rates where this run's schedule has them: a checkpoint brings back its own base rates.

    Where rates and length are those of the checkpoint, the same bits come out.
    """
    scheduler.base_lrs[:] = rates
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, rate, factor in zip(scheduler.optimizer.param_groups, rates, factors, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor
