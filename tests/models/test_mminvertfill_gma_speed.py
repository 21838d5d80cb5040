"""The benchmark of gated mask-aware attention: it compares equal things, and reports what it promises."""

from __future__ import annotations

import pytest

from benchmarks.speed import gma
from benchmarks.speed.__main__ import PARTS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gma, "ROUNDS", 1)
    monkeypatch.setattr(gma, "SMALL", 16)


def test_rows_hold_times_memory_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gma, "peaks", lambda: {"ours": (800.0, 10.0), "plain": (4000.0, 20.0)})
    rows = gma.measure()
    assert "gma" in PARTS
    assert len({row["name"] for row in rows}) == len(rows) == 6
    assert all({"name", "ours_ms", "plain_ms", "ratio", "target"} <= set(row) for row in rows)
    assert all(len(row["name"]) < 58 for row in rows)
    assert [row["target"] for row in rows] == [None, 1.0, 1.0, None, 1.0, None]
    assert [row["ratio"] for row in rows[3:]] == [2.0, 2048 / 800, 5.0]
    assert all(row["ratio"] > 1 for row in rows[1:3])


def test_unequal_sides_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(gma.largest_differences(16).values()) < gma.TOLERANCE
    assert min(gma.largest_differences(16, shift=0.1).values()) > gma.TOLERANCE
    plain = gma.plain_attend
    monkeypatch.setitem(gma.SIDES, "plain", lambda q, k, v, log_g, scale: plain(q, k, v, None, scale))
    with pytest.raises(ArithmeticError, match="largest difference"):
        gma.measure()


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """A map of 128 x 128 has 4096 patches of 2 x 2, whose scores alone are 64 MiB."""
    (ours, seconds), (plain, _) = gma.peaks(128, channels=2, guides=2).values()
    assert plain > ours + 2 * 64
    assert ours < 64
    assert seconds > 0


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (0.5, 1)])
def test_a_missed_target_is_the_exit_code(
    ratio: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [gma._row("memory", ratio, 1.0), gma._row("time", 0.1, None)]
    monkeypatch.setattr(gma, "measure", lambda: rows)
    assert gma.main() == code
    assert "memory" in capsys.readouterr().out
