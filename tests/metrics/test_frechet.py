"""The Frechet distance: agreed values, the libraries' own, singular covariances, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cleanfid.fid import fid_from_feats
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from zoo.errors import DataError
from zoo.metrics.frechet import Features, frechet, frechet_interval

Array = NDArray[np.float64]


def agreed() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(600, 64))
    return a, 1.1 * generator.normal(size=(500, 64)) + 0.05


def features(n: int, width: int, seed: int = 0) -> tuple[Array, Array]:
    """Like features of a network: not negative, of unequal spread, the composite's near the truth's."""
    generator = np.random.default_rng(seed)
    truth = np.maximum(generator.normal(size=(n, width)), 0) * np.geomspace(0.1, 3, width)
    return np.maximum(truth + 0.3 * generator.normal(size=(n, width)), 0), truth


def by_root(a: Array, b: Array) -> float:
    """The textbook formula, with scipy's root of a matrix."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root.real))


def distance(a: Array, b: Array) -> float:
    return frechet(Features(a), Features(b))


def test_agreed_value() -> None:
    assert distance(*agreed()) == pytest.approx(5.251451267592728, rel=1e-12)


@pytest.mark.parametrize("pair", [agreed(), features(300, 40), features(2000, 128)])
def test_equals_scipy_torch_fidelity_clean_fid_and_torchmetrics(pair: tuple[Array, Array]) -> None:
    a, b = pair
    ours = distance(a, b)
    assert ours == pytest.approx(by_root(a, b), rel=1e-9)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours == pytest.approx(fid_from_feats(a, b), rel=1e-9)
    moments = [torch.from_numpy(m) for x in (a, b) for m in (x.mean(0), np.cov(x, rowvar=False))]
    assert ours == pytest.approx(float(_compute_fid(*moments)), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 30), (30, 20), (20, 100), (100, 20)])
def test_fewer_images_than_dimensions(n: int, m: int) -> None:
    a, b = features(n, 40)[0], features(m, 40, 1)[1]
    theirs = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    # Their roots of eigenvalues that should be 0 are as large as the square root of the rounding error.
    assert distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-6)


def test_one_dimension_by_hand() -> None:
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0], [5.0]])
    assert distance(a, b) == pytest.approx(4.0**2 + (math.sqrt(2) - math.sqrt(4)) ** 2)


def test_features_that_never_vary() -> None:
    a, b = features(200, 20)
    a[:, 3] = b[:, 3] = 0.7
    a[:, 5], b[:, 5] = b[:, 4], b[:, 4]
    assert distance(a, b) == pytest.approx(by_root(a, b), rel=1e-5)
    assert bool(Features(b).factor.isfinite().all())
    covariance = Features(b).covariance
    assert torch.allclose(Features(b).factor @ Features(b).factor.T, covariance, atol=1e-10)


@pytest.mark.parametrize("n", [30, 300])
def test_truth_is_at_no_distance(n: int) -> None:
    truth = features(n, 64)[1]
    assert abs(distance(truth, truth)) < 1e-6
    assert frechet_interval(Features(truth), Features(truth)).mean < 1e-6


@pytest.mark.parametrize(("root", "expected"), [(1e-9, 0.0), (math.nan, math.nan)])
def test_rounding_takes_no_distance_below_zero_and_hides_nothing(
    root: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(np.random.default_rng(0).normal(size=(30, 4)))
    monkeypatch.setattr("zoo.metrics.frechet._root_trace", lambda a, b: features.trace + root)
    assert frechet(features, features) == pytest.approx(expected, nan_ok=True, abs=0.0)


def test_features_come_in_single_precision() -> None:
    a, b = features(300, 40)
    assert distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(distance(a, b), rel=1e-5)
    assert frechet(Features(torch.from_numpy(a)), Features(b)) == distance(a, b)


def test_the_interval_is_as_wide_as_other_images_vary() -> None:
    found = [frechet_interval(*map(Features, features(150, 24, seed)), seed=seed) for seed in range(30)]
    spread = float(np.std([one.mean for one in found], ddof=1))
    widths = [(one.hi - one.lo) / (2 * 1.96) for one in found]
    assert float(np.mean(widths)) == pytest.approx(spread, rel=0.4)
    expected = float(np.mean([one.mean for one in found]))
    assert sum(one.lo <= expected <= one.hi for one in found) >= 26
    assert all(one.lo <= one.mean <= one.hi and one.n == 150 for one in found)


def test_the_interval_is_fixed_by_its_seed() -> None:
    a, b = map(Features, features(60, 16))
    assert frechet_interval(a, b) == frechet_interval(a, b)
    assert frechet_interval(a, b, seed=1) != frechet_interval(a, b)
    none = frechet_interval(a, b, resamples=0)
    assert none.mean == frechet(a, b)
    assert math.isnan(none.lo)
    assert math.isnan(none.hi)


def test_wrong_input_is_refused() -> None:
    for wrong in (np.zeros(5), np.zeros((1, 5)), np.zeros((3, 0))):
        with pytest.raises(DataError, match="N x D"):
            Features(wrong)
    with pytest.raises(DataError, match="not finite"):
        Features([[1.0, math.nan], [0.0, 1.0]])
    with pytest.raises(DataError, match="cannot be compared"):
        distance(np.eye(3), np.eye(4))
    with pytest.raises(DataError, match="no pairs"):
        frechet_interval(Features(np.eye(3)), Features(np.ones((4, 3))))
