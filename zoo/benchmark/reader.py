"""Blocks of images for the loop, read ahead by processes of their own."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.benchmark.plan import Plan
from zoo.benchmark.work import Broken, Item, describe
from zoo.data.base import Dataset

CACHE_MB = 500.0
Block = range  # positions in the plan's list of images


class Reader(torch.utils.data.Dataset[list[Item | Broken]]):
    """Reads blocks of items; what cannot be read becomes a `Broken` one in its place.

    Args:
        data: The dataset.
        plan: The plan.
        masks: The masks by id, H x W in {0, 1}.
    """

    def __init__(self, data: Dataset, plan: Plan, masks: Mapping[str, NDArray[np.uint8]]) -> None:
        from zoo.data.masked import EvaluationSet

        # A mask that could not be drawn for the manifest is tried again here, so that the reason reaches the row.
        self.items = EvaluationSet(
            data, plan.mask, plan.mask_seed, cache_mb=CACHE_MB, captions=plan.captions, masks=masks
        )
        self.data = data

    def read(self, blocks: Iterable[Block], workers: int) -> Iterator[tuple[Block, list[Item | Broken]]]:
        """The blocks in order, which are asked for no sooner than `workers` processes can read ahead.

        An image that ends the process which reads it, twice, is a `Broken` one.
        """
        source, died = iter(blocks), False
        drawn: deque[Block] = deque()  # given to the loader, and not come back yet
        while True:
            again = list(drawn)
            drawn.clear()
            try:
                for items in self._load(_noted(chain(again, source), drawn), workers):
                    died = False
                    yield drawn.popleft(), items
                return
            except (EOFError, OSError, RuntimeError) as error:  # the first two where it died with a block in its hands
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
            if died:
                block = drawn.popleft()
                yield block, self._one_by_one(block)
            died = not died

    def _one_by_one(self, block: Block) -> list[Item | Broken]:
        """Each image in a process of its own, which dies over no other image."""
        if len(block) == 1:
            return [Broken(self.data.ids[block.start], "the process that read this image died")]
        alone = [range(index, index + 1) for index in block]
        return [item for one in alone for _, items in self.read([one], 1) for item in items]

    def _load(self, blocks: Iterable[Block], workers: int) -> Iterator[list[Item | Broken]]:
        batches = iter(
            torch.utils.data.DataLoader(
                self,
                batch_size=None,
                sampler=blocks,
                num_workers=workers,
                generator=torch.Generator(),
                collate_fn=_as_it_is,
            )
        )
        with _deaf_to_workers() if workers else nullcontext():
            yield from batches

    def __getitem__(self, block: Block) -> list[Item | Broken]:
        return [self._item(index) for index in block]

    def _item(self, index: int) -> Item | Broken:
        try:
            return self.items[index]
        except Exception as error:
            return Broken(self.data.ids[index], describe(error))


def _as_it_is(block: list[Item | Broken]) -> list[Item | Broken]:
    return block


def _noted(blocks: Iterable[Block], drawn: deque[Block]) -> Iterator[Block]:
    for block in blocks:
        drawn.append(block)
        yield block


@contextmanager
def _deaf_to_workers() -> Iterator[None]:
    """Lets the death of a worker be met where the next block is asked for.

    Torch's handler raises wherever the process happens to be: a row that is just being made would pay for it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
