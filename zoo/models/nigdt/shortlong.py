"""The short and long term attention of PICNet (Zheng et al. 2019), the highway from the encoder to the generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import same

SLOPE = 0.01  # of the leaky ReLU in the fusing block; the published networks have 0.1 everywhere else


class ShortLongAttention(nn.Module):
    """Self-attention of a map, whose weights are used again to bring known features of the encoder into the hole.

    Args:
        channels: C of the maps, at least 4.
        long: Whether there is a long term. Discriminators have none; then neither α nor the fusing block is built.
        spectral: Whether the fusing block is under spectral normalization.
        mixed: Whether the long term's source has the map itself in the hole, in place of the encoder's features there.

    Raises:
        UsageError: Fewer than 4 channels.
    """

    def __init__(self, channels: int, long: bool = True, spectral: bool = True, mixed: bool = False) -> None:
        super().__init__()
        if channels < 4:
            raise UsageError(f"short and long term attention needs at least 4 channels, not {channels}")
        self.long, self.mixed = long, mixed
        self.query = nn.Conv2d(channels, channels // 4, 1)
        nn.init.orthogonal_(self.query.weight, gain=0.02)
        if self.query.bias is not None:
            nn.init.zeros_(self.query.bias)
        self.gamma = nn.Parameter(torch.zeros(1))
        if long:
            self.alpha = nn.Parameter(torch.zeros(1))  # holes start empty
            self.fuse = same(2 * channels, channels, spectral=spectral, slope=SLOPE)

    def forward(self, x: Tensor, e: Tensor | None = None, hole: Tensor | None = None) -> Tensor:
        """Attended features, B C h w.

        Args:
            x: B C h w, the map that attends to itself.
            e: B C h w, features of the corrupted image. With the long term only.
            hole: B 1 h w, 1 = hole. With the long term only.

        Raises:
            UsageError: e or the hole map is missing, or given to a layer that has no long term.
        """
        if not self.long:
            if e is not None or hole is not None:
                raise UsageError("this attention layer has no long term: it takes no encoder features and no hole map")
            return self._short(x, self._attended(x, x))
        if e is None or hole is None:
            raise UsageError("the long term of this attention layer needs encoder features and a hole map")
        h = hole.to(x.dtype)
        if self.mixed:
            e = h * x + (1 - h) * e
        from_x, from_e = self._attended(x, torch.cat([x, e], 1)).chunk(2, 1)
        long = self.alpha * h * from_e + (1 - h) * e
        fused: Tensor = self.fuse(torch.cat([self._short(x, from_x), long], 1))
        return fused

    def _short(self, x: Tensor, attended: Tensor) -> Tensor:
        return self.gamma * attended + x

    def _attended(self, x: Tensor, values: Tensor) -> Tensor:
        """Values of all cells (B V h w) weighted by how much x there is like x here, in float32.

        Scores are not scaled by a root of the width, and the softmax of large ones depends on their last digits.
        """
        with torch.autocast(x.device.type, enabled=False):
            query = self.query(x.to(self.query.weight.dtype)).float().flatten(2).transpose(1, 2)[:, None]
            value = values.float().flatten(2).transpose(1, 2)[:, None]
            attended = F.scaled_dot_product_attention(query, query, value, scale=1.0)
        return attended[:, 0].transpose(1, 2).reshape(values.shape).to(values.dtype)
