"""Methods side by side on the same images: pairs, ranks, and values against the hole's share of the image.

Pure functions of arrays with one row per image, in an order that is the same in every call (that of the ids). Resamples
are drawn once for all columns: ten pairs of five methods over 36,500 images cost about as much as one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.errors import DataError
from zoo.keyed import numpy_generator
from zoo.metrics.statistics import RESAMPLES, Interval

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)
VALUES = 20_000_000  # in the columns that share resamples: 160 MB
AT_ONCE = 50  # resamples; their counts take 400 bytes per image
HELD = 200_000_000  # bytes of counts that are kept from call to call: of up to 100,000 images

Better = Literal["lower", "higher"]
Numbers = NDArray[np.float64]
Counts = NDArray[np.uint8]


class Comparison(NamedTuple):
    """Two methods on the images that both completed.

    Attributes:
        first: A method.
        second: Another.
        difference: The mean of first minus second, with the interval of the paired bootstrap.
        bootstrap_p: Two-sided p-value of the paired bootstrap that the mean difference is 0; at least 2 / 2,001.
        wilcoxon_p: Two-sided p-value of Wilcoxon's signed-rank test; 1 where no image differs.
        holm_p: That, adjusted by Holm for all comparisons that were made together.
        wins: The share of images on which the first is better, ties counted half.
        ties: The share on which both are equal.
        signed_ranks: Which side Wilcoxon's test speaks for: the sum of the ranks of differences that favour the first
            minus that of the others, over the sum of all (the matched-pairs rank-biserial correlation; Kerby 2014), in
            [-1, 1]. Many small wins and a few large losses have `wins` above one half and this below 0.
    """

    first: str
    second: str
    difference: Interval
    bootstrap_p: float
    wilcoxon_p: float
    holm_p: float
    wins: float
    ties: float
    signed_ranks: float


class Band(NamedTuple):
    """What the images say whose hole ratio lies in a band.

    Attributes:
        low: The ratio that it begins at, excluded but for the first band.
        high: The ratio that it ends at, included.
        values: An interval for each column.
    """

    low: float
    high: float
    values: tuple[Interval, ...]


def bootstrap_means(values: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> Numbers:
    """The means of resampled images, the same resamples for every column.

    Args:
        values: N x K, one row per image; NaN where undefined, which is left out of its column's means.
        seed: Another seed draws other resamples.
        resamples: R.

    Returns:
        R x K; NaN where a resample drew no image that defines the column.

    Raises:
        DataError: Not N x K, or a value is infinite.
    """
    table = _table(values)
    n, width = table.shape
    defined = ~np.isnan(table)
    filled = np.where(defined, table, 0.0)
    complete = bool(defined.all())
    means = np.full((resamples, width), np.nan)
    if n == 0:
        return means
    drawn = _held(seed, n, resamples) if n * resamples <= HELD else _drawn(seed, n, resamples)
    for start, batch in zip(range(0, resamples, AT_ONCE), drawn, strict=True):
        counts = batch.astype(np.float64)
        with np.errstate(invalid="ignore"):
            means[start : start + AT_ONCE] = counts @ filled / (n if complete else counts @ defined)
    return means


@lru_cache(maxsize=1)
def _held(seed: int, n: int, resamples: int) -> list[Counts]:
    """The counts of `_drawn`, for all calls about the same images one after another."""
    return list(_drawn(seed, n, resamples))


def _drawn(seed: int, n: int, resamples: int) -> Iterator[Counts]:
    """How often each resample draws each image, `AT_ONCE` resamples at a time; far below 256 times for any n > 255."""
    generator = numpy_generator("bootstrap", seed, n)
    for start in range(0, resamples, AT_ONCE):
        rows = min(AT_ONCE, resamples - start)
        draws = generator.integers(0, n, (rows, n), dtype=np.int32) + n * np.arange(rows, dtype=np.int32)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint8)


def intervals(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> list[Interval]:
    """The mean of every column with a percentile bootstrap interval; many columns at the price of a few.

    Agrees with `interval` of each column up to the resamples drawn.

    Args:
        values: N x K, one row per image, NaN where undefined.
        confidence: The mass of the intervals, in (0, 1).
        seed: Another seed draws other resamples.

    Raises:
        DataError: Not N x K, or a value is infinite.
    """
    table = _table(values)
    return _intervals(table, bootstrap_means(table, seed), confidence)


def intervals_each(columns: Iterable[ArrayLike]) -> list[Interval]:
    """`interval` of each of several lists of values, NaN left out: the resamples of a length are drawn once.

    Args:
        columns: Lists of values, of any lengths.

    Raises:
        DataError: A value is infinite.
    """
    given = [np.asarray(column, np.float64) for column in columns]
    kept = [np.sort(column[~np.isnan(column)]) for column in given]  # any order of rows gives the same bits
    found: dict[int, Interval] = {}
    for n in {len(column) for column in kept}:
        places = [k for k, column in enumerate(kept) if len(column) == n]
        width = max(1, VALUES // max(1, n))
        for start in range(0, len(places), width):
            some = places[start : start + width]
            found |= zip(some, intervals(np.stack([kept[k] for k in some], 1)), strict=True)
    return [found[k] for k in range(len(kept))]


def _intervals(table: Numbers, means: Numbers, confidence: float) -> list[Interval]:
    tail = (1 - confidence) / 2
    counts = (~np.isnan(table)).sum(0)
    found = []
    for column, resampled, n in zip(table.T, means.T, counts.tolist(), strict=True):
        if n == 0:
            found.append(Interval(float("nan"), float("nan"), float("nan"), 0))
            continue
        kept = column[~np.isnan(column)]
        if kept.min() == kept.max():  # sums of equal numbers are rounded, and their mean has no width
            found.append(Interval(float(kept[0]), float(kept[0]), float(kept[0]), n))
            continue
        low, high = np.nanquantile(resampled, [tail, 1 - tail])
        found.append(Interval(float(kept.mean()), float(low), float(high), n))
    return found


def compare(
    values: Mapping[str, ArrayLike],
    better: Better,
    pairs: Sequence[tuple[str, str]] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compares methods in pairs; every pair counts in Holm's adjustment.

    Args:
        values: For each method one value per image, in the same order of images, NaN where it has none.
        better: Which way the metric is better.
        pairs: Which methods; every two where None.
        confidence: The mass of the intervals.
        seed: Another seed draws other resamples.

    Raises:
        DataError: Numbers of images differ, or a value is infinite.
    """
    names = list(values)
    table = _aligned(values)
    chosen = list(combinations(names, 2)) if pairs is None else list(pairs)
    if not chosen:
        return []
    place = {name: k for k, name in enumerate(names)}
    differences = np.stack([table[:, place[a]] - table[:, place[b]] for a, b in chosen], 1)
    means = bootstrap_means(differences, seed)
    found = _intervals(differences, means, confidence)
    ranked = [_wilcoxon(column) for column in differences.T]
    adjusted = holm(ranked)
    sign = 1.0 if better == "higher" else -1.0
    return [
        Comparison(
            *chosen[k], found[k], _bootstrap_p(means[:, k]), ranked[k], float(adjusted[k]),
            *_wins(sign * differences[:, k]), _signed_ranks(sign * differences[:, k]),
        )
        for k in range(len(chosen))
    ]  # fmt: skip


def _bootstrap_p(means: Numbers) -> float:
    means = means[~np.isnan(means)]
    if not len(means):
        return float("nan")
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (len(means) + 1))


def _wilcoxon(differences: Numbers) -> float:
    from scipy.stats import wilcoxon

    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return float("nan")
    return float(wilcoxon(kept).pvalue) if kept.any() else 1.0


def _signed_ranks(differences: Numbers) -> float:
    from scipy.stats import rankdata

    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return float("nan")
    kept = kept[kept != 0]
    ranked = rankdata(np.abs(kept))
    return float(ranked @ np.sign(kept) / ranked.sum()) if len(kept) else 0.0


def _wins(differences: Numbers) -> tuple[float, float]:
    """The share of differences above 0, ties counted half, and the share of ties."""
    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return float("nan"), float("nan")
    ties = float((kept == 0).mean())
    return float((kept > 0).mean()) + ties / 2, ties


def holm(p_values: ArrayLike) -> Numbers:
    """P-values adjusted for being several (Holm 1979), in their order; NaN is passed over and stays.

    Args:
        p_values: K numbers in [0, 1].
    """
    given = np.asarray(p_values, np.float64)
    adjusted = np.full(given.shape, np.nan)
    kept = np.flatnonzero(~np.isnan(given))
    order = kept[np.argsort(given[kept], kind="stable")]
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def win_rates(values: Mapping[str, ArrayLike], better: Better) -> Numbers:
    """How often each method beats each other one.

    Args:
        values: As for `compare`.
        better: Which way the metric is better.

    Returns:
        M x M: the share of images that both have on which the row's method is better than the column's, ties counted
        half; NaN on the diagonal and where two methods share no image.
    """
    table = _aligned(values) * (1.0 if better == "higher" else -1.0)
    rates = np.full((table.shape[1],) * 2, np.nan)
    for a, b in combinations(range(table.shape[1]), 2):
        rates[a, b], _ = _wins(table[:, a] - table[:, b])
        rates[b, a] = 1 - rates[a, b]
    return rates


def ranks(values: Mapping[str, ArrayLike], better: Better, confidence: float = 0.95, seed: int = 0) -> list[Interval]:
    """The mean rank of each method, 1 for the best, ties sharing the mean of their ranks.

    Only images count that every method has a value for: elsewhere a rank means something else. A method without any
    value takes no part, and no image from the others.

    Args:
        values: As for `compare`.
        better: Which way the metric is better.
        confidence: The mass of the intervals.
        seed: Another seed draws other resamples.

    Returns:
        An interval for each method, in their order; n is 0 for one without any value.
    """
    from scipy.stats import rankdata

    table = _aligned(values)
    part = ~np.isnan(table).all(0)
    complete = table[~np.isnan(table[:, part]).any(1)]
    places = np.full_like(complete, np.nan)
    if part.any():
        places[:, part] = rankdata(-complete[:, part] if better == "higher" else complete[:, part], axis=1)
    return intervals(places, confidence, seed)


def bands(values: ArrayLike, ratios: ArrayLike, edges: Sequence[float] = EDGES, seed: int = 0) -> list[Band]:
    """The means over images whose hole ratio lies in each of several bands.

    Args:
        values: N x K, one row per image, NaN where undefined.
        ratios: N hole ratios.
        edges: Where the bands begin and end, growing; as for masks, a ratio on an edge belongs to the band that ends
            there, the first edge to the first band.
        seed: Another seed draws other resamples.

    Raises:
        DataError: Numbers of rows differ, edges do not grow, or a ratio lies in no band.
    """
    table, shares, limits = _table(values), np.asarray(ratios, np.float64), np.asarray(edges, np.float64)
    if len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise DataError(f"the edges of bands must grow, got {list(edges)}")
    if shares.shape != (len(table),):
        raise DataError(f"{len(table)} images and hole ratios of shape {shares.shape}")
    if not ((shares >= limits[0]) & (shares <= limits[-1])).all():
        raise DataError(f"a hole ratio lies outside the bands from {limits[0]:g} to {limits[-1]:g}")
    places = np.maximum(np.searchsorted(limits, shares, side="left") - 1, 0)
    return [
        Band(float(limits[k]), float(limits[k + 1]), tuple(intervals(table[places == k], seed=seed)))
        for k in range(len(limits) - 1)
    ]


def _aligned(values: Mapping[str, ArrayLike]) -> Numbers:
    """One column per method."""
    columns = {name: np.asarray(column, np.float64) for name, column in values.items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        found = ", ".join(f"{name}: {column.shape}" for name, column in columns.items())
        raise DataError(f"methods need one value each for the same images, got {found or 'none'}")
    return _table(np.stack(list(columns.values()), 1))


def _table(values: ArrayLike) -> Numbers:
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise DataError(f"statistics of columns need one row per image, got an array of shape {table.shape}")
    if np.isinf(table).any():
        raise DataError("statistics over infinite values have no meaning", remedy="cap the metric, or report a failure")
    return table
