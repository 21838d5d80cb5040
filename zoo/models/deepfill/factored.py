"""Diagonal sums: the three operations that contextual attention in factored form is made of, with their gradients.

Matrices are B Q K, query by key, over cells of maps with one empty column on the right: `columns` counts it. A shift by
one flat position then never runs from the end of a row into the next, and a shift by `columns` is one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def _diagonal_sum(x: Tensor, step: int) -> Tensor:
    """out[q, k] = x[q - step, k - step] + x[q, k] + x[q + step, k + step], zero outside; B Q K."""
    out = x.clone()
    out[:, step:, step:] += x[:, :-step, :-step]
    out[:, :-step, :-step] += x[:, step:, step:]
    return out


def _shift_add(x: Tensor, step: int) -> Tensor:
    """out[q, k] = x[q, k] + x[q + step, k + step], zero outside; B Q K. Its adjoint is the same with -step."""
    out = x.clone()
    if step > 0:
        out[:, :-step, :-step] += x[:, step:, step:]
    else:
        out[:, -step:, -step:] += x[:, :step, :step]
    return out


def _wipe(x: Tensor, columns: int) -> Tensor:
    """Zeroes, in place, the queries in the empty column (B Q K, Q a multiple of `columns`)."""
    x.view(x.shape[0], -1, columns, x.shape[2])[:, :, -1].zero_()
    return x


class DiagonalSum(torch.autograd.Function):
    """`_diagonal_sum`, which is its own adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: int) -> Tensor:
        ctx.step = step
        return _diagonal_sum(x, step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _diagonal_sum(grad, ctx.step), None


class PatchScores(torch.autograd.Function):
    """Inner products of 3x3 patches from the Gram matrix of pixels, each key scaled; query B C Q, key B C K."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: Tensor, columns: int) -> Tensor:
        scores = torch.bmm(query.transpose(1, 2), key)
        scores = _diagonal_sum(scores, columns)  # one name, so that what is used up is freed: these are the largest
        scores = _diagonal_sum(scores, 1).mul_(scale)
        ctx.save_for_backward(query, key, scale, scores)
        ctx.columns = columns
        return _wipe(scores, columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, scale, scores = ctx.saved_tensors
        total = torch.linalg.vecdot(grad, scores, dim=1).unsqueeze(1)
        grad_scale = torch.where(scale > 0, total / scale, 0.0)
        grad = _wipe(grad * scale, ctx.columns)
        gram = _diagonal_sum(_diagonal_sum(grad, 1), ctx.columns)
        return torch.bmm(key, gram.transpose(1, 2)), torch.bmm(query, gram), grad_scale, None


class Paste(torch.autograd.Function):
    """Overlap-add of 4x4 patches at stride 2; attention B Q K, raw B 4 C K, result B 4 C Q.

    The second axis is the pixel of the 2x2 cell, row by row. The upper pixels of a cell are also written by the patch
    of the query above, the lower ones by that below; likewise left and right.
    """

    @staticmethod
    def forward(ctx: Any, attention: Tensor, raw: Tensor, columns: int) -> Tensor:
        ctx.save_for_backward(attention, raw)
        ctx.columns = columns
        out = []
        for row in (0, 1):
            rows = _wipe(_shift_add(attention, (2 * row - 1) * columns), columns)
            for column in (0, 1):
                overlapped = _shift_add(rows, 2 * column - 1).to(raw.dtype)
                out.append(torch.bmm(raw[:, 2 * row + column], overlapped.transpose(1, 2)))
        return torch.stack(out, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        attention, raw = ctx.saved_tensors
        grad_attention, grad_raw = torch.zeros_like(attention), []
        for row in (0, 1):
            rows = _wipe(_shift_add(attention, (2 * row - 1) * ctx.columns), ctx.columns)
            grad_rows = torch.zeros_like(attention)
            for column in (0, 1):
                pixel = 2 * row + column
                overlapped = _shift_add(rows, 2 * column - 1).to(raw.dtype)
                grad_raw.append(torch.bmm(grad[:, pixel], overlapped))
                product = torch.bmm(grad[:, pixel].transpose(1, 2), raw[:, pixel]).to(attention.dtype)
                grad_rows += _shift_add(product, 1 - 2 * column)
            grad_attention += _shift_add(_wipe(grad_rows, ctx.columns), (1 - 2 * row) * ctx.columns)
        return grad_attention, torch.stack(grad_raw, 1), None


# Under names with types: `Function.apply` has none before torch 2.12.
diagonal_sum: Callable[..., Tensor] = DiagonalSum.apply
patch_scores: Callable[..., Tensor] = PatchScores.apply
paste: Callable[..., Tensor] = Paste.apply


def sum_along(scores: Tensor, line: Tensor, shown: Tensor) -> Tensor:
    """out[q, k] = Σ_d scores[q + d, k + d] for d in -1, 0, 1 along a line through all cells; zero past its ends.

    For maps without an empty column.

    Args:
        scores: B Q L.
        line: The L cells in the order of the flattened index.
        shown: The cells that the Q queries are; a neighbour that is not among them counts as zero.
    """
    cells = len(line)
    position = torch.empty_like(line)
    position[line] = torch.arange(cells, device=line.device)
    ended = torch.cat([line.new_full((1,), cells), line, line.new_full((1,), cells)])  # `cells` stands for none
    rank = line.new_full((cells + 1,), len(shown))
    rank[shown] = torch.arange(len(shown), device=line.device)
    padded = F.pad(scores, (0, 1, 0, 1))
    out = scores
    for step in (0, 2):
        queries, keys = rank[ended[position[shown] + step]], ended[position + step]
        out = out + padded.index_select(1, queries).index_select(2, keys)
    return out
