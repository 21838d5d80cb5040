"""What match networks read of a batch, and the same of all processes: the captions of others are the negatives.

Under data parallelism each process holds a part of the batch. Gathering every part, with its gradient, makes the match
loss that of the whole batch. Accumulated batches are not gathered: accumulation adds no negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from zoo.errors import UsageError
from zoo.keyed import key


class Codes(NamedTuple):
    """Images and captions of a batch as the match networks see them.

    Attributes:
        regions: Local features of the images, B c N.
        image: The images' global codes, B c.
        words: Features of the captions' words, B c T.
        sentence: The captions' codes, B c.
        known: Which of the T places hold a word, B T, bool; at least one of each caption.
        key: A number for the id of each image, B, int64 (see `keys`).
    """

    regions: Tensor
    image: Tensor
    words: Tensor
    sentence: Tensor
    known: Tensor
    key: Tensor


def keys(ids: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """The ids of images as numbers (B, int64), the same in every process, so that tensors can carry them."""
    return torch.tensor([key(i) for i in ids], dtype=torch.int64, device=device)


def gather(codes: Codes) -> Codes:
    """The codes of all processes in the order of their ranks, in float32; unchanged where there is one process.

    The gradient that reaches a process is the sum over the losses of all processes. Where all compute the same loss
    from the gathered codes, as they do with `match`, averaging over processes, as DDP does, then gives exactly the
    gradient of one process that holds the whole batch.

    Every process must call it at the same step, with codes of the same shape.

    Raises:
        UsageError: The processes' codes differ in shape (in all processes).
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return codes
    _check_shapes(codes)
    # float32 and uint8, since not every backend sums bf16 or sends bool
    regions, image, words, sentence = (_with_gradient(x.float()) for x in codes[:4])
    known = torch.cat(_parts(codes.known.to(torch.uint8))).bool()
    return Codes(regions, image, words, sentence, known, torch.cat(_parts(codes.key)))


def _check_shapes(codes: Codes) -> None:
    # Collectives do not look: parts of different shape would hang, or be read past their end.
    sizes = [*codes.regions.shape, *codes.words.shape]
    everyone = [x.tolist() for x in _parts(torch.tensor(sizes, device=codes.regions.device))]
    if any(x != everyone[0] for x in everyone):
        raise UsageError(
            f"processes hold different shapes of regions and words: {', '.join(map(str, everyone))}",
            where="match loss over several processes",
            remedy="give every process batches of the same size (drop the last one), images and captions of one length",
        )


def _parts(x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return parts


def _with_gradient(x: Tensor) -> Tensor:
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    """Our own, since PyTorch deprecates its gathering with gradient and plain `all_gather` has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.count = len(x)
        return torch.cat(_parts(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)  # autograd may hand the same one to others
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.count, ctx.count)
