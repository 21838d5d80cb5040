"""Small networks of random weights in the place of the feature networks, to test the harness without their files.

They are never taken in place of a network that is absent: only a metric asked for by a name that ends in `_stand-in`
uses them, and its rows carry that name. Their values say nothing about images, but for one: an image is at distance 0
from itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.keyed import torch_generator
from zoo.metrics.image import check_images
from zoo.metrics.perceptual import check_batch
from zoo.metrics.text import ClipScore

CHANNELS = (3, 8, 16)
WIDTH = 2 * CHANNELS[-1]
PICTURE = 32


class RandomStages(nn.Module):
    """Convolutions of random weights that are the same everywhere; each halves the size."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch_generator("stand-in")
        self.layers = nn.ModuleList(nn.Conv2d(c, d, 3, 2, 1) for c, d in itertools.pairwise(CHANNELS))
        for parameter in self.layers.parameters():
            parameter.requires_grad_(False)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps, fine to coarse, of images B 3 H W uint8."""
        x, maps = image.float() / 127.5 - 1, []
        for layer in self.layers:
            x = F.relu(layer(x))
            maps.append(x)
        return maps


class Perceptual(nn.Module):
    """In the place of `Lpips` and `Dists`: squared differences of random maps.

    Args:
        names: The metrics that it gives; those that end in `_hole` over the hole.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.stages = tuple(names), RandomStages()

    @torch.no_grad()
    def forward(self, composite: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Measures a batch; arguments and errors as of `Lpips`."""
        check_batch(composite, truth, mask)
        size = tuple(composite.shape[-2:])
        distance = torch.zeros(len(mask), 1, *size, device=composite.device)
        for a, b in zip(self.stages(composite), self.stages(truth), strict=True):
            distance += F.interpolate((a - b).square().mean(1, keepdim=True), size, mode="bilinear")
        hole = (mask > 0.5).double()
        values = {
            False: distance.double().mean((1, 2, 3)),
            True: (distance * hole).sum((1, 2, 3)) / hole.sum((1, 2, 3)),
        }
        return {name: values[name.endswith("_hole")] for name in self.names}


class Extractor(nn.Module):
    """In the place of `Inception`: mean and spread of a random map, B x 32."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.stages = RandomStages()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Features B x 32, float32, of images B 3 H W uint8."""
        check_images(image, image)
        last = self.stages(image)[-1].flatten(2)
        return torch.cat([last.mean(2), last.std(2)], 1)


class Clip(nn.Module):
    """In the place of CLIP: random features of pictures, and of captions by their letters."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = Extractor()

    def encode_image(self, batch: Tensor) -> Tensor:
        """B x 32."""
        features: Tensor = self.extractor(batch)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """B x 32, of B x 32 counts."""
        return tokens.float() + 1


def clip_score() -> ClipScore:
    """A `ClipScore` with the network above."""
    import numpy as np

    def preprocess(picture: object) -> Tensor:
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return F.interpolate(image[None].float(), (PICTURE, PICTURE))[0].to(torch.uint8)

    def tokenize(captions: list[str]) -> Tensor:
        return torch.stack(
            [torch.bincount(torch.tensor([*caption.encode(), 0]) % WIDTH, minlength=WIDTH) for caption in captions]
        )

    return ClipScore(Clip(), preprocess, tokenize)
