"""The image encoder (Sec. 3.1, Eq. 1) and the generator (Sec. 3.3, Eq. 10 and 13) of NIGDT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import Output, Residual, down, first, same
from zoo.layers.residual import up as enlarge
from zoo.models.nigdt.shortlong import ShortLongAttention


def downwards(stages: Sequence[int], halvings: int, spectral: bool = True) -> list[Residual]:
    """Residual blocks from an image to features: the first `halvings` of them halve the size, the others keep it.

    Args:
        stages: Channels after each block.
        halvings: How many blocks halve the size, from 1 on.
        spectral: Whether convolutions are under spectral normalization.

    Raises:
        UsageError: Fewer blocks than halvings, or none of either.
    """
    if not 1 <= halvings <= len(stages):
        raise UsageError(f"{len(stages)} stages cannot halve an image {halvings} times", remedy="one stage a halving")
    blocks = [first(3, stages[0], spectral)]
    for k, (c, d) in enumerate(pairwise(stages), start=1):
        blocks.append((down if k < halvings else same)(c, d, spectral=spectral))
    return blocks


class ImageEncoder(nn.Module):
    """Eq. 1, shared by both paths.

    Args:
        stages: Channels of the residual layers.
        halvings: How many of them halve the size.
        low: After how many layers v_l is taken; v_h comes after the last.
        spectral: Whether convolutions are under spectral normalization.

    Raises:
        UsageError: No such layer, or more halvings than layers.
    """

    def __init__(
        self,
        stages: Sequence[int] = (32, 128, 256, 256, 256, 256, 256),
        halvings: int = 5,
        low: int = 3,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= low <= len(stages):
            raise UsageError(f"nigdt's low must be from 1 to {len(stages)}, the number of stages, not {low}")
        # Deviation: v_l is the output of an earlier layer than the second last.
        self.low = low  # its size and width must be those of the decoder's features at the attention
        self.stages = nn.ModuleList(downwards(stages, halvings, spectral))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (v_l, v_h), B c h w each, of images B 3 H W in [-1, 1] whose hidden part is zero."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features[self.low - 1], features[-1]


class Generator(nn.Module):
    """The combination of h and z (Eq. 10), and the residual decoder with short+long-term attention and several heads.

    Args:
        h: Channels of h (Eq. 8).
        latent: Channels of z.
        width: Channels of their combination r.
        up: Channels of the decoder's layers.
        low: Channels of v_l, which the attention reads.
        attention_at: After how many layers the attention stands; their features are of v_l's size.
        outputs: How many images, one after each of the last layers.
        kept: How many of the first layers keep the size; the others double it.
        mixed: Whether the attention's long term reads the decoder's features in the hole (see `ShortLongAttention`).
        mask_skip: Whether each layer and each head is told, by a convolution, where the hole is.
        spectral: Whether convolutions are under spectral normalization.
        dim: The rows of the transposed convolutions' spectral norm, see `EnlargingConv`.

    Raises:
        UsageError: Layers, heads and attention do not fit each other.
    """

    def __init__(
        self,
        h: int = 768,
        latent: int = 256,
        width: int = 256,
        up: Sequence[int] = (256, 256, 128, 64, 32),
        low: int = 256,
        attention_at: int = 2,
        outputs: int = 4,
        kept: int = 0,
        mixed: bool = False,
        mask_skip: bool = False,
        spectral: bool = True,
        dim: int = 1,
    ) -> None:
        super().__init__()
        _check(up, low, attention_at, outputs, kept)
        # Deviation: h and the sampled z pass through a residual block each before they are summed.
        self.project_h = same(h, width, spectral=spectral)  # their widths differ
        self.project_z = same(latent, width, spectral=spectral)
        self.attention_at, self.silent = attention_at, len(up) - outputs
        inputs = [c + 3 * (k > self.silent) for k, c in enumerate([width, *up[:-1]])]
        self.layers = nn.ModuleList(
            enlarge(c, d, spectral, dim) if k >= kept else same(c, d, spectral=spectral)
            for k, (c, d) in enumerate(zip(inputs, up, strict=True))
        )
        self.attention = ShortLongAttention(low, spectral=spectral, mixed=mixed)
        # Deviation: smaller images are made too, and each is shown to the layer that follows it.
        self.heads = nn.ModuleList(Output(c, spectral) for c in up[self.silent :])
        self.mask_skips = nn.ModuleList(_skip(c) for c in ([width, *up] if mask_skip else []))

    def forward(self, h: Tensor, z: Tensor, v_l: Tensor, mask: Tensor) -> list[Tensor]:
        """Images B 3 . . in [-1, 1], coarse to fine; the last has the size of the mask.

        Args:
            h: B c h w, the multimodal features of the corrupted image, on both paths (Eq. 13).
            z: B z h w, a sample of prior or posterior.
            v_l: B c' h' w', of the corrupted image on both paths.
            mask: B 1 H W, 1 = hole.

        Raises:
            UsageError: The image is so small that features of a single place would be normalized, or v_l is not of the
                size at which the attention stands.
        """
        if h.shape[-2] * h.shape[-1] < 2:
            side = 2 * mask.shape[-1] // h.shape[-1]
            raise UsageError(f"nigdt needs images of at least {side} pixels along one side", remedy=f"--size {side}")
        x = self._told(0, self.project_h(h) + self.project_z(z), mask)
        images: list[Tensor] = []
        for k, layer in enumerate(self.layers, start=1):
            x = layer(torch.cat([x, images[-1]], 1) if images else x)
            if k == self.attention_at:
                x = self._attend(x, v_l, mask)
            x = self._told(k, x, mask)
            if k > self.silent:
                images.append(self.heads[k - 1 - self.silent](x))
        return images

    def _attend(self, x: Tensor, v_l: Tensor, mask: Tensor) -> Tensor:
        if v_l.shape[-2:] != x.shape[-2:]:
            theirs, ours = ("x".join(map(str, t.shape[-2:])) for t in (v_l, x))
            raise UsageError(f"v_l is {theirs}, and the generator attends at {ours}", remedy="low, attention_at, kept")
        attended: Tensor = self.attention(x, v_l, hole_cells(mask, x))
        return attended

    def _told(self, k: int, x: Tensor, mask: Tensor) -> Tensor:
        """Features with what the convolution number `k` makes of the share of hole in each of their places."""
        if not self.mask_skips:
            return x
        told: Tensor = self.mask_skips[k](F.adaptive_avg_pool2d(mask, (x.shape[-2], x.shape[-1])))
        return x + told


def hole_cells(mask: Tensor, x: Tensor) -> Tensor:
    """Which places of the features `x` (B c h w) hold any hole pixel of the mask (B 1 H W): B 1 h w, 1 = hole."""
    cells: Tensor = F.adaptive_max_pool2d(mask, (x.shape[-2], x.shape[-1]))
    return cells


def _skip(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(1, channels, 3, padding=1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # where nothing is hidden nothing is added
    return conv


def _check(up: Sequence[int], low: int, attention_at: int, outputs: int, kept: int) -> None:
    layers = len(up)
    if not 0 <= kept < layers:
        raise UsageError(f"nigdt's kept must be below {layers}, the number of the generator's layers, not {kept}")
    if not 1 <= outputs <= layers - kept:
        raise UsageError(f"nigdt's outputs must be from 1 to {layers - kept}, the layers that enlarge, not {outputs}")
    if not 1 <= attention_at <= layers:
        raise UsageError(f"nigdt's attention_at must be from 1 to {layers}, the generator's layers, not {attention_at}")
    if up[attention_at - 1] != low:
        raise UsageError(
            f"the attention reads v_l with {low} channels, beside {up[attention_at - 1]} of the decoder",
            remedy="give up[attention_at - 1] and the stage of v_l the same width",
        )
