"""Several processes of one call: started, watched, and mourned where they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from zoo.benchmark.leases import Leases
from zoo.benchmark.loop import Job, Progress, launched, lease_of
from zoo.benchmark.plan import Plan
from zoo.benchmark.store import Seen, StorageError
from zoo.benchmark.work import failure
from zoo.errors import EXIT_INTERRUPTED, ZooError

START = "spawn"  # not forked: OpenMP's threads do not survive a fork, and this process may have used them
PAUSE = 0.5
GRACE = 2.0  # seconds that interrupted processes have before they are ended
ENOUGH = 1000  # rows of a process; with fewer it takes longer to start than it saves
MEMORY = 2 << 30  # bytes of a process; those of nano methods take about half
CGROUP = Path("/sys/fs/cgroup")  # where a container says what it may use


def processes_for(plan: Plan, folder: Path) -> int:
    """How many processes to start where nobody says: on the CPU one for each core, as far as there is work for it.

    No row depends on it. One on GPUs, which are asked for by number; under torchrun and SLURM, which start processes
    themselves; and where a method is not known to be small, as baselines are not: one may fill the memory.

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
    """The cores that this process may use; in a container, as many as its share of their time amounts to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = [*_limits("cpu.max"), 0, 0][:2]
    return min(cores, max(1, quota // period)) if quota and period else cores


def _memory() -> int:
    """Bytes of this machine, in all; in a container, what it may use of them."""
    if not hasattr(os, "sysconf"):  # Windows: enough for one process
        return MEMORY
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_limits("memory.max"), *_limits("memory/memory.limit_in_bytes")])  # cgroups v2 and v1


def _limits(name: str) -> list[int]:
    """The numbers in a file of the control group; none where there is no such file, or no limit (`max`)."""
    try:
        words = (CGROUP / name).read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []


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
    receivers, errors = [receiver for receiver, _ in ends], dict[int, Exception]()
    seen, total = Seen(job.folder), len(job.plan.methods) * sum(map(len, job.blocks()))
    with _no_orphans(children):
        with _uninterrupted():
            for child, (_, sender) in zip(children, ends, strict=True):
                child.start()
                sender.close()  # the child has its own: what it breaks off ends here too
        while None in [child.exitcode for child in children]:  # each is asked: the dead are not gone before that
            wait([child.sentinel for child in children if child.exitcode is None], PAUSE)
            errors |= _received(receivers)  # a child whose error fills the pipe does not end before that
            seen.look()
            if progress is not None:
                progress(min(total, sum(map(len, seen.settled.values()))), total, "")
    errors |= _received(receivers)
    for error in sorted((errors[k] for k in sorted(errors)), key=lambda error: isinstance(error, StorageError)):
        raise error
    died = {child.pid or 0: _cause(child.exitcode or 0) for child in children if child.exitcode}
    return _mourn(job, seen, died) if died else 0


def _child(job: Job, sender: Connection) -> None:
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        job()
    except KeyboardInterrupt:  # Ctrl-C reaches all processes of a terminal, and the parent speaks for them
        raise SystemExit(EXIT_INTERRUPTED) from None
    except ZooError as error:
        sender.send(error)
    except Exception as error:
        sender.send(RuntimeError("".join(traceback.format_exception(error))))


def _received(receivers: Sequence[Connection]) -> dict[int, Exception]:
    """The errors that have arrived, by the number of the process."""
    found: dict[int, Exception] = {}
    for number, receiver in enumerate(receivers):
        try:
            if receiver.poll():
                found[number] = receiver.recv()
        except (EOFError, OSError):  # it has ended, be it in the midst of its error: its exit code says so
            continue
    return found


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
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back, also from what is started inside: its imports, which take seconds, would be traced."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # as it starts, it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_orphans(children: list[BaseProcess]) -> Iterator[None]:
    """Ends the processes started inside when this one is stopped: a signal reaches the parent alone.

    But Ctrl-C reaches them too: they have a moment to give back what they have in hand.
    """
    try:
        yield
    except BaseException as error:
        started = [child for child in children if child.pid is not None]
        until = time.monotonic() + (GRACE if isinstance(error, KeyboardInterrupt) else 0.0)
        try:
            for child in started:
                child.join(max(0.0, until - time.monotonic()))
        finally:
            for child in started:
                child.terminate()
                child.join(10)
        raise
