"""map2style and map2structure: a square map to one vector, as pSp's style block does it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError, unknown_name
from zoo.models.mminvertfill.layers import Linear

SLOPE = 0.01  # of the leaky ReLU
WIDTHS = ("const", "grow")


def map_widths(channels_in: int, count: int, width: int = 512, kind: str = "grow") -> list[int]:
    """Channels after each of `count` layers.

    Args:
        channels_in: C of the map.
        count: How many layers.
        width: Numbers in the vector.
        kind: `const`: the vector's width, as in pSp. `grow`: they double up to it, from an eighth of it or from
            `channels_in`, whichever is more.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in WIDTHS:
        raise unknown_name("widths of the map networks", kind, list(WIDTHS))
    if kind == "const":
        return [width] * count
    first = max(channels_in, width // 8)
    return [min(width, first * 2**i) for i in range(count - 1)] + [width]


class MapToVector(nn.Module):
    """3x3 convolutions of stride 2 down to one place, then an equalised linear layer.

    Args:
        channels_in: C of the map.
        size: Side of the maps it is for; it decides the number of layers. What others leave is averaged.
        width: Numbers in the vector.
        kind: As in `map_widths`.

    Raises:
        UsageError: An unknown kind, or a map of a single place.
    """

    def __init__(self, channels_in: int, size: int, width: int = 512, kind: str = "grow") -> None:
        super().__init__()
        if size < 2:
            raise UsageError(f"a map of {size} x {size} is no map", remedy="use larger images")
        # Deviation: the layers of the map networks are narrower than the vector they end in.
        channels = map_widths(channels_in, size.bit_length() - 1, width, kind)
        self.layers = nn.ModuleList(
            nn.Conv2d(c, d, 3, 2, 1) for c, d in zip([channels_in, *channels[:-1]], channels, strict=True)
        )
        self.linear = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """B w, of maps B C H W of any size."""
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        vector: Tensor = self.linear(x.mean((2, 3)))
        return vector


def structure_map(image: Tensor, edge: Tensor | None = None, segmentation: Tensor | None = None) -> Tensor:
    """Y_r = [O_r ; σ(edge) ; softmax(segmentation)], what map2structure reads: B 4+K h w.

    Args:
        image: O_r, B 3 h w in [-1, 1].
        edge: Logits, B 1 h w; None leaves its channel out.
        segmentation: Logits, B K h w; None leaves its channels out.
    """
    # Deviation: map2structure reads edges and segmentation besides the reconstructed image.
    parts = [image]
    if edge is not None:
        parts.append(edge.sigmoid().to(image.dtype))
    if segmentation is not None:
        parts.append(segmentation.softmax(1).to(image.dtype))
    return torch.cat(parts, 1)
