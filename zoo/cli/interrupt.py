"""Signals as exceptions, so that state is saved and the exit code says what happened."""

from __future__ import annotations

import signal
from types import FrameType

from zoo.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


class Stopped(BaseException):
    """The user or the system asked the process to stop; not an `Exception`, so that nothing swallows it.

    Args:
        number: The signal, SIGINT or SIGTERM.
        advice: How to go on later; empty where there is nothing to resume.
    """

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(number, advice)
        self.number, self.advice = number, advice

    @property
    def exit_code(self) -> int:
        return EXIT_TERMINATED if self.number == signal.SIGTERM else EXIT_INTERRUPTED


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """A signal handler for code that may be left at any point."""
    raise Stopped(number)
