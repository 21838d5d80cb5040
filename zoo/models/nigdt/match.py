"""The image side of the match networks D3 and D4 (Sec. 3.3): AttnGAN's encoder of regions and whole images.

Their text side is `text.py`, their scores are in `losses.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.layers.residual import SLOPE, down, first
from zoo.models.nigdt.inception import REMEDY, Inception, load_inception

SIDE = 299  # pixels that Inception-v3 sees


class Matched(NamedTuple):
    """Images in the space of the text encoder.

    Attributes:
        regions: v, B c N: a vector for each of N regions, row by row.
        image: B c, a vector for the whole image.
    """

    regions: Tensor
    image: Tensor


class MatchNetwork(nn.Module):
    """A trunk and a linear map from each of its two outputs to the width of the words.

    Args:
        trunk: Maps images B 3 H W in [-1, 1] to a map, B regions h w, and to pooled features, B pooled.
        regions: Channels of the trunk's map.
        pooled: Width of its pooled features.
        width: c, the width of word and sentence vectors.
    """

    def __init__(self, trunk: nn.Module, regions: int, pooled: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_regions = nn.Conv2d(regions, width, 1, bias=False)
        self.to_image = nn.Linear(pooled, width)
        nn.init.orthogonal_(self.to_regions.weight)
        nn.init.orthogonal_(self.to_image.weight)
        nn.init.zeros_(self.to_image.bias)

    def forward(self, image: Tensor) -> Matched:
        """Vectors of images B 3 H W in [-1, 1]."""
        regions, pooled = self.trunk(image)
        return Matched(self.to_regions(regions).flatten(2), self.to_image(pooled))


class SmallTrunk(nn.Module):
    """Residual blocks that each halve the size, without normalization, trained from scratch.

    Args:
        channels: Of the blocks; the last is that of both outputs.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 48)) -> None:
        super().__init__()
        self.regions = self.pooled = channels[-1]
        blocks = [first(3, channels[0], spectral=False)]
        self.layers = nn.Sequential(*blocks, *(down(c, d, spectral=False) for c, d in pairwise(channels)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B C H/2^n W/2^n) and its mean over places (B C)."""
        x = F.leaky_relu(self.layers(image), SLOPE)
        return x, x.mean((2, 3))


class InceptionTrunk(Inception):
    """Inception-v3 trained on ImageNet, frozen: always in evaluation mode; gradients pass through to the image.

    Images come in [-1, 1] and stay so: the published match networks do not use ImageNet's means and deviations.

    Args:
        weights: A local file with torchvision's tensors, or the tensors. Without, they must come from `load_inception`
            or a `load_state_dict` before the first image does.
        where: What an error calls the place that tensors are from.

    Attributes:
        loaded: Whether there are weights; a trunk without them looks at nothing.

    Raises:
        WeightsError: No such file, or it does not fit.
    """

    regions, pooled = 768, 2048

    def __init__(self, weights: str | Path | Mapping[str, Tensor] | None = None, where: str = "") -> None:
        super().__init__()
        self.loaded = False
        self.register_load_state_dict_pre_hook(_note_weights)  # type: ignore[no-untyped-call]  # torch leaves it so
        if weights is not None:
            load_inception(self, weights, where)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> InceptionTrunk:
        """Stays in evaluation mode, whatever is asked: batch statistics would change what it was trained to see."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B 768 17 17) and pooled features (B 2048) of images B 3 H W in [-1, 1], resized to 299 pixels.

        Raises:
            WeightsError: No weights were loaded.
        """
        if not self.loaded:
            raise WeightsError("the match networks need the weights of Inception-v3; none are loaded", remedy=REMEDY)
        return super().forward(F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False))


def _note_weights(trunk: InceptionTrunk, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Sees what is loaded, since a checkpoint may leave the frozen trunk out."""
    trunk.loaded = trunk.loaded or f"{prefix}Conv2d_1a_3x3.conv.weight" in state
