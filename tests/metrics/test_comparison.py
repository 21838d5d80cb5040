"""Methods side by side: pairs, ranks, bands, all against plain loops."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from zoo.errors import DataError
from zoo.metrics import bands, bootstrap_means, compare, comparison, holm, interval, intervals, ranks, win_rates
from zoo.metrics.statistics import RESAMPLES

Array = NDArray[np.float64]
NAN = float("nan")


def three(n: int = 200) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    hard = generator.random(n)
    return {
        "good": hard + 0.05 * generator.random(n),
        "same": hard + 0.05 * generator.random(n),
        "bad": hard + 0.05 + 0.05 * generator.random(n),
    }


def test_intervals_agree_with_those_of_one_column() -> None:
    generator = np.random.default_rng(1)
    table = generator.gamma(2.0, 1.0, (300, 3))
    table[:40, 1] = NAN
    for column, found in zip(table.T, intervals(table), strict=True):
        alone = interval(column)
        width = alone.hi - alone.lo
        assert found.mean == pytest.approx(alone.mean, rel=1e-12)
        assert found.n == alone.n
        assert (found.lo, found.hi) == pytest.approx((alone.lo, alone.hi), abs=0.08 * width)


def test_resampled_means_are_means_of_resamples() -> None:
    table = np.array([[1.0, 10.0], [2.0, NAN], [4.0, 30.0]])
    means = bootstrap_means(table, resamples=400)
    assert means.shape == (400, 2)
    sums = {sum(draw) / 3 for draw in np.stack(np.meshgrid([1, 2, 4], [1, 2, 4], [1, 2, 4])).reshape(3, -1).T.tolist()}
    assert all(min(abs(mean - one) for one in sums) < 1e-12 for mean in means[:, 0])
    possible = {10.0, 30.0, 20.0, 50 / 3, 70 / 3}
    defined = means[~np.isnan(means[:, 1]), 1]
    assert all(min(abs(mean - one) for one in possible) < 1e-9 for mean in defined)
    assert 0 < np.isnan(means[:, 1]).sum() < 60  # the middle image three times: 1 in 27
    # The same images are drawn for both columns.
    pairs = np.isnan(means[:, 1])
    assert (means[pairs, 0] == 2.0).all()


def test_resamples_are_keyed() -> None:
    table = np.random.default_rng(2).random((50, 2))
    assert np.array_equal(bootstrap_means(table), bootstrap_means(table))
    assert not np.array_equal(bootstrap_means(table, seed=1), bootstrap_means(table))
    assert np.allclose(bootstrap_means(table[:, :1])[:, 0], bootstrap_means(table)[:, 0], rtol=1e-12)


def test_columns_without_width_or_values() -> None:
    table = np.column_stack([np.full(7, 0.1), np.full(7, NAN), [NAN] * 6 + [3.0], np.arange(7.0)])
    flat, empty, single, plain = intervals(table)
    assert flat == (0.1, 0.1, 0.1, 7)
    assert empty.n == 0
    assert all(math.isnan(x) for x in empty[:3])
    assert single == (3.0, 3.0, 3.0, 1)
    assert plain.lo < 3.0 < plain.hi
    assert intervals(np.empty((0, 1)))[0].n == 0


def test_pairs_against_plain_calls() -> None:
    values = three()
    found = {(one.first, one.second): one for one in compare(values, "lower")}
    assert list(found) == [("good", "same"), ("good", "bad"), ("same", "bad")]
    for (a, b), one in found.items():
        difference = values[a] - values[b]
        assert one.difference.mean == pytest.approx(difference.mean(), rel=1e-12)
        alone = interval(difference)
        assert (one.difference.lo, one.difference.hi) == pytest.approx((alone.lo, alone.hi), abs=1e-3)
        assert one.wilcoxon_p == pytest.approx(wilcoxon(values[a], values[b]).pvalue, rel=1e-12)
        assert one.wins == pytest.approx((difference < 0).mean())
        assert one.ties == 0.0
        order = np.argsort(np.argsort(np.abs(difference))) + 1
        assert one.signed_ranks == pytest.approx(
            (order[difference < 0].sum() - order[difference > 0].sum()) / order.sum()
        )
    assert found["good", "bad"].bootstrap_p == pytest.approx(2 / (RESAMPLES + 1))
    assert found["good", "bad"].holm_p < 1e-10
    assert found["good", "same"].bootstrap_p > 0.05
    higher = compare(values, "higher", pairs=[("good", "bad")])
    assert higher[0].wins == pytest.approx(1 - found["good", "bad"].wins)
    assert higher[0].signed_ranks == pytest.approx(-found["good", "bad"].signed_ranks)
    assert higher[0].holm_p == higher[0].wilcoxon_p  # one comparison needs no adjustment


def test_only_images_that_both_completed_count() -> None:
    first = [0.0, 1.0, 2.0, NAN, 4.0, 5.0, 6.0]
    second = [1.0, NAN, 2.0, 3.0, 4.5, 5.5, 6.5]
    one = compare({"a": first, "b": second}, "lower")[0]
    assert one.difference.n == 5
    assert one.difference.mean == pytest.approx(-0.5)
    assert one.ties == pytest.approx(0.2)
    assert one.wins == pytest.approx(0.9)
    none = compare({"a": [NAN, 1.0], "b": [1.0, NAN]}, "lower")[0]
    assert none.difference.n == 0
    assert all(math.isnan(x) for x in none[3:])


def test_methods_that_do_not_differ() -> None:
    values = three(60)
    one = compare({"a": values["good"], "b": values["good"]}, "lower")[0]
    assert one.difference == (0.0, 0.0, 0.0, 60)
    assert one[3:] == (1.0, 1.0, 1.0, 0.5, 1.0, 0.0)
    assert compare({"a": values["good"]}, "lower") == []


def test_false_alarms_come_as_often_as_they_should() -> None:
    alarms = []
    for seed in range(60):
        a, b = np.random.default_rng(seed).normal(size=(2, 80))
        one = compare({"a": a, "b": b}, "lower", seed=seed)[0]
        alarms.append((one.bootstrap_p < 0.1, one.wilcoxon_p < 0.1))
    assert 0 < np.mean(alarms, 0)[0] < 0.22
    assert 0 < np.mean(alarms, 0)[1] < 0.22


def test_holm() -> None:
    # Worked by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    mixed = holm([0.01, NAN, 0.02])
    assert mixed[[0, 2]].tolist() == pytest.approx([0.02, 0.02])
    assert math.isnan(mixed[1])
    generator = np.random.default_rng(3)
    for _ in range(20):
        p = generator.random(6) ** 3
        naive = [min(1.0, max(p[j] * int((p >= p[j]).sum()) for j in range(6) if p[j] <= p[i])) for i in range(6)]
        assert holm(p).tolist() == pytest.approx(naive)


def test_win_rates_and_ranks_against_loops() -> None:
    generator = np.random.default_rng(4)
    values = {name: generator.integers(0, 4, 60).astype(float) for name in "abcd"}
    values["a"][:5] = NAN
    rates = win_rates(values, "higher")
    names = list(values)
    complete = ~np.isnan(values["a"])
    for i, first in enumerate(names):
        assert math.isnan(rates[i, i])
        for j, second in enumerate(names):
            both = ~np.isnan(values[first]) & ~np.isnan(values[second])
            a, b = values[first][both], values[second][both]
            if i != j:
                won = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in zip(a, b, strict=True)]
                assert rates[i, j] == pytest.approx(np.mean(won))
    for better, sign in (("higher", 1), ("lower", -1)):
        found = ranks(values, better)  # type: ignore[arg-type]
        for name, one in zip(names, found, strict=True):
            naive = []
            for k in np.flatnonzero(complete):
                others = [sign * values[other][k] for other in names if other != name]
                mine = sign * values[name][k]
                naive.append(1 + sum(x > mine for x in others) + 0.5 * sum(x == mine for x in others))
            assert one.mean == pytest.approx(np.mean(naive))
            assert one.n == 55
            assert one.lo < one.mean < one.hi


def test_a_method_without_any_value_takes_no_ranks_from_the_others() -> None:
    values = three(40)
    alone = ranks(values, "lower")
    *others, absent = ranks(values | {"absent": np.full(40, NAN)}, "lower")
    assert [one.mean for one in others] == [one.mean for one in alone]
    assert {one.n for one in others} == {40}
    assert absent.n == 0


def test_bands_against_a_loop() -> None:
    generator = np.random.default_rng(5)
    ratios = np.concatenate([[0.0, 0.1, 0.2, 0.60, 1.0, 0.05, 0.95], generator.random(60) * 0.5])
    table = generator.random((len(ratios), 2))
    table[3, 0] = NAN
    found = bands(table, ratios)
    assert [(one.low, one.high) for one in found][:2] == [(0.0, 0.1), (0.1, 0.2)]
    assert found[-1].high == 1.0
    for k, one in enumerate(found):
        inside = [i for i, r in enumerate(ratios) if one.low < r <= one.high or (k == 0 and r == 0.0)]
        for column, value in enumerate(one.values):
            kept = [table[i, column] for i in inside if not math.isnan(table[i, column])]
            assert value.n == len(kept)
            if kept:
                assert value.mean == pytest.approx(np.mean(kept))
    assert sum(one.values[1].n for one in found) == len(ratios)
    halves = bands(table[:, :1], ratios, edges=(0.0, 0.5, 1.0))
    assert len(halves) == 2
    assert len(halves[0].values) == 1


def test_five_methods_over_all_images_take_seconds() -> None:
    generator = np.random.default_rng(6)
    hard = generator.random(36_500)
    values = {f"m{k}": hard + 0.01 * k * generator.random(len(hard)) for k in range(5)}
    start = time.process_time()
    found = compare(values, "lower")
    assert len(found) == 10
    assert len(ranks(values, "lower")) == 5
    assert np.isfinite(win_rates(values, "lower")).sum() == 20
    assert len(bands(np.stack(list(values.values()), 1), hard)) == 7
    assert time.process_time() - start < 30


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="one value each for the same images"):
        compare({"a": [1.0, 2.0], "b": [1.0]}, "lower")
    with pytest.raises(DataError, match="got none"):
        win_rates({}, "lower")
    with pytest.raises(DataError, match="infinite"):
        compare({"a": [1.0, math.inf], "b": [1.0, 2.0]}, "lower")
    with pytest.raises(DataError, match="one row per image"):
        intervals(np.zeros(3))
    for edges in ((0.5,), (0.0, 0.5, 0.5), (1.0, 0.0)):
        with pytest.raises(DataError, match="must grow"):
            bands(np.zeros((2, 1)), [0.1, 0.2], edges)
    with pytest.raises(DataError, match="outside the bands"):
        bands(np.zeros((2, 1)), [0.1, 0.7], (0.0, 0.5))
    with pytest.raises(DataError, match="outside the bands"):
        bands(np.zeros((2, 1)), [0.1, NAN])
    with pytest.raises(DataError, match="hole ratios of shape"):
        bands(np.zeros((2, 1)), [0.1])


def test_intervals_of_each_column_are_those_of_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    columns = [generator.normal(size=n) for n in (40, 40, 7, 1, 0)] + [np.full(5, 0.3)]
    columns[1][:3] = np.nan
    for found, column in zip(comparison.intervals_each(columns), columns, strict=True):
        alone = interval(column)
        assert found.n == alone.n
        assert found[:3] == pytest.approx(alone[:3], rel=1e-12, nan_ok=True)
    shuffled = [generator.permutation(column) for column in columns]
    assert repr(comparison.intervals_each(shuffled)) == repr(comparison.intervals_each(columns))
    together = comparison.intervals_each(columns)
    monkeypatch.setattr(comparison, "VALUES", 1)
    assert repr([i.n for i in comparison.intervals_each(columns)]) == repr([i.n for i in together])


def test_resamples_that_are_kept_are_those_that_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=(60, 2))
    kept = comparison.bootstrap_means(values)
    assert np.array_equal(comparison.bootstrap_means(values), kept)
    monkeypatch.setattr(comparison, "HELD", 0)
    assert np.array_equal(comparison.bootstrap_means(values), kept)
    assert not np.array_equal(comparison.bootstrap_means(values, seed=1), kept)
