"""Errors that say what went wrong, where, and how to mend it; and the exit codes of the command line."""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_WEIGHTS = 4
EXIT_FAILED_ROWS = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class ZooError(Exception):
    """An error meant for the user.

    Args:
        what: What is wrong, one sentence.
        where: The file, option or sample it was found in; empty where there is none.
        remedy: What to do about it; empty where nothing can be advised.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)


class UsageError(ZooError):
    """A wrong option, name or configuration (exit 2)."""

    exit_code = EXIT_USAGE


class DataError(ZooError):
    """Missing or damaged images, captions, annotations or masks (exit 3)."""

    exit_code = EXIT_DATA


class WeightsError(ZooError):
    """Missing weights, or weights of another method or shape (exit 4)."""

    exit_code = EXIT_WEIGHTS


def unknown_name(kind: str, name: str, known: list[str]) -> UsageError:
    """The error for a name that is not in a table, with the nearest known name."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UsageError(f"unknown {kind} '{name}'", remedy=f"{hint}known: {', '.join(sorted(known))}")
