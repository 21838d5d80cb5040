"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Meter:
    """Shows how far something is; a context manager.

    On a terminal a bar with the latest text; elsewhere a line of text whenever one is given, at most one in `seconds`.

    Args:
        what: What goes on, a word or two.
        total: How many steps there are; None where nobody knows.
        seconds: The least time between two plain lines.
    """

    def __init__(self, what: str, total: int | None, seconds: float = 0.0) -> None:
        self.what, self.total, self.seconds = what, total, seconds
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = float("-inf")
        self._said = -1

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            text = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()
            more = TimeRemainingColumn(), TextColumn("{task.fields[text]}")
            self._bar = Progress(*text, *more, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, done: int, text: str = "", more: str = "") -> None:
        """Moves the bar to `done`; `text` is shown beside it, or as a line of its own, which ends with `more`."""
        if self._bar is not None and self._task is not None:
            changed: dict[str, Any] = {"text": text} if text else {}
            self._bar.update(self._task, completed=done, total=self.total, **changed)
            return
        now = time.monotonic()
        last = self.total is not None and done >= self.total
        if text and done != self._said and (last or now - self._last >= self.seconds):
            self._last, self._said = now, done
            self.say(
                f"{self.what} {done}/{self.total if self.total is not None else '?'}  {text}"
                + (f"  {more}" if more else "")
            )

    def say(self, line: str) -> None:
        """Prints a line on stderr that stays."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def figures(values: Mapping[str, float]) -> str:
    """Names and numbers on one line, four significant digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
