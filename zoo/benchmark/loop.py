"""The loop: every process takes blocks that nobody has in hand and appends rows, with no word between processes.

Which blocks are left follows from the rows on disk and from leases (`zoo.benchmark.leases`), so that any number of
processes, on any machines that share the run folder, do the work together: those that `devices` starts, those of
torchrun or SLURM, and the same command given twice. Lightning Fabric brings devices and precision.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from zoo.benchmark.environment import record_environment
from zoo.benchmark.features import Measures
from zoo.benchmark.gallery import FIRST, Keeper
from zoo.benchmark.leases import WAIT, Leases
from zoo.benchmark.masks import ensure_masks, read_masks
from zoo.benchmark.plan import FILE, MethodPlan, Plan, differences
from zoo.benchmark.reader import Block, Reader
from zoo.benchmark.store import ROWS, Seen, StorageError, Writer, failed, read_file, read_rows, write_whole
from zoo.benchmark.work import Bench, Broken, Item, Measured, describe, failure
from zoo.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from zoo.data.base import Dataset, Judge
    from zoo.module import InpaintingModule

Progress = Callable[[int, int, str], None]
LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))


@dataclass(frozen=True)
class RunResult:
    """What a run folder holds after a run.

    Attributes:
        folder: The run folder.
        rows: Measured rows.
        failed: Failure rows; the same call again tries them anew.
        expected: Rows of a complete run: methods times images.
        missing: Rows that this call was to make and that are not there: the process that was at work on them died.
    """

    folder: Path
    rows: int
    failed: int
    expected: int
    missing: int = 0

    @property
    def complete(self) -> bool:
        """Whether every image has a row of every method, be it a failure."""
        return self.rows + self.failed == self.expected


def run(
    plan: Plan,
    out: str | Path | None = None,
    *,
    workers: int = 0,
    devices: int = 1,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Measures what a plan asks for and its run folder does not hold yet.

    Rows are on disk as they are made: whatever ends this call, the same call goes on from there. It returns when no row
    is left to be made, be it by others: what they have in hand is waited for, and taken over where they end. None of
    the arguments but `plan` changes a bit of any row.

    Args:
        plan: What to measure (`make_plan`).
        out: The run folder; None is `runs/<plan.name>`.
        workers: Loader processes, of each process.
        devices: Processes, each on a device of its own (GPUs) or sharing the CPU. More than one are started afresh, so
            the caller's script needs `if __name__ == "__main__"`. Under torchrun and SLURM, which start processes
            themselves, each call is one.
        shard: (i, n), 0 <= i < n: only this part of the work, be it alone.
        progress: Called with the rows done, the rows to do in all, and the label of the method at work (empty where
            several processes are at work).

    Raises:
        UsageError: The folder holds another plan.
        StorageError: The disk is full; all rows that could be written are there. A `DataError`.
        DataError: Masks are missing, or rows are damaged.
    """
    part, parts = shard or (0, 1)
    if not 0 <= part < parts:
        raise UsageError(f"shard {part} of {parts} does not exist", remedy="shards are 1/n to n/n")
    if devices < 1 or workers < 0:
        raise UsageError(f"devices {devices} and workers {workers} make no sense")
    folder = Path("runs") / plan.name if out is None else Path(out)
    _claim(folder, plan)
    with Leases(folder) as leases, leases.turn("masks"):
        ensure_masks(folder, plan)
    record_environment(folder, plan)
    place = launched()
    job = Job(plan, folder, workers, part, parts, place.local)
    if devices == 1 or place.world > 1:
        job(progress)
        missing = 0
    else:
        from zoo.benchmark.processes import launch

        missing = launch(job, devices, progress)
    labels = {method.label for method in plan.methods}
    rows = [row for row in read_rows(folder) if row["method"] in labels]
    bad, expected = sum(map(failed, rows)), plan.count * len(labels)
    return RunResult(folder, len(rows) - bad, bad, expected, expected - len(rows) if parts == 1 else missing)


class Place(NamedTuple):
    """Which of the processes this is that torchrun or SLURM has started.

    Attributes:
        rank: Among all; the first one reports.
        world: How many there are; 1 where neither has started this process.
        local: Among those of this machine: the number of its device.
    """

    rank: int = 0
    world: int = 1
    local: int = 0


def launched() -> Place:
    """What the environment says of this process."""
    for names in LAUNCHERS:
        values = [os.environ.get(name, "") for name in names]
        if all(value.isdecimal() for value in values[:2]):
            return Place(*(int(value) if value.isdecimal() else 0 for value in values))
    return Place()


def _claim(folder: Path, plan: Plan) -> None:
    """Writes the plan into its folder, or checks that it is the one that lies there."""
    # Looked at before the plan is: another process may be making the folder, and writes the plan first.
    others = [path for path in folder.iterdir() if FILE not in path.name] if folder.exists() else []
    if (folder / FILE).exists():
        there = Plan.read(folder)
        if there.hash != plan.hash:
            names = ", ".join(differences(plan, there))
            raise UsageError(
                f"this folder holds another plan; they differ in {names}",
                where=str(folder),
                remedy="choose another --out, or leave it out: every plan has a folder of its own",
            )
        if there == plan:
            return  # else places, and what is left out or skipped here: the last call's count
    elif others:
        raise UsageError("this folder is not empty and holds no plan", str(folder), "choose an empty one for --out")
    write_whole(folder / FILE, plan.to_json().encode())


def _fabric(plan: Plan, local: int) -> Fabric:
    """One process on one device: this library's processes have no word with each other, whoever started them."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    devices: Any = [local % max(1, torch.cuda.device_count())] if plan.accelerator == "cuda" else 1
    precision: Any = plan.precision
    return Fabric(accelerator=plan.accelerator, devices=devices, precision=precision, plugins=LightningEnvironment())


def blocks(count: int, batch_size: int) -> list[Block]:
    """The fixed work list: positions in the plan's list of images, `batch_size` at a time."""
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def lease_of(method: MethodPlan, block: Block) -> str:
    """The name of the lease on a block of a method's images."""
    return f"{method.file_name}-{block.start}"


@dataclass(frozen=True)
class Job:
    """What one process does; picklable, so that it can be sent to a process of its own.

    Attributes:
        plan: What to measure.
        folder: The run folder.
        workers: Loader processes.
        part: Of the work, 0 <= part < parts.
        parts: How many parts there are.
        local: The number of its device.
    """

    plan: Plan
    folder: Path
    workers: int = 0
    part: int = 0
    parts: int = 1
    local: int = 0

    def blocks(self) -> list[Block]:
        """The blocks of this part."""
        return blocks(self.plan.count, self.plan.batch_size)[self.part :: self.parts]

    def data(self) -> Dataset:
        """The images."""
        from zoo.data import open_dataset

        plan = self.plan
        return open_dataset(
            plan.dataset, split=plan.split, size=plan.size, root=plan.root, count=plan.count, **plan.data_options
        )

    def writer(self, method: MethodPlan) -> Writer:
        """A new file of rows; later ones have later names, since of several failures the last one counts."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:6]}"
        return Writer(self.folder / ROWS / f"{method.file_name}-{name}.jsonl")

    def __call__(self, progress: Progress | None = None) -> None:
        with _threads(self.plan.threads), Leases(self.folder) as leases:
            _Work(self, leases, _Counter(progress, len(self.plan.methods) * sum(map(len, self.blocks())))).run()


class _Work:
    """One process at work: method by method, first on what is free, then on what is left by others that ended."""

    def __init__(self, job: Job, leases: Leases, counter: _Counter) -> None:
        self.job, self.leases, self.counter, self.plan = job, leases, counter, job.plan
        self.data, self.fabric, self.seen = job.data(), _fabric(job.plan, job.local), Seen(job.folder)
        self.ids = self.data.ids  # some datasets make this list each time
        self.reader = Reader(self.data, self.plan, read_masks(job.folder))
        self.measures = Measures(self.plan, job.folder, self.fabric.device) if self.plan.asked else None
        self.left = {method.label: dict.fromkeys(job.blocks()) for method in self.plan.methods}
        self.lacking: dict[str, set[str]] = {}
        self.unwritten: StorageError | None = None

    def run(self) -> None:
        over = False
        while any(self.left.values()):
            idle = [not self._method(method, over) for method in self.plan.methods if self.left[method.label]]
            if over and all(idle):
                time.sleep(WAIT)
            over = True
        if self.unwritten:
            raise self.unwritten

    def _method(self, method: MethodPlan, over: bool) -> bool:
        """Measures the blocks of a method that can be had now, and says whether there was any."""
        if self.measures and method.label not in self.lacking:
            self.lacking[method.label] = self.measures.lacking(method.label, self.seen.measured[method.label])
        taken = self._take(method, over)
        first = next(taken, None)
        if first is None:
            return False
        from zoo.data.masked import judge_of

        if self.measures:
            self.measures.set_up()
        label = method.label
        with self.job.writer(method) as store:
            kept = chain.from_iterable(map(read_file, sorted(store.path.parent.glob(f"{method.file_name}-*.jsonl"))))
            always = self.ids[: min(FIRST, self.plan.count)]
            own = (row for row in kept if row["method"] == label)
            keeper = Keeper(self.job.folder, method.file_name, always, self.plan.size, own)
            judge = judge_of(self.data, self.plan.mask, self.plan.captions)
            bench = _set_up(self.fabric, self.plan, method, judge, self.measures)
            # What ended a job may end this one: it takes one block at a time then, and the others are done.
            for block, items in self.reader.read(chain([first], taken), 0 if over else self.job.workers):
                self._store(label, bench.measure(items), store, keeper)
                store.publish()
                self.leases.release(lease_of(method, block))
                self.counter.add(len(block), label)
        return True

    def _take(self, method: MethodPlan, over: bool) -> Iterator[Block]:
        """The blocks of a method that are left and can be had, as they are asked for."""
        left = self.left[method.label]
        self.seen.look()
        # Jobs end at the first block that they have in hand, as they read ahead: that one is tried last.
        for block in reversed(tuple(left)) if over else tuple(left):
            lease, done = lease_of(method, block), self._done(method.label, block)
            if not done:
                if not self.leases.take(lease, over=over):
                    continue
                self.seen.look()  # whoever had it before may have done it
                done = self._done(method.label, block)
                if done:
                    self.leases.release(lease)
            del left[block]
            if done:
                self.counter.add(len(block), method.label)
            else:
                yield block

    def _done(self, label: str, block: Block) -> bool:
        ids = {self.ids[index] for index in block}
        lacking = self.lacking.get(label, set()) & ids
        if lacking and self.measures:  # another job may have taken these features meanwhile
            lacking = self.measures.lacking(label, lacking)
        return not lacking and ids <= self.seen.settled[label]

    def _store(self, label: str, block: Sequence[Measured], store: Writer, keeper: Keeper) -> None:
        """Stores the rows of a block that were missing; what cannot be written costs the others nothing."""
        try:
            if self.measures:  # before the rows: a row promises its features
                self.measures.store(label, [(one.row["id"], one.features) for one in block])
        except StorageError as error:
            self.unwritten = error
            return
        for one in block:
            if one.row["id"] not in self.seen.measured[label]:
                try:
                    keeper.keep(one.row, one.picture)  # before the row: a row promises its picture
                    store.append(one.row)
                except StorageError as error:
                    self.unwritten = error


@dataclass(frozen=True)
class _Absent:
    """A method that could not be set up: every image is a failure, and the other methods go on."""

    plan: Plan
    method: MethodPlan
    error: str

    def measure(self, items: Sequence[Item | Broken]) -> list[Measured]:
        ids = [item.id if isinstance(item, Broken) else item["id"] for item in items]
        return [failure(self.plan, self.method, sample, self.error) for sample in ids]


def _set_up(
    fabric: Fabric, plan: Plan, method: MethodPlan, judge: Judge | None, measures: Measures | None
) -> Bench | _Absent:
    try:
        module = load_method(method).to(fabric.device)
    except Exception as error:
        return _Absent(plan, method, f"the method cannot be loaded: {describe(error)}")
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    return Bench(plan, method, module.eval(), fabric.device, fabric.autocast, judge, measures)


def load_method(method: MethodPlan) -> InpaintingModule:
    """The module of a method, with its weights and its changed settings, in evaluation mode.

    Raises:
        WeightsError: The weights are missing or damaged, have changed since the plan was made, or do not fit the
            settings.
    """
    from zoo.models import changed, load
    from zoo.weights import sha256

    if method.weights and sha256(method.weights) != method.weights_sha256:
        raise WeightsError("the weights have changed since the plan was made", method.weights, "start the run again")
    if not method.weights:
        return load(method.name, method.preset, **method.settings)
    return changed(load(method.name, method.preset, method.weights), method.settings)


class _Counter:
    """Tells `progress` how far this process is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def add(self, count: int, label: str) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, label)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Pins the number of threads: sums over more threads add up in another order, and rows would differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
