"""Contextual attention in factored form against the per-sample convolution formulation, and its memory on large images.

python -m benchmarks.speed.attention
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BATCH, CHANNELS, SIZE = 4, 96, 64  # the features of a 256 x 256 image in the paper's network
ROUNDS = 7
FORWARD, BOTH = 3.5, 2.7
TOLERANCE = 1e-5
LARGE, LIMIT_MB = 1024, 1024


def plain_attention(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
    """The usual formulation: the patches of each sample are the kernels of convolutions over that sample.

    Args:
        foreground: B C H W.
        background: B C H W.
        mask: B 1 H/2 W/2, 1 = hole.
    """
    batch, channels, height, width = background.shape
    n, m = height // 2, width // 2
    cells, results = n * m, []
    identity = torch.eye(3, dtype=foreground.dtype).view(1, 1, 3, 3)
    low_foreground, low_background = foreground[..., ::2, ::2], background[..., ::2, ::2]
    covered = F.fold(torch.ones(1, 16, cells, dtype=foreground.dtype), (height, width), 4, padding=1, stride=2)
    for i in range(batch):
        raw = F.unfold(background[i : i + 1], 4, stride=2, padding=1).view(channels, 4, 4, cells).permute(3, 0, 1, 2)
        keys = F.unfold(low_background[i : i + 1], 3, padding=1).view(channels, 3, 3, cells).permute(3, 0, 1, 2)
        keys = keys / keys.flatten(1).norm(dim=1).clamp_min(1e-4).view(-1, 1, 1, 1)
        valid = (F.max_pool2d(mask[i : i + 1], 3, 1, 1) < 0.5).view(1, cells, 1, 1)
        scores = F.conv2d(low_foreground[i : i + 1], keys, padding=1).view(1, n, m, n, m)
        grid = scores.reshape(1, 1, cells, cells)
        grid = _convolve_rows(grid, identity, n, m).permute(0, 1, 3, 2, 5, 4).reshape(1, 1, cells, cells)
        fused = _convolve_rows(grid, identity, m, n).permute(0, 1, 3, 2, 5, 4).reshape(1, cells, n, m)
        weights = torch.softmax((10.0 * fused).masked_fill(~valid, -1e30), 1) * valid
        results.append(F.conv_transpose2d(weights, raw, stride=2, padding=1) / covered)
    return torch.cat(results)


def _convolve_rows(grid: Tensor, identity: Tensor, rows: int, columns: int) -> Tensor:
    """The identity kernel over the flattened matrix, without what it lets pass from the end of a row into the next."""
    grid = grid.view(1, 1, rows, columns, rows, columns)
    padded = F.pad(grid, (0, 1, 0, 0, 0, 1)).reshape(1, 1, rows * (columns + 1), rows * (columns + 1))
    padded = F.pad(padded.view(1, 1, rows, columns + 1, -1), (0, 0, 0, 0)).reshape(padded.shape)
    out = F.conv2d(padded, identity, padding=1)
    return out.view(1, 1, rows, columns + 1, rows, columns + 1)[:, :, :, :columns, :, :columns]
