"""Methods without parameters. They validate the harness on every run: truth must be perfect, mean must be poor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.batch import Batch, check_batch
from zoo.compose import to_uint8
from zoo.keyed import Noise
from zoo.module import Completed, InpaintingModule


class Control(InpaintingModule):
    """A method that needs no training and no weights."""

    trainable: ClassVar[bool] = False

    def __init__(self, size: int = 64) -> None:
        super().__init__(size=size, multiple=1)


class Truth(Control):
    """Returns the truth. The only one that sees it: it marks the best value of every metric."""

    def complete(self, batch: Batch, seed: int = 0, guidance: Sequence[str] = ()) -> Completed:
        check_batch(batch, self.needs)
        return Completed(batch["image"], batch["image"])


class Mean(Control):
    """Fills the hole with the mean colour of the known pixels; mid-grey where nothing is known."""

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        image, known = batch["image"], 1.0 - batch["mask"]
        count = known.sum(dim=(2, 3), keepdim=True)
        mean = (image * known).sum(dim=(2, 3), keepdim=True) / count.clamp(min=1.0)
        return torch.where(count > 0, mean, torch.full_like(mean, 0.5)).expand_as(image)


class Telea(Control):
    """Fast marching inpainting (Telea, 2004) as OpenCV has it, on 8-bit images.

    The radius is 3 pixels at 256, scaled with the image and at least 2. With nothing known there is nothing to march
    from, and the mid-grey of the hidden image stays.
    """

    def inpaint(self, batch: Batch, noise: Noise) -> Tensor:
        import cv2

        images = to_uint8(batch["image"]).permute(0, 2, 3, 1).cpu().numpy()
        masks = (batch["mask"][:, 0] > 0.5).cpu().numpy().astype(np.uint8)
        radius = max(2.0, 3.0 * min(images.shape[1:3]) / 256.0)
        filled = [
            cv2.inpaint(np.ascontiguousarray(image), mask, radius, cv2.INPAINT_TELEA)
            for image, mask in zip(images, masks, strict=True)
        ]
        result = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float() / 255.0
        return result.to(batch["image"].device)
