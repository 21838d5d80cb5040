"""A fresh process for what forks or is stopped: DDP's cannot be forked from one that has computed gradients.

Importing Lightning takes half of what such a test takes: it is done once, in the process that these are forked from.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lightning.pytorch"])
SAID = "said.txt"
PATIENCE = 600  # seconds


def call_apart(function: Callable[..., object], folder: Path, *arguments: Any) -> None:
    """Calls `function(folder, *arguments)` in a process that has imported Lightning and computed nothing.

    Args:
        function: A function of a module that can be imported.
        folder: Its first argument; what it prints is in `said.txt` there.
        *arguments: Its others; they are pickled.

    Raises:
        AssertionError: It failed, or has not ended after ten minutes.
    """
    process = CONTEXT.Process(target=_called, args=(function, folder, arguments))
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    if process.exitcode != 0:
        raise AssertionError(f"exit code {process.exitcode}:\n{(folder / SAID).read_text()[-2000:]}")


@contextmanager
def started(function: Callable[..., object], folder: Path, *arguments: Any) -> Iterator[BaseProcess]:
    """The same while it runs: for what is stopped half way. It is killed when the context is left."""
    process = CONTEXT.Process(target=_called, args=(function, folder, arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def command(folder: Path, *words: str) -> None:
    """`zoo WORDS` as a user types it in a folder."""
    from zoo.cli.main import main

    os.chdir(folder)
    sys.exit(main(list(words)))


def _called(function: Callable[..., object], folder: Path, arguments: tuple[Any, ...]) -> None:
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    function(folder, *arguments)
