"""Samples with their masks and captions: what a loader reads. Everything drawn here is keyed by what the sample is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.base import OWN, CaptionEditor, Dataset, Judge, Sample, check_text
from zoo.data.cache import Cache
from zoo.data.caption_edits import WordEditor
from zoo.data.disk_cache import DiskCache
from zoo.errors import DataError, UsageError, ZooError, unknown_name
from zoo.keyed import key, numpy_generator
from zoo.masks import Canvas, draw_mixture, parse_mixture

Item = dict[str, Any]
CaptionRule = Literal["first", "keyed"]


def canvas_of(dataset: Dataset, sample: Sample) -> Canvas:
    """What a mask generator may know of a sample: its identity and geometry, never its pixels."""
    height, width = sample.image.shape[:2]
    return Canvas(
        dataset=dataset.name,
        id=sample.id,
        height=height,
        width=width,
        boxes=sample.boxes,
        segments=sample.segments,
        mask=sample.mask,
        segmentation=sample.segmentation,
        classes=dataset.classes,
        object_rule=dataset.object_rule,
    )


def judge_of(dataset: Dataset, mask: str, captions: str = OWN) -> Judge | None:
    """What the dataset itself says of a completed image (id, composite, mask, caption), or None.

    Only under `object` masks. Outlines (`object:segmentation`) give the shape away, and of the others a mean would be
    over the few images from which a whole object happens to be missing. A caption that the dataset did not edit itself
    is kept from its judge.
    """
    judge: Judge | None = getattr(dataset, "judge", None) if "object" in parse_mixture(mask).kinds else None
    if judge is None or captions == OWN or hasattr(dataset, "caption_edits"):
        return judge
    return lambda sample_id, composite, mask, caption=None: judge(sample_id, composite, mask)


def editor_of(dataset: Dataset, captions: str, mask: str) -> CaptionEditor | None:
    """Who edits captions: the dataset itself where it can, else `WordEditor`; None where they stay the images' own.

    A dataset's own edits are about the object that the hole takes: only under `object` masks has every image one.

    Args:
        dataset: Where samples come from.
        captions: `own`, or the name of an edit.
        mask: The mask kind, or mixture.

    Raises:
        UsageError: An unknown edit, a dataset without captions, or masks that take no whole object.
    """
    if captions == OWN:
        return None
    itself = hasattr(dataset, "caption_edits")
    if not itself and "caption" not in dataset.provides:
        raise UsageError(
            f"dataset '{dataset.name}' has no captions to edit",
            where=f"captions = {captions}",
            remedy=f"leave captions '{OWN}'",
        )
    editor: CaptionEditor = dataset if itself else WordEditor()  # type: ignore[assignment]  # `caption_edits` says so
    if captions not in editor.caption_edits:
        raise unknown_name(f"caption edit of '{dataset.name}'", captions, [OWN, *editor.caption_edits])
    if itself and set(parse_mixture(mask).kinds) != {"object"}:
        raise UsageError(
            "captions are edited only under object masks",
            where=f"captions = {captions}, mask = {mask}",
            remedy=f"choose the mask `object`, or captions '{OWN}'",
        )
    return editor


class MaskedSet(torch.utils.data.Dataset[Item]):
    """A dataset under a mixture of masks.

    An item is a dict: `id` str, `image` uint8 3 H W, `mask` uint8 1 H W in {0, 1}, and, where the dataset has them,
    `caption` str and `segmentation` uint8 H W.

    Args:
        dataset: Where samples come from.
        mask: A mask kind or a mixture ("object,freeform", "2*object,center").
        seed: The seed of the run (training) or of the plan (evaluation).
        cache_mb: Keeps decoded samples in memory if all of them fit into this many megabytes; see `Cache`.
        disk: Reads samples from, and keeps them in, a folder; see `DiskCache`.

    Raises:
        UsageError: An unknown mask kind, or an empty dataset.
    """

    def __init__(
        self, dataset: Dataset, mask: str, seed: int = 0, cache_mb: float = 0.0, disk: DiskCache | None = None
    ) -> None:
        if len(dataset) == 0:
            raise UsageError(f"dataset '{dataset.name}' has no samples here")
        self.dataset, self.seed = dataset, seed
        self.mixture = parse_mixture(mask)
        self._cache = Cache(dataset, cache_mb, disk)

    def __len__(self) -> int:
        return len(self.dataset)

    def _read(self, index: int) -> Sample:
        check_text(self.dataset.ids[index], self.dataset.name)
        try:
            return self._cache.sample(index)
        except ZooError:
            raise
        except (OSError, ValueError) as error:  # of a dataset that does not name its samples in errors
            raise DataError(f"sample '{self.dataset.ids[index]}' cannot be read: {error}") from error

    def _draw(self, sample: Sample, seed: int) -> NDArray[np.uint8]:
        return draw_mixture(self.mixture, canvas_of(self.dataset, sample), seed)

    def _item(self, sample: Sample, mask: NDArray[np.uint8], caption: int) -> Item:
        item: Item = {"id": sample.id, "image": to_tensor(sample.image), "mask": torch.from_numpy(mask)[None]}
        if sample.captions:
            item["caption"] = sample.captions[caption]
            check_text(item["caption"], f"the caption of {sample.id}")
        if sample.segmentation is not None:
            item["segmentation"] = torch.from_numpy(sample.segmentation)
        return item


class EvaluationSet(MaskedSet):
    """One fixed mask and one fixed caption per image: a function of (dataset, id, mask, seed), whatever the order.

    Where captions are edited, an item with a caption also holds `own_caption` str, and `unedited` str: why its caption
    is the image's own all the same, empty where it is not.

    Args:
        dataset: Where samples come from.
        mask: A mask kind or a mixture.
        seed: The seed of the plan.
        caption: Which caption stands for an image: its "first" (specification 4.4), or one "keyed" by seed and id.
        cache_mb: See `MaskedSet`.
        captions: `own`, or the name of an edit (see `editor_of`).
        masks: Masks made before by id, H x W in {0, 1}, in place of drawing them; what it lacks is drawn.
        disk: See `MaskedSet`.

    Raises:
        UsageError: An unknown rule, or captions that cannot be edited here (see `editor_of`).
    """

    def __init__(
        self,
        dataset: Dataset,
        mask: str,
        seed: int = 0,
        caption: CaptionRule = "first",
        cache_mb: float = 0.0,
        *,
        captions: str = OWN,
        masks: Mapping[str, NDArray[np.uint8]] | None = None,
        disk: DiskCache | None = None,
    ) -> None:
        super().__init__(dataset, mask, seed, cache_mb, disk)
        if caption not in ("first", "keyed"):
            raise UsageError(f"unknown caption rule '{caption}'", remedy="one of first, keyed")
        self.caption, self.captions = caption, captions
        self._editor = editor_of(dataset, captions, mask)
        self._masks = {} if masks is None else masks

    def __getitem__(self, index: int) -> Item:
        sample = self._read(index)
        choice = 0 if self.caption == "first" else _choice(len(sample.captions), "caption", self.seed, sample.id)
        mask = self._mask(sample)
        item = self._item(sample, mask, choice)
        if self._editor is not None and "caption" in item:
            own = item["caption"]
            edited = self._editor.edit_caption(self.captions, sample, own, mask, self.seed)
            item |= {"caption": edited.text, "own_caption": own, "unedited": edited.reason}
        return item

    def _mask(self, sample: Sample) -> NDArray[np.uint8]:
        if sample.id not in self._masks:
            return self._draw(sample, self.seed)
        mask = np.array(self._masks[sample.id], np.uint8)
        if mask.shape != sample.image.shape[:2]:
            raise DataError(f"the mask is {mask.shape}, the image {sample.image.shape[:2]}", where=sample.id)
        return mask


class TrainingSet(MaskedSet):
    """Another mask and another caption at every visit, each a function of (seed, epoch, id).

    Images are not flipped: captions say left and right.

    Args:
        dataset: Where samples come from.
        mask: A mask kind or a mixture, whose part is drawn anew at every visit.
        seed: The seed of the run.
        cache_mb: See `MaskedSet`.
        disk: See `MaskedSet`.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch `self[index]` reads; a `Loader` says it with each visit instead."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Item:
        return self.visit(self.epoch, index)

    def visit(self, epoch: int, index: int) -> Item:
        """The item at a position as the given epoch sees it."""
        sample = self._read(index)
        choice = _choice(len(sample.captions), "caption", self.seed, epoch, sample.id)
        return self._item(sample, self._draw(sample, key("mask", self.seed, epoch)), choice)


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Stacks items to a batch: ids and captions as lists, maps as tensors. A key that some items lack is refused.

    Raises:
        DataError: Items of different sizes or with different keys.
    """
    first = items[0]
    for item in items:
        if item.keys() != first.keys():
            lacking = sorted(item.keys() ^ first.keys())
            raise DataError(
                f"'{first['id']}' and '{item['id']}' differ in {', '.join(lacking)}",
                remedy="give every image a caption and a segmentation, or none",
            )
        if item["image"].shape != first["image"].shape:
            sizes = [f"{i['id']} {i['image'].shape[2]}x{i['image'].shape[1]}" for i in (first, item)]
            raise DataError(
                f"images of different sizes in one batch: {' and '.join(sizes)}",
                remedy="give a size to resize to, or use batch size 1",
            )
    batch: dict[str, Any] = {"id": [i["id"] for i in items]}
    for name in first.keys() - {"id"}:
        values = [i[name] for i in items]
        batch[name] = torch.stack(values) if isinstance(first[name], Tensor) else values
    return batch


def to_tensor(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """H W 3 uint8 to a contiguous 3 H W uint8 tensor that shares no memory with it."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _choice(count: int, *parts: str | int) -> int:
    return int(numpy_generator(*parts).integers(count)) if count > 1 else 0
