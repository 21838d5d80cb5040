"""Settings that every test shares."""

from __future__ import annotations

import os

# Before torch is imported: two test processes with many threads each are eight times slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pulled weights of the user's machine must not change what a test sees."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path_factory.getbasetemp() / "zoo-home"))


@pytest.fixture(autouse=True)
def _own_arithmetic() -> Iterator[None]:
    """What times the CPU flushes tiny numbers to zero, in the whole process: the next test computes as usual again."""
    yield
    torch.set_flush_denormal(False)
