"""The datamodule: one way for every dataset to reach a method, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo.batch import Batch, finish_batch
from zoo.data import open_dataset
from zoo.data.base import Dataset
from zoo.data.disk_cache import DiskCache, cache_folder
from zoo.data.edges import canny
from zoo.data.loader import EvaluationLoader, Loader, TrainingLoader
from zoo.data.masked import CaptionRule, EvaluationSet, TrainingSet, judge_of
from zoo.errors import DataError, UsageError
from zoo.masks import parse_mixture


class InpaintingData(LightningDataModule):
    """Images with masks, captions and guidance, for training, validation, test and prediction.

    Batches travel as uint8 and become the floats of `zoo.batch` on the device.

    Args:
        name: A dataset: shapes, coco, folder, ... (`zoo list datasets`), or the dotted path of a class.
        root: The folder of its files, or of `shards` the URL; None is the dataset's default.
        size: Height and width of the images, in pixels.
        batch_size: Samples in a batch, per device.
        workers: Processes that read ahead. Small sets are fastest with 0: they stay decoded in memory.
        seed: Keys the order, the masks and the captions.
        mask: The mask kind, or mixture, of validation, test and prediction.
        train_mask: The mixture of training, drawn anew for every visit.
        train_count: At most so many training images, the first ones; None is the dataset's default.
        val_count: The same for validation.
        test_count: The same for test and prediction.
        caption: The caption of an image in evaluation: its "first", or one "keyed" by seed and id.
        cache_mb: Training and validation sets are kept decoded in memory where they fit into this many megabytes
            (each; shared out among the workers).
        cache_dir: Keeps decoded samples on disk, for sets that do not fit into memory: "auto" in `ROOT/.zoo`, or a
            folder. About 0.3 MB a sample at 256 pixels; filled in the first epoch (see `zoo.data.disk_cache`).
        edges: Whether batches hold Canny edges; None: where the method needs or uses them.
        mask_root: `folder` only: where the masks are.
        mask_threshold: `folder` only: grey masks are holes from this level (1 to 255) upwards.
        mask_invert: `folder` only: true where black marks the hole, false where white does beyond doubt.
        variant: Which of a dataset's variants, where it has some (coco, celebahq, ...; `zoo data info NAME`).
        split_rule: `cub` only: which of its two partitions.
        part: `openimages` only: which of its parts.
        ids_file: `openimages` only: a file with the ids to use.

    Raises:
        UsageError: An unknown mask kind, or a number out of range.
    """

    def __init__(
        self,
        name: str = "shapes",
        root: str | None = None,
        size: int = 64,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
        mask: str = "object",
        train_mask: str = "2*object,freeform,center",
        train_count: int | None = None,
        val_count: int | None = None,
        test_count: int | None = None,
        caption: CaptionRule = "first",
        cache_mb: float = 1000.0,
        cache_dir: str | None = None,
        edges: bool | None = None,
        mask_root: str | None = None,
        mask_threshold: int | None = None,
        mask_invert: bool | None = None,
        variant: str | None = None,
        split_rule: str | None = None,
        part: str | None = None,
        ids_file: str | None = None,
    ) -> None:
        super().__init__()
        for what, number, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("cache_mb", cache_mb, 0)):
            if number < least:
                raise UsageError(f"{what} must be at least {least}, got {number}")
        for mixture in (mask, train_mask):
            parse_mixture(mixture)
        self.name = self.dataset_name = name
        self.root, self.size = root, size
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.mask, self.train_mask, self.caption = mask, train_mask, caption
        self.counts = {"train": train_count, "val": val_count, "test": test_count}
        self.cache_mb, self.cache_dir, self.edges = cache_mb, cache_dir, edges
        self.options = {"mask_root": mask_root, "mask_threshold": mask_threshold, "mask_invert": mask_invert}
        self.options |= {"variant": variant, "split_rule": split_rule, "part": part, "ids_file": ids_file}
        self._datasets: dict[str, Dataset] = {}
        self._loader: TrainingLoader | None = None
        self._resume: dict[str, int] | None = None

    def dataset(self, split: str) -> Dataset:
        """The dataset of a split ("train", "val" or "test"), opened at the first call.

        Raises:
            DataError: Its files are missing or damaged.
            UsageError: An unknown dataset, split or option.
        """
        if split not in self._datasets:
            self._datasets[split] = open_dataset(
                self.dataset_name,
                split=split,
                size=self.size,
                root=self.root,
                count=self.counts.get(split),
                **self.options,
            )
        return self._datasets[split]

    @property
    def provides(self) -> frozenset[str]:
        """The keys of `zoo.batch.KEYS` that batches can hold. Opens the training set where none is open yet."""
        opened = next(iter(self._datasets.values()), None) or self.dataset("train")
        return opened.provides | {"image", "mask", "edge"}

    def captions(self) -> Iterator[str]:
        """The captions of the training split, in order, from which a vocabulary is made; none of other splits.

        A dataset may define `caption_texts()`, which yields them without reading an image, and which may stop once
        what it has yielded holds every word there is. Of others every sample is read.

        Raises:
            DataError: A sample cannot be read.
        """
        dataset = self.dataset("train")
        if "caption" not in dataset.provides:
            return
        texts = getattr(dataset, "caption_texts", None)
        if texts is not None:
            yield from texts()
            return
        for index in range(len(dataset)):
            try:
                captions = dataset.sample(index).captions
            except (OSError, ValueError) as error:  # of a dataset that does not name its samples in errors
                raise DataError(f"sample '{dataset.ids[index]}' cannot be read: {error}") from error
            yield from captions

    def setup(self, stage: str) -> None:
        """Opens the datasets of a stage, so that missing files stop a run before any work."""
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            self.dataset(split)

    def train_dataloader(self) -> Loader:
        dataset = TrainingSet(
            self.dataset("train"), self.train_mask, self.seed, self._cache_share(), self._disk("train")
        )
        trainer = self.trainer
        if trainer is not None and trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            return EvaluationLoader(dataset, self.batch_size, workers=self.workers)  # the same batches every epoch
        loader = TrainingLoader(dataset, self.batch_size, seed=self.seed, workers=self.workers)
        if trainer is not None:
            total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
            before = total.processed
            if before and self._loader is not None:  # Lightning asks again within a run where it is told to reload
                loader.load_state_dict(self._loader.state_dict())
            loader.finished = lambda: total.processed - before
        if self._resume is not None:
            loader.load_state_dict(self._resume)
        self._loader, self._resume = loader, None
        return loader

    def val_dataloader(self) -> Loader:
        return self._evaluation("val", self._cache_share())

    def test_dataloader(self) -> Loader:
        return self._evaluation("test", 0.0)

    def predict_dataloader(self) -> Loader:
        return self._evaluation("test", 0.0)

    def _evaluation(self, split: str, cache_mb: float) -> Loader:
        dataset = EvaluationSet(
            self.dataset(split), self.mask, self.seed, self.caption, cache_mb, disk=self._disk(split)
        )
        return EvaluationLoader(dataset, self.batch_size, workers=self.workers)

    def state_dict(self) -> dict[str, Any]:
        """Where the training stream stands. Lightning restores a loader's own state only in the middle of an epoch."""
        return {} if self._loader is None else {"stream": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = state_dict.get("stream")

    def _cache_share(self) -> float:
        return self.cache_mb / max(1, self.workers)

    def _disk(self, split: str) -> DiskCache | None:
        if self.cache_dir is None:
            return None
        dataset = self.dataset(split)
        return DiskCache(dataset, cache_folder(dataset, self.cache_dir, self.size, self.options))

    def on_after_batch_transfer(self, batch: Mapping[str, Any], dataloader_idx: int) -> Batch:
        """Floats of the contract, and edges where they are wanted; on the device."""
        finished = finish_batch(batch)
        if self._wants_edges() and "edge" not in finished:
            finished["edge"] = canny(finished["image"])
        return finished

    def _wants_edges(self) -> bool:
        if self.edges is not None:
            return self.edges
        method = getattr(self.trainer, "lightning_module", None)
        return "edge" in {*getattr(method, "needs", ()), *getattr(method, "uses", ())}

    def judge(self, batch: Batch, composite: Tensor) -> dict[str, list[float]]:
        """What the dataset itself can say of completed images (for `shapes`: colour and shape of the new object).

        Args:
            batch: The batch that was completed.
            composite: uint8 B 3 H W.

        Returns:
            Values per image by metric, NaN where one does not apply; empty where the dataset has no judge.
        """
        opened = next(iter(self._datasets.values()), None) or self.dataset("test")
        judge = judge_of(opened, self.mask)
        if judge is None:
            return {}
        images = composite.permute(0, 2, 3, 1).cpu().numpy()
        masks = batch["mask"][:, 0].to(torch.uint8).cpu().numpy()
        verdicts = [judge(*case) for case in zip(batch["id"], images, masks, strict=True)]
        names = sorted({name for verdict in verdicts for name in verdict} - {"objects"})  # a count, not a score
        return {name: [float(verdict.get(name, float("nan"))) for verdict in verdicts] for name in names}
