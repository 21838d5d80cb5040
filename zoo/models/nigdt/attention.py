"""Dual multi-modal attention (Sec. 3.2, Eq. 3 to 7): what a caption says about the part of an image that is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.models.nigdt.text import Described

RULES = ("majority", "strict")
SOFTMAXES = ("words", "area")
LOWEST = torch.finfo(torch.float32).min  # stands for -∞, which makes NaN where everything is excluded


class Cells(NamedTuple):
    """Which cells of a feature map each path may look at, B 1 h w bool.

    Attributes:
        known: For the negative path, which sees the corrupted image I_m.
        hole: For the positive path, which sees its complement I_c.
    """

    known: Tensor
    hole: Tensor


# Deviation: a cell belongs to the part that has most of its pixels, to the hole when both have half.
def valid_cells(mask: Tensor, side: tuple[int, int], rule: str = "majority") -> Cells:
    """Cells that belong to the known part and to the hole, by counting pixels.

    Args:
        mask: B 1 H W, 1 = hole.
        side: h, w of the feature map; they divide H and W.
        rule: `majority`: at least half of the pixels make a hole cell, the others are known; a part that has pixels but
            no cell gets those cells where it has most of them. `strict`: only pixels of one part in the cell, so that
            the border between the parts belongs to neither, and a part may be left without a cell.

    Raises:
        UsageError: An unknown rule, or a side that does not divide the mask's.
    """
    height, width = mask.shape[-2:]
    if height % side[0] or width % side[1]:
        raise UsageError(f"a mask of {height}x{width} pixels has no {side[0]}x{side[1]} equal cells")
    cell = (height // side[0], width // side[1])
    area = cell[0] * cell[1]
    hole = F.avg_pool2d(mask.float(), cell, divisor_override=1)
    if rule == "majority":
        return Cells(_or_most(2 * hole < area, area - hole), _or_most(2 * hole >= area, hole))
    if rule == "strict":
        return Cells(hole == 0, hole == area)
    raise UsageError(f"unknown rule for cells '{rule}'", remedy=f"one of {', '.join(RULES)}")


def _or_most(cells: Tensor, pixels: Tensor) -> Tensor:
    """The cells, and those with the most pixels: they are new only where a sample has no other, but has pixels."""
    most = pixels.amax((2, 3), keepdim=True)
    return cells | ((pixels == most) & (most > 0))


class DualAttention(nn.Module):
    """Words, weighted by how well they fit the valid cells (positive path) or do not fit them (negative path).

    Both paths share Q. Everything is computed in float32, also under autocast: scores are not scaled by a root of the
    width, and the softmax of large ones depends on their last digits.

    Args:
        channels: Channels of v.
        words: c, width of the word vectors.
        softmax: What the attention weights of Eq. 5 add up to one over: the `words` of a cell, or, as it is printed,
            the `area`, that is the valid cells of a word.
        pool: Whether Eq. 7 takes the maximum over cells; without it each valid cell has its own text, others zero.
        invalid_as_zero: Whether invalid cells take part in the maximum, as zeros.
        attend: Without attention (an ablation of the paper), all cells get the mean of the words.

    Raises:
        UsageError: An unknown kind of softmax.
    """

    def __init__(
        self,
        channels: int,
        words: int,
        # Deviation: attention weights add up to one over the words, not over the area.
        softmax: str = "words",
        pool: bool = True,
        # Deviation: the maximum of Eq. 7 leaves out the cells that the path may not look at.
        invalid_as_zero: bool = False,
        attend: bool = True,
    ) -> None:
        super().__init__()
        if softmax not in SOFTMAXES:
            raise UsageError(f"nigdt's softmax cannot be over '{softmax}'", remedy=f"one of {', '.join(SOFTMAXES)}")
        self.softmax, self.pool, self.invalid_as_zero = softmax, pool, invalid_as_zero
        self.query = nn.Conv2d(channels, words, 1, bias=False) if attend else None
        if self.query is not None:
            nn.init.orthogonal_(self.query.weight, gain=0.02)  # all words weigh about the same at first

    def forward(self, v: Tensor, described: Described, valid: Tensor, sign: float, pool: bool | None = None) -> Tensor:
        """Eq. 3 to 7: t_e, B c h w, in the type of v. Where no cell is valid it is the mean of the words.

        Args:
            v: B channels h w, the features of the path's image.
            described: The words of the captions.
            valid: B 1 h w, bool: cells the path may look at.
            sign: 1 on the positive path (Eq. 3), -1 on the negative one (Eq. 4).
            pool: In place of the module's `pool`. The paper argues for the maximum on the negative path only.
        """
        pool = self.pool if pool is None else pool
        with torch.autocast(v.device.type, enabled=False):
            known = described.known
            words = described.words.float().masked_fill(~known[:, None], 0.0)
            mean = (words.sum(2) / known.sum(1, keepdim=True))[:, :, None, None]
            if self.query is None:
                t_e = mean.expand(-1, -1, *v.shape[-2:])
            else:
                # Deviation: both paths leave out the cells that they may not look at, whatever the scores are there.
                inside = v.to(self.query.weight.dtype).masked_fill(~valid, 0.0)
                s = sign * torch.einsum("bchw,bcj->bjhw", self.query(inside).float(), words)
                t_e = self._pooled(torch.einsum("bcj,bjhw->bchw", words, self._weights(s, known, valid)), valid, pool)
                # Deviation: where no cell is valid, the text is the mean of the words.
                t_e = torch.where(valid.flatten(1).any(1)[:, None, None, None], t_e, mean)
        return t_e.to(v.dtype)

    def _weights(self, s: Tensor, known: Tensor, valid: Tensor) -> Tensor:
        """Eq. 5: β, B T h w, of use at valid cells only."""
        if self.softmax == "words":
            return s.masked_fill(~known[:, :, None, None], LOWEST).softmax(1)
        return s.masked_fill(~valid, LOWEST).flatten(2).softmax(2).view_as(s)

    def _pooled(self, t: Tensor, valid: Tensor, pool: bool) -> Tensor:
        """Eq. 7, B c h w; undefined, but finite, in samples without a valid cell."""
        if not pool:
            return t.masked_fill(~valid, 0.0)
        # Deviation: the positive path takes the maximum too.
        t = t.masked_fill(~valid, 0.0 if self.invalid_as_zero else LOWEST)
        return t.amax((2, 3), keepdim=True).expand_as(t)
