"""Several processes of one call: started, watched, and mourned where they die."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from zoo.benchmark.leases import Leases
from zoo.benchmark.loop import Job, Progress, launched, lease_of
from zoo.benchmark.plan import Plan
from zoo.benchmark.store import Seen, StorageError
from zoo.benchmark.work import failure
from zoo.errors import ZooError

START = "spawn"  # not forked: OpenMP's threads do not survive a fork, and this process may have used them
PAUSE = 0.5
ENOUGH = 1000  # rows of a process; with fewer it takes longer to start than it saves
MEMORY = 2 << 30  # bytes of a process; those of nano methods take about half


def processes_for(plan: Plan, folder: Path) -> int:
    """How many processes to start where nobody says: on the CPU one for each core, as far as there is work for it.

    No row depends on it. One on GPUs, which are asked for by number; under torchrun and SLURM, which start processes
    themselves; and where weights are not of nano size, of which one may fill the memory.

    Args:
        plan: What is measured.
        folder: The run folder: what it holds is done.
    """
    if plan.accelerator != "cpu" or launched().world > 1:
        return 1
    if not all(method.control or method.preset == "nano" for method in plan.methods):
        return 1
    left = len(plan.methods) * plan.count - sum(map(len, Seen(folder).measured.values()))
    return max(1, min(_cores() // plan.threads, _memory() // MEMORY, left // ENOUGH))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of this machine, in all."""
    if not hasattr(os, "sysconf"):  # Windows: enough for one process
        return MEMORY
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def launch(job: Job, devices: int, progress: Progress | None) -> int:
    """Does a job with several processes, and gives the number of rows that are missing afterwards.

    What a process has in hand that dies is done by the others. What ends them all costs its own rows, which say so.

    Raises:
        ZooError: What one of them met, once all have ended.
        RuntimeError: A bug, with the traceback of the process.
    """
    context: Any = multiprocessing.get_context(START)
    ends = [context.Pipe(duplex=False) for _ in range(devices)]
    children = [
        context.Process(target=_child, args=(replace(job, local=k), sender)) for k, (_, sender) in enumerate(ends)
    ]
    seen, total = Seen(job.folder), len(job.plan.methods) * sum(map(len, job.blocks()))
    with _no_orphans(children):
        for child in children:
            child.start()
        while None in [child.exitcode for child in children]:  # each is asked: the dead are not gone before that
            wait([child.sentinel for child in children if child.exitcode is None], PAUSE)
            seen.look()
            if progress is not None:
                progress(min(total, sum(map(len, seen.settled.values()))), total, "")
    errors = [error for receiver, _ in ends if (error := _received(receiver)) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, StorageError)):
        raise error
    died = {child.pid or 0: _cause(child.exitcode or 0) for child in children if child.exitcode}
    return _mourn(job, seen, died) if died else 0


def _child(job: Job, sender: Connection) -> None:
    try:
        job()
    except ZooError as error:
        sender.send(error)
    except Exception as error:
        sender.send(RuntimeError("".join(traceback.format_exception(error))))


def _received(receiver: Connection) -> Exception | None:
    try:
        error: Exception | None = receiver.recv() if receiver.poll() else None
    except EOFError:
        return None
    return error


def _cause(exitcode: int) -> str:
    ended = f"was ended by signal {-exitcode}" if exitcode < 0 else f"ended with code {exitcode}"
    return f"the process that measured this image {ended}"


def _mourn(job: Job, seen: Seen, died: Mapping[int, str]) -> int:
    """Writes failure rows for what dead processes had in hand, and gives the number of rows that are missing still."""
    ids = job.data().ids
    seen.look()
    with Leases(job.folder) as leases:
        left = leases.left_by(dict(died))
        for method in job.plan.methods:
            found = {block: left[name] for block in job.blocks() if (name := lease_of(method, block)) in left}
            if not found:
                continue
            with job.writer(method) as store:
                for block, text in found.items():
                    for sample in (ids[index] for index in block):
                        if sample not in seen.settled[method.label]:
                            store.append(failure(job.plan, method, sample, text).row)
                    if leases.take(lease_of(method, block), over=True):
                        leases.release(lease_of(method, block))
    seen.look()
    images = {ids[index] for block in job.blocks() for index in block}
    return sum(len(images - seen.settled[method.label]) for method in job.plan.methods)


@contextmanager
def _no_orphans(children: list[BaseProcess]) -> Iterator[None]:
    """Ends the processes started inside when this one is stopped: a signal reaches the parent alone."""
    try:
        yield
    except BaseException:
        for child in children:
            if child.pid is not None:
                child.terminate()
                child.join(10)
        raise
