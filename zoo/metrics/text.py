"""How well a composite and its hole fit the caption, by CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.metrics.image import check_images, check_shape

MODEL = "ViT-B-32-quickgelu"


class Box(NamedTuple):
    """Rows `top` to `top + height`, columns `left` to `left + width`."""

    top: int
    left: int
    height: int
    width: int


def hole_box(mask: NDArray[np.bool_]) -> Box | None:
    """What of an image is shown to CLIP for `clip_hole`; `zoo.metrics.DEFINITIONS` states the rule.

    Args:
        mask: H x W, true in the hole.

    Returns:
        None where there is no hole.
    """
    if not mask.any():
        return None
    rows, columns = _ends(mask.max(1)), _ends(mask.max(0))
    side = max(rows[1], columns[1])
    (top, height), (left, width) = _widened(*rows, side, mask.shape[0]), _widened(*columns, side, mask.shape[1])
    return Box(top, left, height, width)


def _ends(line: NDArray[np.bool_]) -> tuple[int, int]:
    """The first place that is true, and how many places there are from it to the last one."""
    places = np.flatnonzero(line)
    return int(places[0]), int(places[-1] - places[0] + 1)


def _widened(start: int, length: int, side: int, limit: int) -> tuple[int, int]:
    """The interval of `side` about the centre of another, moved into [0, limit), cut where it is larger."""
    side = min(side, limit)
    return min(max(0, start - (side - length) // 2), limit - side), side


class ClipScore(nn.Module):
    """The CLIP score of the composite and of its hole's crop.

    Args:
        network: Has `encode_image` and `encode_text`.
        preprocess: Makes a tensor of a Pillow image.
        tokenize: Makes tokens of captions.
    """

    def __init__(self, network: Any, preprocess: Callable[[Any], Tensor], tokenize: Callable[[list[str]], Tensor]):
        super().__init__()
        self.network, self.preprocess, self.tokenize = network, preprocess, tokenize

    @staticmethod
    def load(weights: Path) -> ClipScore:
        """open_clip's ViT-B/32 with the weights of a file (`locate`)."""
        import open_clip

        network, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=str(weights))
        return ClipScore(network.eval().requires_grad_(False), preprocess, open_clip.get_tokenizer(MODEL))

    @torch.no_grad()
    def forward(
        self, composite: Tensor, mask: Tensor, captions: Sequence[str], hole: bool = True, whole: bool = True
    ) -> dict[str, Tensor]:
        """Measures a batch.

        Args:
            composite: B 3 H W uint8.
            mask: B 1 H W in {0, 1}, 1 = hole.
            captions: B captions, empty where there is none.
            hole: Whether `clip_hole` is wanted: each of the two costs a pass.
            whole: Whether `clip` is wanted.

        Returns:
            `clip`, `clip_hole` or both, B values in [0, 100], float64; NaN without a caption, or without a hole.

        Raises:
            DataError: Shapes, types or the number of captions differ from the above.
        """
        check_images(composite, composite)
        check_shape("mask", mask, (len(composite), 1, *composite.shape[2:]), composite)
        if len(captions) != len(composite):
            raise DataError(f"{len(captions)} captions for {len(composite)} images")
        device = composite.device
        text = _unit(self.network.encode_text(self.tokenize(list(captions)).to(device)))
        pixels = composite.permute(0, 2, 3, 1).cpu().numpy()
        holes = (mask[:, 0] > 0.5).cpu().numpy()
        there = torch.tensor([bool(caption.strip()) for caption in captions], device=device)
        values = {}
        if whole:
            values["clip"] = self._score(list(pixels), text).masked_fill(~there, torch.nan)
        if hole:
            boxes = [hole_box(one) for one in holes]
            crops = [image if box is None else _cut(image, box) for image, box in zip(pixels, boxes, strict=True)]
            defined = there & torch.tensor([box is not None for box in boxes], device=device)
            values["clip_hole"] = self._score(crops, text).masked_fill(~defined, torch.nan)
        return values

    def _score(self, images: list[NDArray[np.uint8]], text: Tensor) -> Tensor:
        from PIL import Image

        batch = torch.stack([self.preprocess(Image.fromarray(image)) for image in images]).to(text.device)
        cosine = (_unit(self.network.encode_image(batch)) * text).sum(1)
        return 100 * cosine.clamp(min=0)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1)


def _cut(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    return image[box.top : box.top + box.height, box.left : box.left + box.width]
