"""Intervals: exact means, coverage, order, missing values, pairs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import DataError
from zoo.metrics import Interval, interval, paired_difference

ROOT = Path(__file__).resolve().parents[2]


def test_close_to_the_normal_interval_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 512)
    found = interval(values)
    half = 1.959964 * values.std() / math.sqrt(512)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.n == 512
    assert found.lo == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.hi == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_covers_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        found = interval(generator.exponential(1.0, 100), confidence=0.8)
        inside += found.lo <= 1.0 <= found.hi
    assert 68 <= inside <= 92  # three standard deviations around 80


def test_equals_a_plain_percentile_bootstrap() -> None:
    values = np.random.default_rng(2).random(60)
    means = values[np.random.default_rng(3).integers(0, 60, (100_000, 60))].mean(1)
    found = interval(values)
    assert (found.lo, found.hi) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


def test_the_same_in_any_order_and_any_process() -> None:
    values = np.random.default_rng(4).random(50)
    found = interval(values)
    assert found == interval(values[::-1]) == interval(values.tolist())
    assert found != interval(values, seed=1)
    assert interval(values, seed=1).mean == found.mean
    code = (
        "import numpy as np; from zoo.metrics import interval; "
        "print(repr(tuple(interval(np.random.default_rng(4).random(50)))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == repr(tuple(found))


def test_missing_values_are_left_out_and_counted() -> None:
    nan = float("nan")
    assert interval([1.0, nan, 2.0, 4.0, nan]) == interval([1.0, 2.0, 4.0])
    assert interval([1.0, nan, 2.0, 4.0, nan]).n == 3
    assert interval([nan, 5.0]) == Interval(5.0, 5.0, 5.0, 1)
    empty = interval([nan, nan])
    assert empty.n == 0
    assert all(math.isnan(x) for x in empty[:3])
    assert interval([]).n == 0


def test_proportions() -> None:
    found = interval([1.0] * 30 + [0.0] * 70)
    assert found.mean == pytest.approx(0.3)
    assert 0.19 < found.lo < 0.24
    assert 0.36 < found.hi < 0.42
    assert interval([1] * 50) == Interval(1.0, 1.0, 1.0, 50)


def test_paired_difference_is_the_interval_of_the_differences() -> None:
    generator = np.random.default_rng(5)
    hard = generator.random(200)  # how hard an image is, for both methods alike
    a, b = hard + 0.02 + 0.01 * generator.random(200), hard
    found = paired_difference(a, b)
    assert found == interval(a - b)
    assert found.lo > 0.02
    assert interval(a).lo < interval(b).hi  # unpaired intervals overlap
    gaps = a.copy()
    gaps[:10] = np.nan
    assert paired_difference(gaps, b).n == 190


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="3 values cannot be paired with 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="shape"):
        interval(np.zeros((2, 2)))
    with pytest.raises(DataError, match="infinite"):
        interval([1.0, math.inf])
