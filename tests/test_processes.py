"""What a test runs apart fails where that fails."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.processes import SAID, call_apart, command, started


def greet(folder: Path, name: str) -> None:
    print(f"hello {name}", flush=True)
    if name == "nobody":
        sys.exit(3)
    if name == "zero":
        raise ZeroDivisionError(name)


def wait(folder: Path) -> None:
    time.sleep(600)


def test_a_function_is_called_in_a_process_of_its_own(tmp_path: Path) -> None:
    call_apart(greet, tmp_path, "you")
    assert (tmp_path / SAID).read_text() == "hello you\n"


@pytest.mark.parametrize(("name", "text"), [("nobody", "exit code 3"), ("zero", "ZeroDivisionError: zero")])
def test_its_failure_is_the_tests(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=text):
        call_apart(greet, tmp_path, name)


def test_a_command_is_stopped_or_ends_by_itself(tmp_path: Path) -> None:
    with started(command, tmp_path, "list", "models") as process:
        process.join(60)
        assert process.exitcode == 0
        assert "deepfill" in (tmp_path / SAID).read_text()
    with started(wait, tmp_path) as process:
        assert process.is_alive()
    assert process.exitcode == -signal.SIGKILL
