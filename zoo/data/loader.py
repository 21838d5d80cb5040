"""Loaders: training as one endless stream that resumes where it stopped, evaluation shared out with no sample twice.

Neither is a torch DataLoader, on purpose: Lightning rebuilds those with samplers of its own under several processes,
which pads evaluation with duplicates, and it takes any other iterable as it is. Inside, a DataLoader reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from zoo.data.masked import collate
from zoo.errors import UsageError, ZooError
from zoo.keyed import permutation

Visit = tuple[int, int]


class Indexed(Protocol):
    """What can be loaded: items by position, or, with a method `visit(epoch, index)`, by epoch and position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def position() -> tuple[int, int]:
    """Rank and number of processes, asked when an order is made and not before: strategies start processes late."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


class Loader:
    """What both loaders share: reading planned batches, in this process or ahead in workers.

    Args:
        dataset: What to load.
        batch_size: Samples in a batch, per process.
        workers: Processes that read ahead; 0 reads in this one. They stay alive between passes. What a batch holds
            does not depend on them.

    Raises:
        UsageError: A number out of range, or an empty dataset.
    """

    def __init__(self, dataset: Indexed, batch_size: int, *, workers: int = 0) -> None:
        if batch_size < 1 or workers < 0:
            raise UsageError(f"a batch size of {batch_size} with {workers} workers makes no sense")
        if len(dataset) == 0:
            raise UsageError("there is nothing to load: the dataset is empty")
        self.dataset, self.batch_size, self.workers = dataset, batch_size, workers
        self._plan = _Plan()
        self._reader = self._new_reader()

    def _new_reader(self) -> DataLoader[Any]:
        return DataLoader(
            _Reader(self.dataset),  # type: ignore[arg-type]
            batch_sampler=self._plan,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # its own: reading must not move the global random state
        )

    def _read(self, batches: list[list[Visit]]) -> Iterator[dict[str, Any]]:
        self._plan.batches = batches
        for batch in self._reader:
            if isinstance(batch, ZooError):
                break
            yield batch
        else:
            return
        # The workers end here and not when the error is collected: its traceback makes a cycle, and torch waits five
        # seconds for each worker whose queues were collected first.
        self._reader = self._new_reader()
        raise batch

    @property
    def _iterator(self) -> Any:
        """Lightning ends the workers of a finished run through this name of torch's DataLoader."""
        return self._reader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._reader._iterator = iterator


class EvaluationLoader(Loader):
    """Every sample once, in order: rank r reads samples r, r + world, ...; none is read twice, none is dropped."""

    def __len__(self) -> int:
        """Batches of this rank.

        Raises:
            UsageError: There are fewer samples than processes.
        """
        return -(-len(self._mine()) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        mine, size = self._mine(), self.batch_size
        return self._read([[(0, index) for index in mine[i : i + size]] for i in range(0, len(mine), size)])

    def _mine(self) -> range:
        rank, world = position()
        count = len(self.dataset)
        if count < world:  # a rank without samples would leave the others waiting for its metrics
            raise UsageError(f"{count} samples cannot be shared among {world} processes", remedy="use fewer devices")
        return range(rank, count, world)


class TrainingLoader(Loader):
    """An endless stream of batches, a function of (seed, epoch, position); a pass over the loader reads the next ones.

    A pass is as long as an epoch, `len(loader)` batches, and a new pass goes on where the last one stopped, so that a
    pass cut short, or a resumed one, loses and repeats nothing. Lightning's own count of epochs plays no part: after
    a resume from the end of an epoch under `max_steps` it is one too high.

    Batch t of an epoch is the t-th slice of the epoch's order over all processes, dealt out to the ranks: two processes
    with half the batch size train on the same images as one. Every rank gets equally many, full batches; the rest of
    an epoch is left out. A set smaller than one batch is repeated to fill it.

    Args:
        dataset: What to load.
        batch_size: Samples in a batch, per process.
        seed: Keys the order.
        workers: See `Loader`.

    Attributes:
        finished: How many batches since this loader was made (or since `load_state_dict`) have been trained on, where
            somebody counts; else every batch handed out counts. It makes a run that was stopped within a training step
            repeat that step.
    """

    def __init__(self, dataset: Indexed, batch_size: int, *, seed: int = 0, workers: int = 0) -> None:
        super().__init__(dataset, batch_size, workers=workers)
        self.seed = seed
        self.finished: Callable[[], int] | None = None
        self._start = (0, 0)
        self._given = 0

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return max(1, len(self.dataset) // (self.batch_size * position()[1]))

    def order(self, epoch: int) -> list[list[int]]:
        """The positions in the dataset that this rank reads in an epoch, batch by batch."""
        rank, world = position()
        whole = self.batch_size * world
        order = permutation(len(self.dataset), "order", self.seed, epoch)
        order *= -(-whole // len(order))  # more than once only where the set is smaller than one batch
        return [order[t * whole : (t + 1) * whole][rank::world] for t in range(len(self))]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator: nothing here runs before the first batch is asked for. Lightning makes iterators it never uses.
        epoch, used = self._position(self._given)
        batches = [[(epoch, index) for index in batch] for batch in self.order(epoch)[used:]]
        batches += [[(epoch + 1, index) for index in batch] for batch in self.order(epoch + 1)[:used]] if used else []
        for batch in self._read(batches):
            self._given += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Moves to the first batch of an epoch."""
        self.load_state_dict({"epoch": epoch, "batches": 0})

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been used: the same on every rank, whatever was read ahead."""
        used = self._given if self.finished is None else min(self._given, self.finished())
        epoch, batches = self._position(used)
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass goes on after the batches already used. Batch size and number of processes must be the same."""
        self._start, self._given = (state["epoch"], state["batches"]), 0

    def _position(self, given: int) -> tuple[int, int]:
        epoch, used = self._start
        more, used = divmod(used + given, len(self))
        return epoch + more, used


class _Plan:
    """The batches of the coming pass: torch's DataLoader asks for them anew at every pass."""

    def __init__(self) -> None:
        self.batches: list[list[Visit]] = []

    def __iter__(self) -> Iterator[list[Visit]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Reader:
    """Reads items in a worker. An error for the user travels as a value: torch would wrap its text in a traceback."""

    def __init__(self, dataset: Indexed) -> None:
        self.dataset = dataset
        self.visit = getattr(dataset, "visit", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, visit: Visit) -> dict[str, Any] | ZooError:
        epoch, index = visit
        try:
            item: dict[str, Any] = self.dataset[index] if self.visit is None else self.visit(epoch, index)
        except ZooError as error:
            return error
        return item


def _collate(items: list[dict[str, Any] | ZooError]) -> dict[str, Any] | ZooError:
    for item in items:
        if isinstance(item, ZooError):
            return item
    try:
        return collate([item for item in items if not isinstance(item, ZooError)])
    except ZooError as error:
        return error
