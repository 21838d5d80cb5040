"""Contextual attention (Yu et al. 2018, Sec. 4, which DeepFill-v2 keeps) in factored form, one mask per sample.

The paper correlates 3x3 patches (9 C channels) and pastes 4x4 patches (16 C channels), both as convolutions whose
kernels are the patches of one image. Here neither kind of patch is ever built:

* A patch inner product is a sum of pixel inner products along a diagonal, so the scores come from one Gram matrix of
  pixels (C channels) and shifted adds. Attention propagation is another such sum.
* Neighbouring pasted patches overlap. Sorted by the pixel of the 2x2 cell that they write, the overlap is a diagonal
  sum of the attention matrix, and each of the four pixels costs one product with C channels.

That is 5 C multiplications per pair of cells where the plain form takes 25 C.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.errors import DataError
from zoo.models.deepfill.factored import diagonal_sum, paste, patch_scores, sum_along

EPSILON = 1e-4  # the floor of a key's norm: after a ReLU whole patches are zero
EXCLUDED = -1e30  # the logit of an excluded key: finite, because -inf makes NaN where every key is excluded
WHOLE_UP_TO = 4096  # cells of the matching map up to which all queries are done at once
BLOCK_SCORES = 2**24  # scores in one block beyond that: 64 MiB
CPU_SCORES = 2**20  # on a CPU, samples are taken together up to this many scores: 4 MiB stays in its cache


@dataclass(frozen=True)
class AttentionOptions:
    """The settings of contextual attention; the defaults are those of a newly trained model.

    Attributes:
        scale: The softmax scale λ.
        fuse: Attention propagation: neighbouring queries should copy neighbouring keys.
        fuse_wrap: Propagate along the flattened index as the published code does, so that row ends meet row starts.
        masking: `masked` leaves excluded keys out of the softmax; `official` keeps them in its sum with logit 0.
        overlap: Divide pasted patches by their true `coverage`, or by 4 everywhere (`quarter`).
        down: How maps are halved for matching: `stride`, `tf_align` (TensorFlow's align-corners nearest), `area`.
        mask_down: `max` (a cell with any hole pixel is a hole) or `nearest`.
        normalize_query: Cosine on both sides, as the v1 paper writes it; its code normalizes keys only.
        query_chunk: Rows of queries per block; 0 chooses: all of them up to 4,096 cells, blocks of 64 MiB beyond.
    """

    scale: float = 10.0
    fuse: bool = True
    # Deviation: attention propagation does not wrap around at the ends of rows.
    fuse_wrap: bool = False
    # Deviation: excluded patches take no part in the softmax at all.
    masking: Literal["masked", "official"] = "masked"
    # Deviation: pasted patches are averaged by their true number along the border.
    overlap: Literal["coverage", "quarter"] = "coverage"
    # Deviation: maps are halved for matching by taking every other cell.
    down: Literal["stride", "tf_align", "area"] = "stride"
    # Deviation: a cell with any hole pixel counts as a hole.
    mask_down: Literal["max", "nearest"] = "max"
    # Deviation: the cosine normalizes known patches only.
    normalize_query: bool = False
    query_chunk: int = 0


class _Maps(NamedTuple):
    """What the blocks of one call share. n x m cells, an empty column added: K = n (m + 1) keys."""

    query: Tensor  # B C n m+1
    key: Tensor  # B C K
    key_scale: Tensor  # B 1 K, λ / ‖key patch‖, zero in the empty column
    query_scale: Tensor  # B n m+1 1, 1 / ‖query patch‖, or ones
    bias: Tensor  # B 1 K, EXCLUDED where a key may not be used
    valid: Tensor  # B 1 K, 1 where it may
    raw: Tensor  # B 4 C K, the pixels to paste


class ContextualAttention(nn.Module):
    """Every cell of the foreground becomes a blend of the background's known patches, weighted by likeness.

    Source: Yu et al. 2018, Sec. 4.1 and 4.2. Scores and softmax are float32 whatever autocast says: logits reach 10^4,
    where bf16 is 4 to 8 apart.

    Args:
        options: The settings.
    """

    def __init__(self, options: AttentionOptions | None = None) -> None:
        super().__init__()
        self.options = options or AttentionOptions()

    def forward(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """The foreground rebuilt from patches of the background, B C H W in the foreground's type.

        Args:
            foreground: B C H W, where patches are wanted; H and W even.
            background: B C H W, where they are taken.
            mask: B 1 H' W', 1 = hole; H' and W' multiples of H / 2 and W / 2, one factor for both.

        Raises:
            DataError: The maps are not even.
        """
        cells = foreground.shape[-2] * foreground.shape[-1] // 4
        group = max(1, CPU_SCORES // max(cells, 1) ** 2) if foreground.device.type == "cpu" else len(foreground)
        groups = zip(*(torch.split(x, group) for x in (foreground, background, mask)), strict=True)
        return torch.cat([self._rebuilt(*maps) for maps in groups])

    def _rebuilt(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """`forward`, for as many samples as are worth doing at once."""
        blocks = self._blocks(foreground.shape[-2] // 2, foreground.shape[-1] // 2)
        with torch.autocast(foreground.device.type, enabled=False):
            maps = self._maps(foreground, background, mask)
            if len(blocks) == 1:
                cells = self._cells(maps, 0, maps.query.shape[2])
            else:
                cells = self._cells_by_block(maps, blocks)
            if self.options.masking == "masked":  # with no key at all the weights are uniform over excluded keys
                cells = cells * (maps.valid.amax(2) > 0).view(-1, 1, 1, 1, 1)
            pixels = F.pixel_shuffle(cells[..., :-1].transpose(1, 2).flatten(1, 2), 2)
            return (pixels / self._coverage(pixels)).to(foreground.dtype)

    @torch.no_grad()
    def weights(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """The attention matrix, B L L float32 (query, key) over the L cells, row by row; for tests and pictures."""
        with torch.autocast(foreground.device.type, enabled=False):
            maps = self._maps(foreground, background, mask)
            height, columns = maps.query.shape[2:]
            full = self._attention(maps, 0, height) * maps.valid
        full = full.view(-1, height, columns, height, columns)[:, :, :-1, :, :-1]
        return full.reshape(full.shape[0], height * (columns - 1), -1)

    def offsets(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Where each cell's best match lies, relative to the cell: B 2 H/2 W/2 int64, rows then columns."""
        height, width = foreground.shape[-2] // 2, foreground.shape[-1] // 2
        best = self.weights(foreground, background, mask).argmax(2).view(-1, height, width)
        rows = torch.arange(height, device=best.device).view(-1, 1)
        columns = torch.arange(width, device=best.device)
        return torch.stack([best // width - rows, best % width - columns], 1)

    def _blocks(self, height: int, width: int) -> list[tuple[int, int]]:
        """Ranges of query rows that are done at once."""
        rows = self.options.query_chunk
        if rows == 0:
            cells = height * width
            rows = height if cells <= WHOLE_UP_TO else max(1, BLOCK_SCORES // (cells * width))
        return [(start, min(start + rows, height)) for start in range(0, height, rows)]

    def _maps(self, foreground: Tensor, background: Tensor, mask: Tensor) -> _Maps:
        height, width = foreground.shape[-2:]
        if height % 2 or width % 2:
            raise DataError(f"contextual attention halves its maps, which are {height} x {width}", remedy="pad to even")
        precise = torch.promote_types(foreground.dtype, torch.float32)
        query, key = self._halve(foreground.to(precise)), self._halve(background.to(precise))
        hole = self._match_mask(mask.to(precise), height // 2, width // 2)
        # Deviation: each sample of a batch has a mask of its own.
        valid = (F.max_pool2d(hole, 3, 1, 1) < 0.5).to(precise)
        bias = (1.0 - valid) * EXCLUDED if self.options.masking == "masked" else torch.zeros_like(valid)
        pixels = F.pixel_unshuffle(background, 2)
        pixels = pixels.view(len(pixels), -1, 4, height // 2, width // 2).transpose(1, 2)
        return _Maps(
            query=F.pad(query, (0, 1)),
            key=F.pad(key, (0, 1)).flatten(2),
            key_scale=F.pad(self.options.scale / _patch_norm(key), (0, 1)).flatten(2),
            query_scale=F.pad(1.0 / _patch_norm(query), (0, 1)).squeeze(1).unsqueeze(3),
            bias=F.pad(bias, (0, 1), value=EXCLUDED).flatten(2),
            valid=F.pad(valid, (0, 1)).flatten(2),
            raw=F.pad(pixels, (0, 1)).flatten(3),
        )

    def _halve(self, x: Tensor) -> Tensor:
        if self.options.down == "area":
            return F.avg_pool2d(x, 2)
        if self.options.down == "stride":
            return x[..., ::2, ::2]
        return align_corners_nearest(x, x.shape[-2] // 2, x.shape[-1] // 2)

    def _match_mask(self, mask: Tensor, height: int, width: int) -> Tensor:
        if self.options.mask_down == "max":
            return F.max_pool2d(mask, (mask.shape[-2] // height, mask.shape[-1] // width))
        if self.options.down == "tf_align":  # to the features' size first, as the published code does
            return align_corners_nearest(align_corners_nearest(mask, 2 * height, 2 * width), height, width)
        return mask[..., :: mask.shape[-2] // height, :: mask.shape[-1] // width]

    def _coverage(self, pixels: Tensor) -> Tensor:
        """How many patches write each pixel: 4, but 2 along the frame and 1 in its corners."""
        if self.options.overlap == "quarter":
            return pixels.new_full((), 4.0)
        sides = [pixels.new_full((size,), 2.0) for size in pixels.shape[-2:]]
        for side in sides:
            side[0] = side[-1] = 1.0
        return sides[0].view(-1, 1) * sides[1]

    def _scores(self, maps: _Maps, start: int, stop: int) -> Tensor:
        """Scores of the query rows [start, stop), B (rows of m + 1) K, the empty column zero."""
        height, columns = maps.query.shape[2:]
        low, high = max(start - 1, 0), min(stop + 1, height)
        query = maps.query[:, :, low:high].flatten(2)
        scores = patch_scores(query, maps.key, maps.key_scale, columns)
        if high - low > stop - start:
            scores = scores[:, (start - low) * columns : (stop - low) * columns]
        if self.options.normalize_query:
            scores = scores * maps.query_scale[:, start:stop].flatten(1, 2)
        return scores

    def _fused(self, maps: _Maps, start: int, stop: int) -> Tensor:
        """Scores after attention propagation, for the query rows [start, stop)."""
        height, columns = maps.query.shape[2:]
        if self.options.fuse_wrap:
            return self._fused_wrapping(maps, start, stop)
        low, high = max(start - 1, 0), min(stop + 1, height)
        scores: Tensor = self._scores(maps, low, high)
        # Deviation: attention is propagated before the softmax.
        for step in (1, columns):
            scores = diagonal_sum(scores, step)
        if high - low > stop - start:
            scores = scores[:, (start - low) * columns : (stop - low) * columns]
        return scores

    def _fused_wrapping(self, maps: _Maps, start: int, stop: int) -> Tensor:
        """The published code's propagation: along the index flattened by rows, then by columns, row ends wrapping."""
        height, columns = maps.query.shape[2:]
        width = columns - 1
        rows = sorted({row % height for row in range(start - 2, stop + 2)})
        runs = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row - 1] + [len(rows)]
        parts = [self._scores(maps, rows[a], rows[b - 1] + 1) for a, b in pairwise(runs)]
        scores = torch.cat(parts, 1).view(-1, len(rows), columns, height, columns)[:, :, :-1, :, :-1]
        scores = scores.reshape(-1, len(rows) * width, height * width)
        cells = torch.arange(height * width, device=scores.device).view(height, width)
        shown = cells[rows].flatten()
        for line in (cells.flatten(), cells.t().flatten()):
            scores = sum_along(scores, line, shown)
        wanted = scores[:, rows.index(start) * width :][:, : (stop - start) * width]
        wanted = wanted.reshape(-1, stop - start, width, height, width)
        return F.pad(wanted, (0, 1, 0, 0, 0, 1)).flatten(3).flatten(1, 2)

    def _attention(self, maps: _Maps, start: int, stop: int) -> Tensor:
        """Attention of the query rows [start, stop), B (rows of m + 1) K; meaningless in the empty query column."""
        scores = self._fused(maps, start, stop) if self.options.fuse else self._scores(maps, start, stop)
        if self.options.masking == "masked":
            return torch.softmax(scores + maps.bias, 2)
        return torch.softmax(scores * maps.valid + maps.bias, 2) * maps.valid

    def _cells(self, maps: _Maps, start: int, stop: int) -> Tensor:
        """What the query rows [start, stop) paste, B 4 C rows m+1: a row more on each side that is not the border."""
        height, columns = maps.query.shape[2:]
        attention = self._attention(maps, start, stop)
        above, below = int(start > 0), int(stop < height)
        if above or below:
            attention = F.pad(attention, (0, 0, above * columns, below * columns))
        cells = paste(attention, maps.raw, columns)
        return cells.view(*cells.shape[:3], -1, columns)

    def _cells_by_block(self, maps: _Maps, blocks: list[tuple[int, int]]) -> Tensor:
        """Exact in blocks of query rows: all keys are in each block, so that its softmax is complete."""
        height, columns = maps.query.shape[2:]
        cells = maps.raw.new_zeros(*maps.raw.shape[:3], height, columns)
        for start, stop in blocks:
            if torch.is_grad_enabled():
                block: Tensor = checkpoint(self._cells, maps, start, stop, use_reentrant=False)
            else:
                block = self._cells(maps, start, stop)
            low, high = max(start - 1, 0), min(stop + 1, height)
            cells[:, :, :, low:high] += block
        return cells


def align_corners_nearest(x: Tensor, height: int, width: int) -> Tensor:
    """TensorFlow's align-corners nearest resize: index round(i (N - 1) / (n - 1)), halves up (B C H W)."""
    for axis, size in ((2, height), (3, width)):
        last, steps = x.shape[axis] - 1, max(size - 1, 1)
        index = torch.arange(size, device=x.device)
        x = x.index_select(axis, (2 * index * last + steps) // (2 * steps))
    return x


def _patch_norm(x: Tensor) -> Tensor:
    """The norm of the 3x3 patch around each cell, at least EPSILON; B 1 n m, from a box sum of squares."""
    squares = F.avg_pool2d(x.square().sum(1, keepdim=True), 3, 1, 1, divisor_override=1)
    # The floor goes under the root: the root of zero has an infinite slope, which would make NaN gradients.
    return squares.clamp_min(EPSILON**2).sqrt()
