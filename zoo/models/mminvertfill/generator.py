"""The generator of StyleGAN2 (Karras et al. 2020, config F) with the entrances of the F&W+ space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.mminvertfill.fir import up2
from zoo.models.mminvertfill.layers import EPS, Linear, StyledConv, ToRGB, full


def resolutions(size: int) -> list[int]:
    """4, 8, 16, ... size.

    Raises:
        UsageError: The size is no power of two from 8 on.
    """
    if size < 8 or size & (size - 1):
        raise UsageError(f"StyleGAN2 makes images of a power of two from 8 on, not {size}", remedy="size: 256")
    return [2**k for k in range(2, size.bit_length())]


def config_f(size: int) -> dict[int, int]:
    """Full-width channels at each resolution: 512 up to 64, then half as many each time."""
    return {n: min(512, 32768 // n) for n in resolutions(size)}


def widths(size: int, channels: Mapping[int, int] | None) -> dict[int, int]:
    """The channels at each resolution of an image of this size; those of `config_f` where none are given.

    Raises:
        UsageError: A resolution lacks its channels.
    """
    chosen = config_f(size) if channels is None else {int(n): c for n, c in channels.items()}
    lacking = [n for n in resolutions(size) if n not in chosen]
    if lacking:
        raise UsageError(f"images of {size} pixels need channels at {lacking[0]} pixels too", remedy="add it")
    return {n: chosen[n] for n in resolutions(size)}


class StyleGenerator(nn.Module):
    """z to w by the mapping network, and w to an image by the synthesis network, whose to-RGB maps are summed.

    Layer k, of `layers`, takes style vector k: one layer at 4 pixels, then at each resolution one that doubles the size
    and one that keeps it. The map to RGB of resolution i, of `rgb`, takes vector 2i+1, as does the next layer.

    Args:
        size: Pixels of an image's side, a power of two from 8 on.
        w: Width of z and of a style vector.
        mapping: Layers of the mapping network.
        channels: Channels by resolution from 4 to `size`; None is the full width of config F.
        mapping_lr: How fast the mapping network learns, beside the rest.

    Attributes:
        styles: L = 2 log2(size) - 2, the style vectors of an image.

    Raises:
        UsageError: No such size, or a resolution without channels.
    """

    def __init__(
        self,
        size: int = 256,
        w: int = 512,
        mapping: int = 8,
        channels: Mapping[int, int] | None = None,
        mapping_lr: float = 0.01,
    ) -> None:
        super().__init__()
        self.size, self.w, self.channels = size, w, widths(size, channels)
        self.mapping = nn.Sequential(*(Linear(w, w, mapping_lr, active=True) for _ in range(mapping)))
        self.constant = nn.Parameter(torch.randn(1, self.channels[4], 4, 4))
        layers = [StyledConv(self.channels[4], self.channels[4], w)]
        for c, d in pairwise(self.channels.values()):
            layers += [StyledConv(c, d, w, up=True), StyledConv(d, d, w)]
        self.layers = nn.ModuleList(layers)
        self.rgb = nn.ModuleList(ToRGB(c, w) for c in self.channels.values())
        self.styles = 2 * len(self.channels)
        for k, n in enumerate(self._sides()):
            self.register_buffer(f"noise_{k}", torch.randn(1, 1, n, n))

    def _sides(self) -> list[int]:
        """The side of each layer's output."""
        return [4] + [n for n in self.channels if n > 4 for _ in range(2)]

    def map(self, z: Tensor) -> Tensor:
        """f(z): style vectors w (B w) of normal z (B w), in float32."""
        z = full(z)
        w: Tensor = self.mapping(z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPS))
        return w

    def mix(self, z: Tensor, other: Tensor | None = None, crossover: int = 0) -> Tensor:
        """The style vectors B L w of z; from index `crossover` on those of another z where one is given.

        Args:
            z: B w.
            other: B w, or None.
            crossover: From 0, all of them the other's, to L, none.
        """
        w = self.map(z)[:, None].expand(-1, self.styles, -1)
        if other is None:
            return w
        return torch.cat([w[:, :crossover], self.map(other)[:, None].expand(-1, self.styles - crossover, -1)], 1)

    def fresh_noise(
        self, batch: int, device: torch.device | str, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """New noise for training, B 1 h w for each layer in the order they run.

        Args:
            batch: B.
            device: Where it is made; also the generator's.
            generator: Where the numbers come from; None is torch's own.
        """
        return [torch.randn(batch, 1, n, n, device=device, generator=generator) for n in self._sides()]

    def fixed_noise(self) -> list[Tensor]:
        """The noise that is kept with the weights, for inference: 1 1 h w for each layer in the order they run."""
        return [self.get_buffer(f"noise_{k}") for k in range(len(self.layers))]

    def synthesize(
        self,
        w: Tensor,
        noise: Sequence[Tensor] | None = None,
        structure: Mapping[int, Tensor] | None = None,
        replace: bool = False,
    ) -> Tensor:
        """The image, B 3 s s, about [-1, 1] but not clamped; float32 at least.

        Args:
            w: Style vectors, B L w.
            noise: Of each layer, as `fresh_noise` and `fixed_noise` give it; None is no noise.
            structure: Features by resolution, B c n n. That of 4 is added to the learned constant. Others are added to
                the output of the layer that doubles the size, after its noise, bias and activation, so right before
                the second modulated convolution of the resolution.
            replace: Let that of 4 be in place of the constant.

        Raises:
            UsageError: Numbers of style vectors, noises or resolutions are not this generator's.
        """
        structure = dict(structure or {})
        self._check(w, noise, structure)
        x = self.constant.expand(len(w), -1, -1, -1)
        if 4 in structure:
            x = structure.pop(4) if replace else x + structure.pop(4)
        x = x.contiguous(memory_format=torch.channels_last)  # an enlarging convolution takes a fifth less time
        noises: Sequence[Tensor | None] = noise or [None] * len(self.layers)
        x = self.layers[0](x, w[:, 0], noises[0])
        image: Tensor = self.rgb[0](x, w[:, 1])
        for i, n in enumerate(list(self.channels)[1:], start=1):
            k = 2 * i - 1
            x = self.layers[k](x, w[:, k], noises[k])
            if n in structure:
                x = x + structure[n]
            x = self.layers[k + 1](x, w[:, k + 1], noises[k + 1])
            with torch.autocast(x.device.type, enabled=False):
                image = up2(image) + self.rgb[i](x, w[:, k + 2])
        return image

    def forward(
        self,
        z: Tensor,
        noise: Sequence[Tensor] | None = None,
        other: Tensor | None = None,
        crossover: int = 0,
    ) -> Tensor:
        """Images B 3 s s of z (B w); `noise` as of `synthesize`, `other` and `crossover` as of `mix`."""
        return self.synthesize(self.mix(z, other, crossover), noise)

    def _check(self, w: Tensor, noise: Sequence[Tensor] | None, structure: Mapping[int, Tensor]) -> None:
        if w.ndim != 3 or w.shape[1:] != (self.styles, self.w):
            wanted = f"B {self.styles} {self.w}"
            raise UsageError(f"style vectors must be {wanted}, not {tuple(w.shape)}", remedy="see StyleGenerator.mix")
        if noise is not None and len(noise) != len(self.layers):
            said = f"{len(self.layers)} layers need as many noises, not {len(noise)}"
            raise UsageError(said, remedy="take them from fresh_noise or fixed_noise")
        unknown = [n for n in structure if n not in self.channels]
        if unknown:
            raise UsageError(f"there is no resolution {unknown[0]}", remedy=f"one of {list(self.channels)}")
