"""The loop: every process takes its blocks of a fixed work list and appends rows, with no word between processes.

Lightning Fabric brings devices, precision and processes. There is no collective in the loop: which blocks a process
takes follows from its rank, and what is missing follows from the rows on disk.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.benchmark.environment import record_environment
from zoo.benchmark.features import Measures
from zoo.benchmark.gallery import FIRST, Keeper
from zoo.benchmark.masks import ensure_masks, read_masks
from zoo.benchmark.plan import FILE, MethodPlan, Plan, differences
from zoo.benchmark.store import ROWS, Writer, failed, read_file, read_rows, write_whole
from zoo.benchmark.work import Bench, Broken, Item, Measured, describe, failure
from zoo.errors import DataError, UsageError, WeightsError, ZooError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from zoo.data.base import Dataset, Judge
    from zoo.module import InpaintingModule

Progress = Callable[[int, int, str], None]
CACHE_MB = 500.0
_ERROR = "zoo-error:"


@dataclass(frozen=True)
class RunResult:
    """What a run folder holds after a run.

    Attributes:
        folder: The run folder.
        rows: Measured rows.
        failed: Failure rows; the same call again tries them anew.
        expected: Rows of a complete run: methods times images.
    """

    folder: Path
    rows: int
    failed: int
    expected: int

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

    Rows are on disk as they are made: whatever ends this call, the same call goes on from there. None of the arguments
    but `plan` changes a bit of any row.

    Args:
        plan: What to measure (`make_plan`).
        out: The run folder; None is `runs/<plan.name>`.
        workers: Loader processes, of each process.
        devices: Processes, each on a device of its own (GPUs) or sharing the CPU. More than one are started afresh, so
            the caller's script needs `if __name__ == "__main__"`.
        shard: (i, n), 0 <= i < n: only this part of the work, for machines that share nothing but the folder.
        progress: Called with the rows done, the rows to do in all, and the label of the method at work (empty where
            several processes are at work).

    Raises:
        UsageError: The folder holds another plan, or another process works on the same part.
        DataError: The disk is full, or masks are missing.
    """
    part, parts = shard or (0, 1)
    if not 0 <= part < parts:
        raise UsageError(f"shard {part} of {parts} does not exist", remedy="shards are 1/n to n/n")
    if devices < 1 or workers < 0:
        raise UsageError(f"devices {devices} and workers {workers} make no sense")
    folder = Path("runs") / plan.name if out is None else Path(out)
    _claim(folder, plan)
    ensure_masks(folder, plan)
    record_environment(folder, plan)
    job = _Job(plan, folder, workers, part, parts)
    if devices == 1:
        job(_fabric(plan, 1), progress)
    else:
        with _watched(job, devices, progress), _no_orphans(), _unwrapped():
            _fabric(plan, devices).launch(job)
    labels = {method.label for method in plan.methods}
    rows = [row for row in read_rows(folder) if row["method"] in labels]
    bad = sum(map(failed, rows))
    return RunResult(folder, len(rows) - bad, bad, plan.count * len(plan.methods))


def _claim(folder: Path, plan: Plan) -> None:
    """Writes the plan into its folder, or checks that it is the one that lies there."""
    if (folder / FILE).exists():
        there = Plan.read(folder)
        if there.hash != plan.hash:
            names = ", ".join(differences(plan, there))
            raise UsageError(
                f"this folder holds another plan; they differ in {names}",
                where=str(folder),
                remedy="choose another --out, or leave it out: every plan has a folder of its own",
            )
        if there != plan:  # places, and what is left out or skipped here: the last call's count
            write_whole(folder / FILE, plan.to_json().encode())
        return
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("this folder is not empty and holds no plan", str(folder), "choose an empty one for --out")
    write_whole(folder / FILE, plan.to_json().encode())


def _fabric(plan: Plan, devices: int) -> Fabric:
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    # Spawned, not forked: OpenMP's threads do not survive a fork, and this process may have used them.
    strategy: Any = DDPStrategy(start_method="spawn") if devices > 1 else "auto"
    precision: Any = plan.precision
    return Fabric(accelerator=plan.accelerator, devices=devices, strategy=strategy, precision=precision)


def blocks(count: int, batch_size: int) -> list[range]:
    """The fixed work list: positions in the plan's list of images, `batch_size` at a time."""
    return [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


@dataclass(frozen=True)
class _Job:
    """What one process does; picklable, so that it can be sent to a process of its own."""

    plan: Plan
    folder: Path
    workers: int
    part: int
    parts: int

    def blocks(self, rank: int, world: int) -> list[range]:
        """The blocks of one of the `world` processes that share this part."""
        return blocks(self.plan.count, self.plan.batch_size)[self.part * world + rank :: self.parts * world]

    def __call__(self, fabric: Fabric, progress: Progress | None = None) -> None:
        rank, world = fabric.global_rank, fabric.world_size
        try:
            with _threads(self.plan.threads):
                writer = f"{self.part * world + rank}of{self.parts * world}"
                self._work(fabric, self.blocks(rank, world), writer, progress)
        except ZooError as error:
            if world == 1:
                raise
            # The parent sees the text of a child's traceback only: the error travels in it.
            fields = [type(error).__name__, error.what, error.where, error.remedy]
            raise RuntimeError(_ERROR + json.dumps(fields)) from error

    def _work(self, fabric: Fabric, mine: list[range], writer: str, progress: Progress | None) -> None:
        from zoo.data import open_dataset
        from zoo.data.masked import judge_of

        plan = self.plan
        data = open_dataset(
            plan.dataset, split=plan.split, size=plan.size, root=plan.root, count=plan.count, **plan.data_options
        )
        reader = Reader(data, plan, read_masks(self.folder))
        stored = read_rows(self.folder)
        counter = _Counter(progress, len(plan.methods) * sum(map(len, mine)))
        measures = Measures(plan, self.folder, fabric.device) if plan.asked else None
        for method in plan.methods:
            done = {row["id"] for row in stored if row["method"] == method.label and not failed(row)}
            lacking = measures.lacking(method.label, done) if measures else set()
            todo = [block for block in mine if not (done - lacking).issuperset(data.ids[i] for i in block)]
            counter.add(sum(len(b) for b in mine) - sum(len(b) for b in todo), method.label)
            if todo:
                if measures:
                    measures.set_up()
                path = self.folder / ROWS / f"{method.file_name}-{writer}.jsonl"
                with Writer(path) as store:
                    first = [data.ids[i] for i in range(min(FIRST, plan.count))]
                    keeper = Keeper(self.folder, method.file_name, first, read_file(path))
                    bench = _set_up(fabric, plan, method, judge_of(data, plan.mask), measures)
                    for items in reader.read(todo, self.workers):
                        measured = bench.measure(items)
                        if measures:  # before the rows: a row promises its features
                            measures.store(method.label, [(one.row["id"], one.features) for one in measured])
                        _store(measured, done, store, keeper)
                        counter.add(len(items), method.label)


def _store(block: Sequence[Measured], done: set[str], store: Writer, keeper: Keeper) -> None:
    """Stores the rows of a block that were missing."""
    for measured in block:
        if measured.row["id"] not in done:
            keeper.keep(measured.row, measured.picture)  # before the row: a row promises its picture
            store.append(measured.row)


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
    from zoo.models import load
    from zoo.weights import constructor_arguments, sha256

    if method.weights and sha256(method.weights) != method.weights_sha256:
        raise WeightsError("the weights have changed since the plan was made", method.weights, "start the run again")
    untrained = {} if method.weights else method.settings
    module = load(method.name, method.preset, method.weights or None, **untrained)
    if not method.settings or not method.weights:
        return module
    changed = type(module)(**{**constructor_arguments(module), **method.settings})
    changed.load_state_dict(module.state_dict())
    return changed.eval()


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
        self._blocks: list[range] = []

    def read(self, todo: list[range], workers: int) -> Iterator[list[Item | Broken]]:
        """The blocks in order, read ahead by `workers` processes."""
        self._blocks = todo
        loader = torch.utils.data.DataLoader(
            self, batch_size=None, num_workers=workers, generator=torch.Generator(), collate_fn=_as_it_is
        )
        yield from loader

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> list[Item | Broken]:
        return [self._item(index) for index in self._blocks[number]]

    def _item(self, index: int) -> Item | Broken:
        try:
            return self.items[index]
        except Exception as error:
            return Broken(self.data.ids[index], describe(error))


def _as_it_is(block: list[Item | Broken]) -> list[Item | Broken]:
    return block


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


# --- several processes -----------------------------------------------------------------------------------------------


@contextmanager
def _no_orphans() -> Iterator[None]:
    """Ends the processes started inside when this one is stopped: a signal reaches the parent alone."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
            child.join(10)
        raise


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raises the error for the user that a child process met, instead of its traceback."""
    try:
        yield
    except Exception as error:
        found = str(error).rpartition(_ERROR)
        if not found[1]:
            raise
        name, what, where, remedy = json.JSONDecoder().raw_decode(found[2])[0]
        kinds: dict[str, type[ZooError]] = {k.__name__: k for k in (UsageError, DataError, WeightsError)}
        raise kinds.get(name, ZooError)(what, where, remedy) from None


@contextmanager
def _watched(job: _Job, devices: int, progress: Progress | None) -> Iterator[None]:
    """Reports progress from outside, by counting the rows on disk twice a second."""
    if progress is None:
        yield
        return
    stop = threading.Event()
    total = len(job.plan.methods) * sum(len(block) for rank in range(devices) for block in job.blocks(rank, devices))

    def watch() -> None:
        while not stop.wait(0.5):
            progress(min(total, _count_lines(job.folder)), total, "")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        progress(min(total, _count_lines(job.folder)), total, "")


def _count_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / ROWS).glob("*.jsonl"))
