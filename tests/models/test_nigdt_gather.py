"""The match loss over two processes is that of one that holds the whole batch, gradient included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import nigdt_gather_ddp
from tests.nigdt_gather_ddp import IDS, batch, gradients, heads
from tests.processes import call_apart
from zoo.models.nigdt.gather import gather, keys

ROOT = Path(__file__).resolve().parents[2]
Found = dict[str, Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes found; run apart, since they fork."""
    folder = tmp_path_factory.mktemp("processes")
    call_apart(nigdt_gather_ddp.two, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def one() -> Found:
    """The same of one process that holds the whole batch."""
    return gradients(heads(), slice(None), gathered=True)


def test_two_processes_have_the_loss_and_the_gradient_of_one(one: Found, two: list[Found]) -> None:
    assert one["losses"].min() > 0.1
    assert all(one["gradients"][f"{name}.weight"].abs().max() > 1 for name in ("image", "text"))
    for other in two:
        torch.testing.assert_close(other["whole"], one, atol=1e-5, rtol=1e-4)


def test_without_gathering_they_have_another(one: Found, two: list[Found]) -> None:
    """The control: what the test above compares does depend on gathering."""
    first, second = (x["apart"] for x in two)
    assert (first["losses"] - one["losses"]).abs().min() > 0.1
    assert (first["losses"] - second["losses"]).abs().max() > 0.1
    for name in ("image.weight", "text.weight"):
        assert (first["gradients"][name] - one["gradients"][name]).abs().max() > 0.1


def test_one_process_gathers_nothing() -> None:
    codes = heads()(*batch())
    assert gather(codes) is codes


def test_codes_in_bfloat16_are_gathered_in_float32(two: list[Found]) -> None:
    for found in two:
        assert found["dtypes"] == 4 * ["torch.float32"] + ["torch.bool", "torch.int64"]


def test_batches_of_different_size_are_refused_by_every_process(two: list[Found]) -> None:
    for found in two:
        assert "[2, 5, 4, 2, 5, 7], [3, 5, 4, 3, 5, 7]" in found["refusal"]
        assert "same size" in found["refusal"]


def test_keys_tell_images_apart() -> None:
    key = keys(IDS)
    assert key.dtype == torch.int64
    assert ((key[:, None] == key) == torch.tensor([[a == b for b in IDS] for a in IDS])).all()
    assert key.tolist() == keys(IDS).tolist()
    assert keys([]).shape == (0,)
