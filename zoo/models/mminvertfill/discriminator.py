"""The discriminator of inpainted images and their edges: EdgeConnect's patches under spectral normalization."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.errors import UsageError

SLOPE = 0.2  # of the leaky ReLU
STRIDES = (2, 2, 2, 1, 1)
LEAST = 24  # pixels a side that leave one score


class SpectralConv(nn.Conv2d):
    """A 4x4 convolution without bias, divided by its largest singular value."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, 4, stride, 1, bias=False)
        nn.init.normal_(self.weight, 0.0, 0.02)
        spectral_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # the power iteration would run in bf16
            weight = self.weight
        return F.conv2d(x, weight, None, self.stride, self.padding)


class PatchDiscriminator(nn.Module):
    """Five convolutions; each number of the last map is the score of a patch.

    Args:
        channels_in: 4: an image and its edges; 3 for images alone.
        base: Channels of the first layer; they grow to 8 times that.
    """

    def __init__(self, channels_in: int = 4, base: int = 64) -> None:
        super().__init__()
        channels = [channels_in, base, 2 * base, 4 * base, 8 * base, 1]
        pairs = zip(pairwise(channels), STRIDES, strict=True)
        self.layers = nn.ModuleList(SpectralConv(c, d, stride) for (c, d), stride in pairs)

    def forward(self, image: Tensor, edge: Tensor | None = None) -> Tensor:
        """Scores B 1 H/8-2 W/8-2, any real number.

        Args:
            image: B 3 H W in [-1, 1].
            edge: B 1 H W in [0, 1], or None for images alone.

        Raises:
            UsageError: The image is so small that no score is left.
        """
        if min(image.shape[-2:]) < LEAST:
            raise UsageError(f"mminvertfill's discriminator needs images of at least {LEAST} pixels a side")
        x = image if edge is None else torch.cat([image, edge.to(image.dtype)], 1)
        *layers, score = self.layers
        for layer in layers:
            x = F.leaky_relu(layer(x), SLOPE)
        scores: Tensor = score(x)
        return scores
