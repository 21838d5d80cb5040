"""The image generator (Sec. 2.2, Eq. 3 and 4) and the discriminators (Sec. 2.3) of CMA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import SLOPE, Conv, Output, Score, down, first, same, up

DOWN_INPUTS = ("pixels", "prior_image", "both", "tokens")
PRIOR_SKIPS = ("bottleneck", "all")
KEPT = ("first", "between")


@dataclass(frozen=True)
class GeneratorOptions:
    """The sizes and readings of the generator.

    Attributes:
        prior: e, channels of the visual priors V̂.
        patch: P; the generator works between pixels and a grid of H/P x W/P.
        down: Channels of the five layers of the down-sampling encoder.
        up: Channels of the five layers of the up-sampling decoder.
        down_input: What Eq. 3 down-samples: `pixels` of the corrupted image, a `prior_image` made of V̂, `both`, or the
            `tokens` V̂ themselves.
        mask_channel: Whether pixels come with their mask.
        prior_skip: Where V̂ enters the decoder: the `bottleneck`, or `all` layers.
        mask_skip: Whether every layer of the decoder is shown the mask, averaged to its size.
        kept: Where the decoder's layers that keep the size are, if P needs fewer than five doublings: `first`, at the
            grid of the patches, or `between` those that double it.
    """

    prior: int = 768
    patch: int = 32
    down: Sequence[int] = (64, 128, 256, 512, 512)
    up: Sequence[int] = (512, 256, 128, 64, 32)
    down_input: str = "pixels"
    mask_channel: bool = True
    prior_skip: str = "bottleneck"
    mask_skip: bool = False
    kept: str = "first"


def halvings(patch: int, layers: int) -> int:
    """How many of the layers change the size: log2 P.

    Raises:
        UsageError: P is no power of two, or more layers would be needed.
    """
    count = round(math.log2(patch))
    if 2**count != patch or not 1 <= count <= layers:
        raise UsageError(f"{layers} layers cannot halve the image {patch} times", remedy="patch: a power of two, 2 up")
    return count


def doubles(layers: int, doublings: int, kept: str) -> list[bool]:
    """Which of the decoder's layers double the size; the others keep it (`GeneratorOptions.kept`)."""
    rest = layers - doublings
    if kept == "first":
        return [False] * rest + [True] * doublings
    between = min(rest, doublings - 1)
    return [False] * (rest - between) + [True, False] * between + [True] * (doublings - between)


class DownSampling(nn.Sequential):
    """Eq. 3: five residual layers from pixels to the grid of the patches; those beyond log2 P keep the size."""

    def __init__(self, channels_in: int, channels: Sequence[int], halve: int) -> None:
        blocks = [first(channels_in, channels[0])]
        blocks += [(down if k < halve else same)(c, d) for k, (c, d) in enumerate(pairwise(channels), start=1)]
        super().__init__(*blocks)


class Generator(nn.Module):
    """Down-sampling encoder and up-sampling decoder with the skip from the visual priors.

    Args:
        options: Sizes and readings.

    Raises:
        UsageError: A reading that is not offered.
    """

    def __init__(self, options: GeneratorOptions) -> None:
        super().__init__()
        for name, choices in (("down_input", DOWN_INPUTS), ("prior_skip", PRIOR_SKIPS), ("kept", KEPT)):
            if getattr(options, name) not in choices:
                raise UsageError(f"cma's {name} cannot be '{getattr(options, name)}'", remedy=f"one of {choices}")
        self.options = options
        e, P, C, U = options.prior, options.patch, list(options.down), list(options.up)
        halve = halvings(P, len(C))
        images = {"pixels": 3, "prior_image": 3, "both": 6, "tokens": 0}[options.down_input]
        if options.down_input == "tokens":
            self.down: nn.Module = nn.Sequential(*(same(c, d) for c, d in pairwise([e, *C])))
        else:
            self.down = DownSampling(images + options.mask_channel, C, halve)
        self.to_image = nn.Linear(e, 3 * P * P) if options.down_input in ("prior_image", "both") else None
        self.skip = Conv(e, C[-1], 1)
        widths, doubling = [2 * C[-1], *U], doubles(len(U), halve, options.kept)
        self.up = nn.ModuleList((up if d else same)(*c) for c, d in zip(pairwise(widths), doubling, strict=True))
        self.skips = nn.ModuleList(Conv(e, c, 1) for c in (widths[:-1] if options.prior_skip == "all" else []))
        self.masks = nn.ModuleList(nn.Conv2d(1, c, 3, padding=1) for c in (widths if options.mask_skip else []))
        self.head = Output(U[-1])

    def forward(self, x_m: Tensor, M: Tensor, V: Tensor) -> Tensor:
        """Eq. 3 and 4: the restored image, B 3 H W in [-1, 1].

        Args:
            x_m: B 3 H W, the corrupted image, zero in the hole.
            M: B 1 H W, 1 = hole.
            V: B N e, the visual priors V̂.
        """
        height, width = (n // self.options.patch for n in x_m.shape[-2:])
        if height * width < 2:
            side = 2 * self.options.patch
            raise UsageError(f"cma needs images of at least {side} pixels along one side", remedy=f"--size {side}")
        prior = V.transpose(1, 2).reshape(len(V), -1, height, width)
        v = self.down(self._down_input(x_m, M, V, prior))
        x = torch.cat([v, self.skip(prior)], 1)
        for k, layer in enumerate(self.up):
            x = layer(self._informed(x, prior, M, k))
        image: Tensor = self.head(self._informed(x, prior, M, len(self.up)))
        return image

    def kernels(self) -> list[nn.Parameter]:
        """The weights of its convolutions, but for those that read the mask alone and the one that makes the image."""
        ends = {id(p) for module in (self.masks, self.head) for p in module.parameters()}
        return [p for p in self.parameters() if p.ndim == 4 and id(p) not in ends]

    def _informed(self, x: Tensor, prior: Tensor, M: Tensor, k: int) -> Tensor:
        """What layer `k` sees, the head being the last: its input, the priors and the mask where it is shown them."""
        size = (x.shape[-2], x.shape[-1])
        if k < len(self.skips):
            x = x + F.interpolate(self.skips[k](prior), size, mode="bilinear", align_corners=False)
        return x + self.masks[k](F.adaptive_avg_pool2d(M, size)) if self.masks else x

    def _down_input(self, x_m: Tensor, M: Tensor, V: Tensor, prior: Tensor) -> Tensor:
        # Deviation: Eq. 3 down-samples the pixels of the corrupted image, with their mask.
        if self.options.down_input == "tokens":
            return prior
        parts = [x_m] if self.options.down_input in ("pixels", "both") else []
        if self.to_image is not None:
            patches = self.to_image(V).transpose(1, 2)
            parts.append(F.fold(patches.float(), x_m.shape[-2:], self.options.patch, stride=self.options.patch))
        if self.options.mask_channel:
            parts.append(M)
        return torch.cat(parts, 1)


class Discriminator(nn.Module):
    """Global or local: five residual layers, the mean over places, one score.

    Args:
        channels: Of the five layers.
        halve: How many of them halve the size; the others keep it.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512, 512), halve: int = 5) -> None:
        super().__init__()
        self.layers = DownSampling(3, channels, halve)
        self.score = Score(channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B), of images or crops B 3 H W in [-1, 1]."""
        # Deviation: the fully connected layer sees the mean over places.
        features = F.leaky_relu(self.layers(x), SLOPE).mean((2, 3))
        score: Tensor = self.score(features)
        return score[:, 0]
