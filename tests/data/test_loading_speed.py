"""The speed benchmark of reading: it compares equal things, and reports what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed import loading
from benchmarks.speed.__main__ import PARTS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"IMAGES": 4, "ROUNDS": 1, "BATCH": 2}.items():
        monkeypatch.setattr(loading, name, value)


def test_rows_hold_times_and_targets() -> None:
    rows = loading.measure()
    assert "loading" in PARTS
    assert len({row["name"] for row in rows}) == len(rows) == 9
    assert all({"name", "ours_ms", "plain_ms", "ratio", "target"} <= set(row) for row in rows)
    assert all(len(row["name"]) < 58 for row in rows)
    assert [row["target"] for row in rows] == [None, None, 2.0, 8.0, None, None, None, None, None]
    assert all(row["ratio"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) for row in rows)
    assert all(row["images_per_second_per_core"] == pytest.approx(1000 / row["ours_ms"]) for row in rows)
    assert rows[2]["largest_difference"] <= 1


def test_both_sides_read_the_same_pictures() -> None:
    with loading.folder() as root:
        ours, plain = loading.Photographs(root), loading.Photographs(root, plain=True)
        assert len(ours) == len(plain) == 4
        assert ours.sample(1).id == plain.sample(1).id
        for one, other in zip(map(ours.sample, range(4)), map(plain.sample, range(4)), strict=True):
            assert one.image.shape == other.image.shape == (loading.SIZE, loading.SIZE, 3)
            assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_a_broken_side_fails_instead_of_being_timed() -> None:
    def fail(item: int) -> None:
        raise ArithmeticError(item)

    with pytest.raises(ArithmeticError):
        loading.row("broken", loading.each([1], fail), loading.each([1], str), 1)
