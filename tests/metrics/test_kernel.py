"""The kernel distance: agreed values, naive sums, the libraries' own, its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance as clean_fid
from numpy.typing import NDArray
from torchmetrics.image.kid import poly_mmd

from zoo.errors import DataError
from zoo.metrics import kernel
from zoo.metrics.kernel import KernelFeatures, kernel_distance, kernel_subsets

Array = NDArray[np.float64]


def agreed() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(600, 64))
    return a, 1.1 * generator.normal(size=(500, 64)) + 0.05


def naive(x: Array, y: Array) -> float:
    """Sums over all pairs, one after the other."""

    def k(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    own = [sum(k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j) for z in (x, y)]
    cross = sum(k(a, b) for a in x for b in y)
    return own[0] / (n * (n - 1)) + own[1] / (m * (m - 1)) - 2 * cross / (n * m)


def test_agreed_values() -> None:
    a, b = agreed()
    assert kernel_distance(KernelFeatures(a), KernelFeatures(b)).mean == pytest.approx(0.007889080664676307, abs=1e-8)
    assert kernel_subsets(a, b, 50, 200, 2020) == pytest.approx(0.007177961394, abs=1e-11)


def test_equals_naive_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(13, 6)), generator.normal(size=(9, 6)) + 0.3
    whole = kernel_distance(KernelFeatures(x), KernelFeatures(y))
    assert whole.mean == pytest.approx(naive(x, y), abs=1e-6)
    monkeypatch.setattr(kernel, "BLOCK", 4)  # blocks that do not divide either set
    assert kernel_distance(KernelFeatures(x), KernelFeatures(y)) == pytest.approx(whole, abs=1e-6)


def test_equals_torchmetrics_and_clean_fid_on_one_subset_of_all() -> None:
    generator = np.random.default_rng(2)
    x, y = (torch.from_numpy(generator.normal(size=(100, 32)) + shift) for shift in (0.0, 0.2))
    ours = kernel_distance(KernelFeatures(x), KernelFeatures(y)).mean
    assert ours == pytest.approx(float(poly_mmd(x, y)), abs=1e-6)
    assert ours == pytest.approx(kernel_subsets(x, y, 1, 100), abs=1e-6)
    assert ours == pytest.approx(clean_fid(x.numpy(), y.numpy(), num_subsets=1), abs=1e-6)


def test_single_precision_is_enough_for_wide_features() -> None:
    generator = np.random.default_rng(3)
    truth = np.maximum(generator.normal(size=(300, 2048)), 0)
    fake = np.maximum(truth + 0.2 * generator.normal(size=truth.shape), 0)
    kernels = [(a @ b.T / 2048 + 1) ** 3 for a, b in ((fake, fake), (truth, truth), (fake, truth))]
    own = sum((k.sum() - np.trace(k)) / (300 * 299) for k in kernels[:2])
    ours = kernel_distance(KernelFeatures(fake), KernelFeatures(truth)).mean
    assert ours == pytest.approx(own - 2 * kernels[2].mean(), abs=1e-8)


def test_the_interval_is_as_wide_as_other_images_vary() -> None:
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        truth = generator.normal(size=(120, 16))
        fake = truth + 0.5 * generator.normal(size=truth.shape) + 0.4
        found.append(kernel_distance(KernelFeatures(fake), KernelFeatures(truth)))
    spread = float(np.std([one.mean for one in found], ddof=1))
    widths = [(one.hi - one.lo) / (2 * 1.96) for one in found]
    assert float(np.mean(widths)) == pytest.approx(spread, rel=0.3)
    expected = float(np.mean([one.mean for one in found]))
    assert sum(one.lo <= expected <= one.hi for one in found) >= 51


def test_own_pairs_lower_the_value_by_what_is_said() -> None:
    truth = np.random.default_rng(4).normal(size=(150, 16))
    kernels = (truth @ truth.T / 16 + 1) ** 3
    others = (kernels.sum() - np.trace(kernels)) / (150 * 149)
    found = kernel_distance(KernelFeatures(truth), KernelFeatures(truth)).mean
    assert found == pytest.approx(-2 / 150 * (np.trace(kernels) / 150 - others), abs=1e-5)


def test_sums_of_truths_are_taken_once() -> None:
    a, b = map(KernelFeatures, agreed())
    first = kernel_distance(a, b)
    assert "own_sums" in vars(b)
    assert kernel_distance(a, b) == first


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        kernel_distance(KernelFeatures(np.eye(3)), KernelFeatures(np.eye(4)))
