"""Leases: files in the run folder that say which job has which block in hand, so that jobs share the work.

`RUN/leases/<name>~0` is made by one of several jobs that want it, which is all that is asked of a shared file system.
Where that job ends without giving it back, one of the others makes `<name>~1`, and has it now. Clocks of machines are
never compared: a job has ended whose lease another has seen unchanged for `LEASE` seconds.

A lease saves work and guards nothing: two jobs that measure the same block store the same rows.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from zoo.benchmark.store import storing

FOLDER = "leases"
LEASE = 300.0
"""Seconds without a sign of life after which a job counts as ended; one on this machine is looked up at once."""
RENEWALS = 10  # signs of life in that time: file systems may show one late, and jobs may be held up
WAIT = 0.2  # seconds between two looks at what others have in hand


class Leases:
    """The leases of one job, which are given back when it leaves the context.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / FOLDER
        self._mark = json.dumps({"place": _place(), "process": os.getpid(), "job": uuid.uuid4().hex}).encode()
        self._held: dict[str, Path] = {}
        self._seen: dict[Path, tuple[tuple[bytes, int], float]] = {}
        self._left = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Leases:
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        for name in tuple(self._held):
            self.release(name)

    def take(self, name: str, *, over: bool = False) -> bool:
        """Takes a lease that is free.

        Args:
            name: What it is of; a file name.
            over: Also one that another job holds which has ended.

        Raises:
            DataError: The disk is full.
        """
        number = self._next(name)
        if number and not (over and self._ended(self._path(name, number - 1))):
            return False
        path = self._path(name, number)
        with storing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return False
            self._held[name] = path
            try:
                os.write(file, self._mark)
            finally:
                os.close(file)
        return True

    def release(self, name: str) -> None:
        """Gives a lease back; one that another job has taken over meanwhile stays that job's."""
        path = self._held.pop(name, None)
        if path is None or self._path(name, self._next(name) - 1) != path:
            return
        for number in range(self._next(name)):  # the first one first: as long as any later one is there, it is held
            with suppress(OSError):
                self._path(name, number).unlink()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Waits for a lease, and holds it inside."""
        while not self.take(name, over=True):
            time.sleep(WAIT)
        try:
            yield
        finally:
            self.release(name)

    def left_by(self, processes: dict[int, str]) -> dict[str, str]:
        """The leases that processes of this machine left behind, each with what is said of its process."""
        found = {}
        for name in sorted({path.name.rpartition("~")[0] for path in self.folder.glob("*~*")}):
            about = _read(self._path(name, self._next(name) - 1))
            if about.get("place") == _place() and about.get("process") in processes:
                found[name] = processes[about["process"]]
        return found

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f"{name}~{number}"

    def _next(self, name: str) -> int:
        """How often a lease was taken without being given back."""
        number = 0
        while self._path(name, number).exists():
            number += 1
        return number

    def _renew(self) -> None:
        while not self._left.wait(LEASE / RENEWALS):
            for path in tuple(self._held.values()):
                with suppress(OSError):
                    os.utime(path)

    def _ended(self, path: Path) -> bool:
        try:
            state = path.read_bytes(), path.stat().st_mtime_ns
        except OSError:  # it was given back meanwhile
            return False
        about = _parse(state[0])
        if about.get("place") == _place() and not _lives(about.get("process")):
            return True
        before, since = self._seen.setdefault(path, (state, time.monotonic()))
        if before != state:
            self._seen[path] = (state, time.monotonic())
            return False
        return time.monotonic() - since > LEASE


def _place() -> str:
    """Where process numbers mean the same: this machine, or the container in it."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _lives(process: Any) -> bool:
    """Whether a process is there; True where this cannot be told."""
    if os.name != "posix" or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return {}


def _parse(mark: bytes) -> dict[str, Any]:
    try:
        about = json.loads(mark)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
