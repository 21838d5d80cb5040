"""The speed benchmark of the transport plans: it compares equal things, and reports what it promises."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import transport
from benchmarks.speed.__main__ import PARTS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 3, "WIDTH": 64, "ROUNDS": 1}.items():
        monkeypatch.setattr(transport, name, value)


def test_rows_hold_times_and_targets() -> None:
    rows = transport.measure()
    assert "transport" in PARTS
    assert len({row["name"] for row in rows}) == len(rows) == 13
    assert all({"name", "ours_ms", "plain_ms", "ratio", "target"} <= set(row) for row in rows)
    assert all(len(row["name"]) < 58 for row in rows)
    timed = [row for row in rows if row["ours_ms"] is not None]
    assert [row["target"] for row in timed] == [20.0, None, None, None] * 2
    assert all(row["ratio"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) for row in timed)
    assert all(row["ratio"] >= 1 and row["difference"] <= transport.TOLERANCE for row in rows if row not in timed)


def test_problem_has_captions_of_several_lengths() -> None:
    C, a, b = transport.problem(1.0)
    assert C.shape == (3, transport.PATCHES, transport.TOKENS)
    lengths = (b > 0).sum(1)
    assert lengths.min() >= transport.SHORTEST
    assert transport.SHORTEST < lengths.max() <= transport.LONGEST
    assert C.amin() < 0.5 < transport.problem(0.0)[0].amin()
    torch.testing.assert_close(a.sum(1), b.sum(1))


@pytest.mark.parametrize("solver", [transport.by_ipot, transport.each_by_sinkhorn])
def test_unequal_results_are_no_measurement(solver: transport.Solver) -> None:
    inputs = transport.problem(0.0)
    costs = {solve: solve(*inputs) for solve in transport.SOLVERS}
    transport.check(costs, "unrelated")
    with pytest.raises(ArithmeticError, match="difference"):
        transport.check(costs | {solver: costs[solver] + 1e-4}, "unrelated")


def test_a_plan_far_from_the_minimum_is_no_measurement() -> None:
    inputs = transport.problem(1.0)
    costs = {solve: solve(*inputs) for solve in transport.SOLVERS}
    transport.check(costs, "matching")
    shifted = {s: costs[s] + 1.0 for s in (transport.by_ipot, transport.each_by_ipot)}
    with pytest.raises(ArithmeticError, match="exact minimum"):
        transport.check(costs | shifted, "matching")


@pytest.mark.parametrize(("ratio", "code"), [(25.0, 0), (15.0, 1)])
def test_a_missed_target_is_the_exit_code(
    ratio: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [transport._row("ipot", 1.0, ratio, 20.0), transport._row("no target", 1.0, 1.0, None)]
    monkeypatch.setattr(transport, "measure", lambda: rows)
    assert transport.main() == code
    assert "no target" in capsys.readouterr().out
