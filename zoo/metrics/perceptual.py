"""LPIPS and DISTS of each image of a batch, by torchmetrics' networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.metrics.image import check_images, check_shape
from zoo.metrics.sources import PUBLISHED, hub_holding

PIXELS = 2**21  # of a part of a batch: VGG's first maps then take half a gigabyte
SMALLEST = 32  # AlexNet's last pooling has nothing left below it


class Lpips(nn.Module):
    """LPIPS v0.1 over the whole image and over the hole.

    torchmetrics' own forward gives either the mean or the map of distances. Both are wanted, and its trunk is what
    costs: here its parts are run once.

    Args:
        net: `alex` or `vgg`.
        trunk: torchvision's weights of the trunk (`locate`).
    """

    def __init__(self, net: Literal["alex", "vgg"], trunk: Path) -> None:
        super().__init__()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.name = f"lpips_{net}"
        with hub_holding(trunk, PUBLISHED["alexnet" if net == "alex" else "vgg16"].name):
            self.network: Any = LearnedPerceptualImagePatchSimilarity(net_type=net).net

    @torch.no_grad()
    def forward(self, composite: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measures a batch.

        Args:
            composite: B 3 H W uint8, sides of at least 32.
            truth: B 3 H W uint8.
            mask: B 1 H W in {0, 1}, 1 = hole.

        Returns:
            `lpips_NET` and `lpips_NET_hole`, B values each, float64; NaN over a hole that is not there.

        Raises:
            DataError: Shapes or types differ from the above.
        """
        check_batch(composite, truth, mask)
        parts = [self._part(*part) for part in in_parts(composite, truth, mask)]
        whole, hole = (torch.cat(values) for values in zip(*parts, strict=True))
        return {self.name: whole, f"{self.name}_hole": hole}

    def _part(self, composite: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        from torchmetrics.functional.image.lpips import _normalize_tensor, _upsample

        network, count = self.network, len(composite)
        images = torch.cat([composite, truth]).float().div(127.5).sub(1)
        size = tuple(images.shape[-2:])
        whole = torch.zeros(count, dtype=torch.float64, device=images.device)
        spatial = torch.zeros(count, 1, *size, device=images.device)
        for layer, head in zip(network.net(network.scaling_layer(images)), network.lins, strict=True):
            first, second = _normalize_tensor(layer).split(count)
            distance = head((first - second) ** 2)
            whole += distance.mean((1, 2, 3))
            spatial += _upsample(distance, out_hw=size)
        hole = (mask > 0.5).double()
        return whole, (spatial * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3))


class Dists(nn.Module):
    """DISTS over the whole image.

    torchmetrics' metric builds its network anew for every batch; here it is built once.

    Args:
        trunk: torchvision's weights of VGG-16 (`locate`).
    """

    def __init__(self, trunk: Path) -> None:
        super().__init__()
        from torchmetrics.functional.image.dists import DISTSNetwork

        with hub_holding(trunk, PUBLISHED["vgg16"].name):
            self.network: Any = DISTSNetwork().eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, composite: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measures a batch; arguments and errors as of `Lpips`. Returns `dists`, B values, float64."""
        check_batch(composite, truth, mask)
        parts = [
            self.network(a.float().div(255), b.float().div(255)).reshape(-1).double()
            for a, b, _ in in_parts(composite, truth, mask)
        ]
        return {"dists": torch.cat(parts)}


def check_batch(composite: Tensor, truth: Tensor, mask: Tensor) -> None:
    """Refuses what a feature network cannot compare.

    Raises:
        DataError: Not B 3 H W uint8 twice and B 1 H W, or a side under 32 pixels.
    """
    check_images(composite, truth)
    check_shape("mask", mask, (len(composite), 1, *composite.shape[2:]), composite)
    if min(composite.shape[-2:]) < SMALLEST:
        raise DataError(f"feature networks need images of at least {SMALLEST} pixels, got {tuple(composite.shape)}")


def in_parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors of one batch in parts that hold at most `PIXELS` pixels, or one image."""
    height, width = tensors[0].shape[-2:]
    step = max(1, PIXELS // (height * width))
    return list(zip(*(torch.split(tensor, step) for tensor in tensors), strict=True))
