"""The data contract: what a batch holds, in which range and with which polarity. The only place that states it.

| key            | shape   | type, range          | meaning                                           |
|----------------|---------|----------------------|---------------------------------------------------|
| `id`           | B       | list of str          | stable, qualified: `coco/val2017/000000039769`    |
| `image`        | B 3 H W | float32 in [0, 1]    | the untouched truth, RGB                          |
| `mask`         | B 1 H W | float32 in {0, 1}    | **1 = hole**                                      |
| `caption`      | B       | list of str          | the caption this sample is used with              |
| `edge`         | B 1 H W | float32 in {0, 1}    | Canny edges of the truth                          |
| `segmentation` | B H W   | int64, 255 = unknown | class ids                                         |

In evaluation two more say which part of the guidance is missing: `edge_mask` and `segmentation_mask` (B 1 H W, 1 =
missing). Between the loader and the device `image` is uint8 in 0..255 and `mask` uint8 in {0, 1}: `finish_batch` turns
such a batch into the contract above, on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from zoo.errors import DataError, UsageError

UNKNOWN_CLASS = 255
KEYS = frozenset({"image", "mask", "caption", "edge", "segmentation"})


class Batch(TypedDict, total=False):
    """A batch under the contract of this module; `id`, `image` and `mask` are always there."""

    id: list[str]
    image: Tensor
    mask: Tensor
    caption: list[str]
    edge: Tensor
    segmentation: Tensor
    edge_mask: Tensor
    segmentation_mask: Tensor


def finish_batch(raw: Mapping[str, Any]) -> Batch:
    """Turns the loader's uint8 tensors into the floats of the contract, on the device they are on.

    Args:
        raw: A collated batch: `image` uint8 B 3 H W in 0..255 (or float in [0, 1]), `mask` uint8 or bool B 1 H W.
    """
    batch: Batch = Batch(**raw)  # type: ignore[typeddict-item]
    if not torch.is_floating_point(batch["image"]):
        batch["image"] = batch["image"].to(torch.float32) / 255.0
    batch["mask"] = batch["mask"].to(torch.float32)
    if "edge" in batch:
        batch["edge"] = batch["edge"].to(torch.float32)
    if "segmentation" in batch:
        batch["segmentation"] = batch["segmentation"].long()
    return batch


def check_needs(needs: Iterable[str], provides: Iterable[str], method: str, source: str) -> None:
    """Refuses a method whose guidance the data does not provide, before any work.

    Raises:
        UsageError: Something in `needs` is not in `provides`.
    """
    missing = sorted(set(needs) - set(provides) - {"mask"})
    if missing:
        raise UsageError(
            f"method '{method}' needs {', '.join(missing)}, which '{source}' does not provide",
            remedy="choose other data, or a method that does without (zoo list models)",
        )


def check_batch(batch: Batch, needs: Iterable[str] = ("image", "mask")) -> None:
    """Checks keys, shapes, types, ranges and polarity of a batch.

    Raises:
        DataError: The batch breaks the contract; the message names the key and what was found.
    """
    for key in sorted({"id", "image", "mask"} | set(needs)):
        if key not in batch:
            raise DataError(f"the batch has no '{key}'", remedy="see zoo.batch for what a batch holds")
    image, mask, ids = batch["image"], batch["mask"], batch["id"]
    if image.dim() != 4 or image.shape[1] != 3 or image.dtype != torch.float32:
        raise DataError(f"image must be float32 B 3 H W, got {tuple(image.shape)} {image.dtype}")
    size, shape = image.shape[0], (image.shape[0], 1, *image.shape[-2:])
    _check_range("image", image.masked_fill(mask > 0.5, 0.5) if mask.shape == shape else image)
    _check_binary("mask", mask, shape, "a mask is 1 in the hole and 0 elsewhere; threshold a grey mask first")
    if len(ids) != size:
        raise DataError(f"{len(ids)} ids for {size} images")
    if "caption" in batch and len(batch["caption"]) != size:
        raise DataError(f"{len(batch['caption'])} captions for {size} images")
    for key in ("edge", "edge_mask", "segmentation_mask"):
        if key in batch:
            _check_binary(key, batch[key], shape, "edges and guidance masks are 0 or 1")  # type: ignore[literal-required]
    if "segmentation" in batch:
        classes = batch["segmentation"]
        if classes.dtype != torch.int64 or classes.shape != (size, *image.shape[-2:]):
            raise DataError(f"segmentation must be int64 B H W, got {tuple(classes.shape)} {classes.dtype}")


def _check_range(key: str, value: Tensor) -> None:
    low, high = value.min().item(), value.max().item()
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
        raise DataError(f"{key} must lie in [0, 1], got [{low:.3g}, {high:.3g}]", remedy="divide 8-bit images by 255")


def _check_binary(key: str, value: Tensor, shape: tuple[int, ...], remedy: str) -> None:
    if tuple(value.shape) != shape:
        raise DataError(
            f"{key} must be {shape}, got {tuple(value.shape)}", remedy="masks and maps have the image's size"
        )
    if not bool(((value == 0) | (value == 1)).all()):
        raise DataError(f"{key} has values other than 0 and 1", remedy=remedy)
