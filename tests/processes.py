"""A fresh process for what forks: DDP's processes cannot be forked from one that has computed gradients."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lightning.pytorch"])  # once for all tests: half of what such a test takes
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


def _called(function: Callable[..., object], folder: Path, arguments: tuple[Any, ...]) -> None:
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    function(folder, *arguments)
