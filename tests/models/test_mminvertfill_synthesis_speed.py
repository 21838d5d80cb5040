"""The speed benchmark of the synthesis: it compares equal things, and reports what it promises."""

from __future__ import annotations

import pytest

from benchmarks.speed import synthesis
from benchmarks.speed.__main__ import PARTS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 16, "CHANNELS": {4: 6, 8: 5, 16: 4}, "ROUNDS": 1}.items():
        monkeypatch.setattr(synthesis, name, value)


def test_both_formulations_agree_and_the_comparison_would_notice() -> None:
    assert max(synthesis.largest_differences().values()) < synthesis.TOLERANCE
    assert max(synthesis.largest_differences(shift=1e-2).values()) > synthesis.TOLERANCE


def test_rows_hold_times_and_targets() -> None:
    rows = synthesis.measure()
    assert "synthesis" in PARTS
    assert [row["target"] for row in rows] == [1.3, 1.8, 1.0, 1.0]
    assert all({"name", "ours_ms", "plain_ms", "ratio", "target"} <= set(row) for row in rows)
    assert all(len(row["name"]) < 58 for row in rows)
    assert all(row["ratio"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) for row in rows[:2])
    assert all(row["ratio"] > 1 and row["difference"] < synthesis.TOLERANCE for row in rows[2:])


@pytest.mark.parametrize(("ratio", "code"), [(2.0, 0), (1.5, 1)])
def test_a_missed_target_is_the_exit_code(
    ratio: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthesis, "measure", lambda: [synthesis._row("gradient of w", ratio, 1.8)])
    assert synthesis.main() == code
    assert "gradient of w" in capsys.readouterr().out
