"""The speed benchmark of contextual attention: it compares equal things, and reports what it promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.speed import attention


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 2, "CHANNELS": 6, "SIZE": 32, "ROUNDS": 2, "LARGE": 256}.items():
        monkeypatch.setattr(attention, name, value)


def test_both_formulations_agree_and_the_comparison_would_notice() -> None:
    assert max(attention.largest_differences().values()) < attention.TOLERANCE
    assert max(attention.largest_differences(shift=1e-3).values()) > attention.TOLERANCE


def test_rows_hold_times_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "peak_memory", lambda: (100.0, 500.0))
    rows = attention.measure()
    assert all({"name", "ours_ms", "plain_ms", "ratio", "target"} <= set(row) for row in rows)
    assert [row["target"] for row in rows] == [3.5, 2.7, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert all(row["ratio"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) for row in rows[:2])
    assert rows[-1]["ratio"] == pytest.approx(10.24)


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (0.5, 1)])
def test_a_missed_target_is_the_exit_code(
    ratio: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "measure", lambda: [attention._row("memory", ratio, 1.0)])
    assert attention.main([]) == code
    assert f"ratio {ratio:.2f}" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
def test_memory_of_a_large_map_stays_near_its_blocks() -> None:
    """A 128x128 map has 4096 cells, done whole: 64 MiB of scores. At 160x160 they would be 160, and come in blocks."""
    try:
        used, total = attention.peak_memory(side=160, channels=4)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    assert 64 < used < 520
    assert total > used
