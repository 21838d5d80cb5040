"""The LightningModule that every method is: one way to complete an image, one way to take a step.

A method writes `inpaint` (the raw prediction), `optimizers_by_name` and `training_step`. Hiding the hole, padding,
compositing, iterations, clipping, accumulation, validation and what a checkpoint holds are here, once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from zoo.batch import UNKNOWN_CLASS, Batch, check_batch
from zoo.compose import composite, hide, pad_to_multiple, to_uint8, unpad
from zoo.errors import UsageError, WeightsError
from zoo.keyed import Noise, key
from zoo.metrics import per_image


class Completed(NamedTuple):
    """What a method made of a batch.

    Attributes:
        raw: The prediction over the whole image, B 3 H W in [0, 1].
        image: The composite: `raw` in the hole, the input elsewhere, bit-exact; B 3 H W in [0, 1].
    """

    raw: Tensor
    image: Tensor


def hide_truth(batch: Batch, guidance: Sequence[str] = ()) -> Batch:
    """A copy of a batch in which nothing derived from hole pixels is left.

    The hole is mid-grey, the segmentation unknown inside it, edges are withheld altogether (blur and hysteresis carry
    hole content outside it). `edge_mask` and `segmentation_mask` (B 1 H W, 1 = missing) say what is missing.

    Args:
        batch: A batch under the contract of `zoo.batch`.
        guidance: Which of "edge" and "segmentation" stay whole, as a user who draws them would give them.
    """
    mask = batch["mask"]
    hidden = Batch(**batch)
    hidden["image"] = hide(batch["image"], mask)
    if "edge" in batch:
        shown = "edge" in guidance
        hidden["edge"] = batch["edge"] if shown else torch.zeros_like(batch["edge"])
        hidden["edge_mask"] = torch.zeros_like(mask) if shown else torch.ones_like(mask)
    if "segmentation" in batch:
        shown = "segmentation" in guidance
        classes = batch["segmentation"]
        hidden["segmentation"] = classes if shown else classes.masked_fill(mask[:, 0] > 0.5, UNKNOWN_CLASS)
        hidden["segmentation_mask"] = torch.zeros_like(mask) if shown else mask
    return hidden


def pad_batch(batch: Batch, multiple: int) -> Batch:
    """Pads every map of a batch right and bottom to a multiple, the image by reflection (see `pad_to_multiple`)."""
    padded = Batch(**batch)
    for name in ("image", "mask", "edge", "edge_mask", "segmentation_mask"):
        if name in batch:
            padded[name] = pad_to_multiple(batch[name], multiple)
    if "segmentation" in batch:
        height, width = batch["segmentation"].shape[-2:]
        edges = (0, -width % multiple, 0, -height % multiple)
        padded["segmentation"] = F.pad(batch["segmentation"], edges, value=UNKNOWN_CLASS)
    return padded


class InpaintingModule(LightningModule):
    """Base of all methods.

    Args:
        size: The native image size of the preset, in pixels.
        multiple: What height and width must be a multiple of; other sizes are padded.
        stage: The training stage, one of `stages`; the first where empty.
        clip_norm: Gradients of each optimizer are clipped to this norm; 0 switches it off.
        accumulate: Batches per optimizer step.

    Attributes:
        needs: Keys of the batch the method cannot do without; checked against the data before any work.
        uses: Of "edge" and "segmentation", what the method can do without: training sees it where the data has it, and
            `complete` only where `guidance` names it.
        stages: Names of the training stages, in order; the weights of the last are the method's.
        training_only: Submodules that completing an image does without; left out of the weights of the last stage, but
            not of an earlier one's, from which a later stage takes them over.
        frozen: Submodules that are never trained; left out of checkpoints and exported weights.
        starting: Constructor arguments that say what a training starts from; weights files do not hold them, so that
            a training that starts from these weights keeps them.
        stochastic: Whether, inside `sampling()`, another seed gives another completion.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image", "mask"})
    uses: frozenset[str] = frozenset()  # of an instance, too: an ablation may leave one out
    stages: ClassVar[tuple[str, ...]] = ("inpaint",)
    training_only: ClassVar[tuple[str, ...]] = ()
    frozen: ClassVar[tuple[str, ...]] = ()
    starting: ClassVar[tuple[str, ...]] = ()
    trainable: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def __init__(
        self, *, size: int, multiple: int = 8, stage: str = "", clip_norm: float = 0.0, accumulate: int = 1
    ) -> None:
        super().__init__()
        if stage and stage not in self.stages:
            raise UsageError(f"{type(self).__name__} has no stage '{stage}'", remedy=f"one of {', '.join(self.stages)}")
        if accumulate < 1:
            raise UsageError(f"accumulate must be at least 1, got {accumulate}")
        self.size, self.multiple = size, multiple
        self.stage = stage or self.stages[0]
        self.clip_norm, self.accumulate = clip_norm, accumulate
        self.automatic_optimization = False
        self._backwards: dict[str, int] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    # --- completing an image ---------------------------------------------------------------------------------------

    @property
    def completes(self) -> bool:
        """Whether the module of `self.stage` can complete images.

        False for a stage that trains something else first, such as an autoencoder or a network that matches words with
        regions. Such a stage is validated by `validate_batch`, leaves no sheet of samples, and its weights are refused
        wherever images are to be completed.
        """
        return True

    @property
    def licences(self) -> tuple[str, ...]:
        """The terms of published weights that a training starts from, in a line each: they hold for its weights too."""
        return ()

    def check_completes(self, where: str = "", method: str = "") -> None:
        """Refuses a module that cannot complete images.

        Args:
            where: The file its weights are from, for the error.
            method: The name of the method as the command line knows it; the name of the class where empty.

        Raises:
            WeightsError: It is of a stage for which `completes` is False.
        """
        if not self.completes:
            raise WeightsError(
                f"stage '{self.stage}' of {method or type(self).__name__} does not complete images",
                where=where,
                remedy="train the last stage and take its weights: "
                f"zoo fit --model {method or type(self).__name__} --stage {self.stages[-1]}",
            )

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        """The raw prediction, B 3 H W in [0, 1]; the one thing a method must write.

        Args:
            batch: The hole is mid-grey, H and W are multiples of `self.multiple`.
            noise: One generator per sample; a deterministic method ignores it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define inpaint(batch, noise)")

    @torch.no_grad()
    def complete(self, batch: Batch, seed: int = 0, guidance: Sequence[str] = ()) -> Completed:
        """Completes the holes of a batch: hide, pad, inpaint, unpad, composite.

        Args:
            batch: A batch under the contract of `zoo.batch`, on this module's device. What lies in the hole of `image`
                is not looked at; it may be NaN.
            seed: Another seed gives another completion, where the method draws noise.
            guidance: Which of "edge" and "segmentation" to show whole instead of hidden.

        Raises:
            DataError: The batch breaks the contract.
            WeightsError: The module is of a stage that does not complete images.
        """
        self.check_completes()
        check_batch(batch, self.needs)
        was_training = self.training
        if any(network.training for network in self.modules()):  # asking costs a tenth of setting
            self.eval()
        try:
            withheld = self.uses - set(guidance)
            shown = Batch(**{k: v for k, v in batch.items() if k not in withheld})  # type: ignore[typeddict-item]
            hidden = pad_batch(hide_truth(shown, guidance), self.multiple)
            raw = self.inpaint(hidden, Noise(batch["id"], seed)).float()
        finally:
            if was_training:
                self.train()
        raw = unpad(raw, *batch["image"].shape[-2:]).clamp(0.0, 1.0)
        return Completed(raw, composite(raw, batch["image"], batch["mask"]))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside it a method that gives its mean by default draws samples; every other method is as it was.

        A method whose constructor takes the scale `k` of its deviation overrides this: a `k` of 0 is 1 inside, and 0
        again afterwards, whatever was raised.
        """
        yield

    @classmethod
    def vocabulary_for(cls, arguments: Mapping[str, Any], captions: Callable[[], Iterable[str]]) -> list[str]:
        """The words `zoo fit` passes to a constructor that takes `vocabulary` and is configured without one.

        They are saved with the run and travel in the header of its weights. A constructor without `vocabulary` is
        never asked; one with it gives it the default `()`, so that a configuration may leave it out.

        Args:
            arguments: The constructor's other arguments, as configured.
            captions: Gives the training captions anew at each call; not called where they are not needed.

        Returns:
            Words for `zoo.words.WordTokenizer`; empty where this configuration goes without.

        Raises:
            UsageError: There is no word in the captions.
        """
        from zoo.words import vocabulary

        return vocabulary(captions())

    @classmethod
    def check_available(cls, settings: Mapping[str, Any] | None = None) -> None:
        """Refuses, before any work, what needs networks besides its weights that are not on this machine.

        Args:
            settings: Arguments of the constructor that differ from the defaults.

        Raises:
            WeightsError: They are not here; the error says how to get them.
        """

    @classmethod
    def stages_for(cls, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The stages that `zoo fit` trains in a configuration; all of `stages` where a method does not say otherwise.

        A method that can take a network from elsewhere leaves out the stage that would train it, but never the last.

        Args:
            arguments: The constructor's arguments, as configured.
        """
        return cls.stages

    # --- taking a step ---------------------------------------------------------------------------------------------

    def optimizers_by_name(self) -> dict[str, Optimizer]:
        """The optimizers of `self.stage`; the first leads: its steps are the iterations that `max_steps` counts."""
        raise NotImplementedError(f"{type(self).__name__} must define optimizers_by_name()")

    def schedulers_by_name(self) -> dict[str, torch.optim.lr_scheduler.LRScheduler]:
        """Learning-rate schedulers by the name of their optimizer, stepped after it. Optimizers: `self.by_name`."""
        return {}

    def configure_optimizers(self) -> Any:
        self.by_name = self.optimizers_by_name()
        self._schedulers = self.schedulers_by_name()
        return list(self.by_name.values()), list(self._schedulers.values())

    def on_train_start(self) -> None:
        """Lets each process draw numbers of its own: Lightning seeds all alike, and a checkpoint has those of one."""
        if self.trainer.world_size > 1:
            seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
            torch.manual_seed(key("process", seed, self.iteration, self.trainer.global_rank))

    @property
    def iteration(self) -> int:
        """How many steps the leading optimizer has taken."""
        return int(self.trainer.global_step)

    def total_iterations(self) -> int:
        """Iterations of the whole training, for a learning rate that falls until its end.

        Lightning's own estimate does not know of `accumulate`.

        Raises:
            UsageError: The training has no end.
        """
        trainer = self.trainer
        endless = trainer.estimated_stepping_batches == float("inf")  # the call sets num_training_batches
        if endless:
            raise UsageError(
                "a learning rate that falls linearly needs an end of the training",
                remedy="--trainer.max_steps N, or --model.decay constant",
            )
        if trainer.max_epochs is None or trainer.max_epochs < 0:
            return trainer.max_steps
        total = math.ceil(trainer.num_training_batches * trainer.max_epochs / self.accumulate)
        return min(total, trainer.max_steps) if trainer.max_steps >= 0 else total

    @contextmanager
    def turn(self, *names: str) -> Iterator[Callable[[Tensor], None]]:
        """One network's turn: only the parameters of its optimizer require gradients inside.

        Yields a function that takes the loss: backward, and at every `accumulate`-th call clip, step and zero. Written
        once here because Lightning leaves all of it to the module when there are two optimizers.

        Args:
            names: A key of `optimizers_by_name`; several where the parameters of one network are shared out among
                optimizers, which then step together.
        """
        for name in names:
            if self.trainer is None or name not in self.by_name:
                raise UsageError(f"no optimizer '{name}'", remedy=f"one of {', '.join(self.by_name)}")
        mine = {id(p) for name in names for p in _parameters(self.by_name[name])}
        others = [p for o in self.by_name.values() for p in _parameters(o) if id(p) not in mine and p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield lambda loss: self._minimize(names, loss)
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def _minimize(self, names: Sequence[str], loss: Tensor) -> None:
        self.manual_backward(loss / self.accumulate)
        self._backwards[names[0]] = self._backwards.get(names[0], 0) + 1
        if self._backwards[names[0]] % self.accumulate == 0:
            for name in names:
                self._step(name)

    def _step(self, name: str) -> None:
        index = list(self.by_name).index(name)
        wrapped = self.optimizers()
        optimizer = wrapped[index] if isinstance(wrapped, list) else wrapped
        if index > 0:
            # Lightning counts every optimizer's step in `global_step`, so that max_steps=10 would stop after five
            # batches of a GAN. These two hooks are how it counts: only the leading optimizer keeps them.
            optimizer._on_before_step = _nothing
            optimizer._on_after_step = _nothing
        optimizer.step()
        optimizer.zero_grad()
        if name in self._schedulers:
            self._schedulers[name].step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips here and not in the step: under fp16 gradients are unscaled just before this hook."""
        if self.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(_parameters(optimizer), self.clip_norm)

    def log_terms(self, split: str, terms: Mapping[str, Tensor | float]) -> None:
        """Logs the terms of a loss as `split/name`."""
        values = {f"{split}/{name}": torch.as_tensor(value).detach() for name, value in terms.items()}
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=1)

    # --- validation ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        completed = self.complete(batch)
        return {"id": batch["id"], "image": to_uint8(completed.image)}

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def validate_batch(self, batch: Batch) -> Mapping[str, list[float]]:
        """What validation measures in a stage that does not complete images (see `completes`).

        Args:
            batch: A validation batch with the whole truth, on this module's device; the module is in evaluation mode
                and records no gradients.

        Returns:
            Values per sample by name, a list as long as the batch for each; NaN where one does not apply. Their means
            over all samples of all processes are logged as `val/NAME`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define validate_batch(batch) for stage '{self.stage}'")

    def sheet(self) -> Tensor | None:
        """What a stage that does not complete images has to show for itself, B 3 H W in [0, 1]; None for nothing.

        `zoo fit` writes it at the end of the stage.
        """
        return None

    def _evaluate(self, batch: Batch) -> None:
        values = self._completion_scores(batch) if self.completes else self.validate_batch(batch)
        for name, scores in values.items():
            known = [score for score in scores if not math.isnan(score)]
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + sum(known), count + len(known))

    def _completion_scores(self, batch: Batch, guidance: Sequence[str] = ()) -> dict[str, list[float]]:
        completed = self.complete(batch, guidance=guidance)
        image, truth = to_uint8(completed.image), to_uint8(batch["image"])
        values = {k: v.tolist() for k, v in per_image(image, truth, batch["mask"], completed.raw).items()}
        judge = getattr(getattr(self.trainer, "datamodule", None), "judge", None)
        if judge is not None:
            values |= judge(batch, image)
        return values

    def _log_means(self, split: str) -> None:
        """Means over all images of all processes.

        Not Lightning's `sync_dist`: it averages sample counts in whole numbers, so that 9 images on 2 processes come
        out 9/8 too high, and waits for ever where one process has no value of a metric.
        """
        parts: list[dict[str, tuple[float, int]]] = [self._sums]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(parts, self._sums)
        self._sums = {}
        for name in sorted(set().union(*parts)):
            total = sum(part[name][0] for part in parts if name in part)
            count = sum(part[name][1] for part in parts if name in part)
            if count:
                self.log(f"{split}/{name}", total / count)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not _within(k, self.frozen)}
        checkpoint["backwards"] = dict(self._backwards)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._backwards = dict(checkpoint.get("backwards", {}))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, but tensors of `frozen` submodules may be absent.

        Raises:
            WeightsError: With `strict`, any other tensor is missing, unexpected or of another shape.
        """
        try:
            result = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:  # torch reports shapes that differ this way
            raise WeightsError(f"the tensors do not fit {type(self).__name__}: {error}") from error
        missing = [k for k in result.missing_keys if not _within(k, self.frozen)]
        if strict and (missing or result.unexpected_keys):
            found = f"{len(missing)} missing ({', '.join(missing[:3])}), {len(result.unexpected_keys)} unexpected"
            more = ", ".join(result.unexpected_keys[:3])
            raise WeightsError(
                f"the tensors do not fit {type(self).__name__}: {found} ({more})",
                remedy="these weights are of another method or another configuration",
            )
        return result

    def exported_state(self) -> dict[str, Tensor]:
        """The tensors that weights hold, on the CPU.

        Those of the last stage hold what completing an image needs: neither `training_only` nor `frozen` submodules.
        Those of an earlier stage leave out only `frozen`, since a later stage may take over everything else.
        """
        last = self.stage == self.stages[-1]
        left_out = (*self.training_only, *self.frozen) if last else self.frozen
        return {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if not _within(k, left_out)}


def _within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _nothing() -> None:
    """Takes the place of Lightning's step counter."""
