"""The discriminator of StyleGAN2 (Karras et al. 2020), with which the generator is pre-trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.models.mminvertfill.generator import widths
from zoo.models.mminvertfill.layers import EPS, Conv, Linear, full

GROUP = 4


class Block(nn.Module):
    """Two 3x3 convolutions, the second halving the size, beside a 1x1 shortcut; their sum over √2.

    Args:
        inputs: Channels of the input, and between the convolutions.
        outputs: Channels of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Conv(inputs, inputs, 3), Conv(inputs, outputs, 3, down=True))
        self.shortcut = Conv(inputs, outputs, 1, down=True, active=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.main(x) + self.shortcut(x)) / math.sqrt(2.0)
        return y


def minibatch_std(x: Tensor, group: int = GROUP) -> Tensor:
    """The map, B 1 H W, of how much samples of a group differ: the mean over x of the standard deviation over them.

    Args:
        x: B C H W.
        group: Samples of a group; the largest divisor of B up to it is taken. The groups are every B/group-th sample.
    """
    batch = len(x)
    members = max(n for n in range(1, min(group, batch) + 1) if batch % n == 0)
    groups = full(x).reshape(members, batch // members, *x.shape[1:])
    std = (groups.var(0, unbiased=False) + EPS).sqrt().mean((1, 2, 3))
    return std.repeat(members)[:, None, None, None].expand(-1, 1, *x.shape[-2:])


class StyleDiscriminator(nn.Module):
    """Images to a score each.

    Args:
        size: Pixels of an image's side, a power of two from 8 on.
        channels: Channels by resolution from 4 to `size`; None is the full width of config F.

    Raises:
        UsageError: No such size, or a resolution without channels.
    """

    def __init__(self, size: int = 256, channels: Mapping[int, int] | None = None) -> None:
        super().__init__()
        c = list(reversed(widths(size, channels).values()))
        self.features = nn.Sequential(Conv(3, c[0], 1), *(Block(a, b) for a, b in pairwise(c)))
        self.last = Conv(c[-1] + 1, c[-1], 3)
        self.score = nn.Sequential(Linear(16 * c[-1], c[-1], active=True), Linear(c[-1], 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scores (B) of images B 3 s s in [-1, 1]; that of one depends on the others of its group."""
        x = self.features(image)
        x = self.last(torch.cat([full(x), minibatch_std(x)], 1))
        score: Tensor = self.score(x.flatten(1))
        return score[:, 0]
