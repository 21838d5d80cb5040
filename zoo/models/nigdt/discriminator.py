"""The discriminators D1 and D2 of NIGDT (Sec. 3.3, Eq. 12): alike, with weights of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import SLOPE, Conv
from zoo.models.nigdt.network import downwards
from zoo.models.nigdt.shortlong import ShortLongAttention

LEAST = 3  # cells that the last convolution, without padding, needs a side


class Discriminator(nn.Module):
    """Residual layers with short-term attention, and a map of scores.

    Args:
        channels: Of the residual layers.
        halvings: How many of them halve the size.
        attention_after: After how many layers the attention stands; 0 leaves it out.

    Raises:
        UsageError: No such layer, or more halvings than layers.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64, 128, 128, 128, 128), halvings: int = 5, attention_after: int = 3
    ) -> None:
        super().__init__()
        if not 0 <= attention_after <= len(channels):
            raise UsageError(f"the attention of nigdt's discriminators stands after 0 to {len(channels)} layers")
        layers: list[nn.Module] = list(downwards(channels, halvings))
        if attention_after:
            # the encoder's features and the layer that reads them belong to the generator alone
            layers.insert(attention_after, ShortLongAttention(channels[attention_after - 1], long=False))
        self.layers = nn.Sequential(*layers)
        self.score = Conv(channels[-1], 1, padding=0)

    def forward(self, image: Tensor) -> Tensor:
        """Scores B 1 h-2 w-2 of images B 3 H W in [-1, 1], where features are h x w.

        Raises:
            UsageError: The image is so small that no score is left.
        """
        features = self.features(image)
        if min(features.shape[-2:]) < LEAST:
            step = image.shape[-1] // features.shape[-1]
            raise UsageError(f"nigdt's discriminators need images of at least {LEAST * step} pixels a side")
        score: Tensor = self.score(features)
        return score

    def features(self, image: Tensor) -> Tensor:
        """What the scores are linear in, B c h w."""
        return F.leaky_relu(self.layers(image), SLOPE)
