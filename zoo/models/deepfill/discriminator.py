"""SN-PatchGAN (Yu et al. 2019, Sec. 3.3) and the two critics of v1 (Yu et al. 2018, Sec. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.errors import DataError

SLOPE = 0.2  # of the leaky ReLU


class SpectralConv(nn.Conv2d):
    """A convolution divided by its largest singular value; one power iteration per forward in training."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, padding)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        spectral_norm(self, "weight")

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # the iteration's matrix products would run in bf16
            weight = self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PatchDiscriminator(nn.Module):
    """SN-PatchGAN: every element of its last feature map is one score of a patch.

    Args:
        channels_in: 3, one more with the mask, one more with a sketch.
        base: Channels of the first layer; they grow to 4 times that.
        layers: How many 5x5 convolutions of stride 2.
    """

    def __init__(self, channels_in: int = 4, base: int = 64, layers: int = 6) -> None:
        super().__init__()
        channels = [channels_in, *(base * min(2**i, 4) for i in range(layers))]
        self.layers = nn.ModuleList(SpectralConv(c, d, 5, 2, 2) for c, d in pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scores, B C H/2^layers W/2^layers, of images B C H W; also the last layer is rectified."""
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


class Critic(nn.Module):
    """A Wasserstein critic: 5x5 convolutions of stride 2, then one linear layer. No norm: the penalty forbids it.

    Args:
        channels_in: 3, or 4 with the mask.
        channels: Channels of the layers.
        size: Side of the square images it sees.
    """

    def __init__(self, channels_in: int, channels: Sequence[int], size: int) -> None:
        super().__init__()
        self.size = size
        pairs = pairwise([channels_in, *channels])
        self.layers = nn.ModuleList(nn.Conv2d(c, d, 5, 2, 2) for c, d in pairs)
        side = -(-size // 2 ** len(channels))
        self.score = nn.Linear(channels[-1] * side * side, 1)
        for layer in (*self.layers, self.score):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores, B, of images B C size size.

        Raises:
            DataError: The images have another size.
        """
        if x.shape[-2:] != (self.size, self.size):
            raise DataError(
                f"this critic was built for {self.size} x {self.size} images, got {x.shape[-2]} x {x.shape[-1]}",
                remedy="set the model's size to the data's, or use gan=sn_patch, which takes any size",
            )
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        scores: Tensor = self.score(x.flatten(1)).squeeze(1)
        return scores


class Critics(nn.Module):
    """The global critic on the whole image and the local one on a crop around the hole; their scores are added.

    Args:
        which: `global`, `local` or `both`.
        base: Channels of the first layer (64 in v1).
        size: Side of the images.
        local_size: Side of the crop (128 of 256 in v1).
        with_mask: Whether the critics see the mask as a fourth channel.
    """

    def __init__(self, which: str, base: int, size: int, local_size: int, with_mask: bool = False) -> None:
        super().__init__()
        self.local_size, self.with_mask = local_size, with_mask
        channels_in = 3 + int(with_mask)
        wide = [base, 2 * base, 4 * base]
        if which in ("global", "both"):
            self.whole = Critic(channels_in, [*wide, 4 * base], size)
        if which in ("local", "both"):
            self.crop = Critic(channels_in, [*wide, 8 * base], local_size)

    def forward(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Scores, B each: `whole` of the images, `crop` of the crops around their holes.

        Args:
            image: B 3 H W.
            mask: B 1 H W, 1 = hole.
        """
        return {name: self.score(name, *view) for name, view in self.views(image, mask).items()}

    def views(self, image: Tensor, mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What each critic looks at: the image and the mask, whole or cropped around the hole."""
        views = {}
        if hasattr(self, "whole"):
            views["whole"] = (image, mask)
        if hasattr(self, "crop"):
            both = crop_hole(torch.cat([image, mask], 1), mask, self.local_size)
            views["crop"] = (both[:, :3], both[:, 3:])
        return views

    def score(self, name: str, image: Tensor, mask: Tensor) -> Tensor:
        """Scores, B, of one critic for what `views` made for it."""
        scores: Tensor = getattr(self, name)(torch.cat([image, mask], 1) if self.with_mask else image)
        return scores


def crop_hole(x: Tensor, mask: Tensor, size: int) -> Tensor:
    """A square crop centred on each sample's hole, moved to lie inside the image; the image's centre without a hole.

    Args:
        x: B C H W.
        mask: B 1 H W, 1 = hole.
        size: Side of the crop, at most H and W.
    """
    # Deviation: the local critic looks at a box centred on the hole, whatever its shape.
    hole = mask[:, 0] > 0.5
    starts = [_crop_starts(hole.any(axis), size) for axis in (2, 1)]
    return torch.stack(
        [x[i, :, t : t + size, left : left + size] for i, (t, left) in enumerate(zip(*starts, strict=True))]
    )


def _crop_starts(hole: Tensor, size: int) -> list[int]:
    """Where crops start along one axis, given which of its positions hold hole pixels (B N)."""
    length = hole.shape[1]
    index = torch.arange(length, device=hole.device)
    first = torch.where(hole, index, length).amin(1)
    last = torch.where(hole, index, -1).amax(1)
    centre = torch.where(last < 0, length, first + last + 1)  # twice the centre
    starts: list[int] = ((centre - size) // 2).clamp(0, length - size).tolist()
    return starts
