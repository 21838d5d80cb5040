"""The Frechet distance of Gaussians fitted to features (Heusel et al. 2017), and what resampling says of it.

The trace of the root of S1 S2, on which libraries spend most of their time, needs no root of a matrix: it is the sum of
the roots of the eigenvalues of L' S1 L, which is symmetric, where S2 = L L'. With fewer images than dimensions both
covariances are singular; the same sum then comes from the images' products, a smaller matrix.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from zoo.errors import DataError
from zoo.keyed import numpy_generator
from zoo.metrics.statistics import Interval

RESAMPLES = 20


class Features:
    """Features of a set of images, with what is derived from them kept: truths meet one method after another.

    Args:
        values: N x D, one row per image.

    Raises:
        DataError: Not N x D with N of at least 2, or a value that is not finite.
    """

    def __init__(self, values: ArrayLike | Tensor) -> None:
        self.values: Tensor = torch.as_tensor(values).to(torch.float64)
        if self.values.ndim != 2 or len(self.values) < 2 or not self.values.shape[1]:
            raise DataError(f"a set of features is N x D with N of at least 2, got {tuple(self.values.shape)}")
        if not self.values.isfinite().all():
            raise DataError("a feature is not finite: the network saw images that are not, or has damaged weights")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """D."""
        return self.values.shape[1]

    @cached_property
    def mean(self) -> Tensor:
        """The mean, D values."""
        return self.values.mean(0)

    @cached_property
    def spread(self) -> Tensor:
        """Deviations from the mean over sqrt(N - 1), N x D: their products make the covariance."""
        spread: Tensor = (self.values - self.mean) / float(len(self) - 1) ** 0.5
        return spread

    @cached_property
    def trace(self) -> float:
        """The trace of the covariance."""
        return float(self.spread.square().sum())

    @cached_property
    def covariance(self) -> Tensor:
        """The unbiased covariance, D x D."""
        return self.spread.T @ self.spread

    @cached_property
    def factor(self) -> Tensor:
        """L with L L' the covariance, D x D."""
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(self.covariance)
        if not failed:
            return lower
        # A feature that never varies, or repeated images: the covariance is singular, its symmetric root is not.
        values, vectors = torch.linalg.eigh(self.covariance)
        root: Tensor = vectors * values.clamp(min=0).sqrt()
        return root

    def at(self, rows: NDArray[Any]) -> Features:
        """The features of some of the images, which may repeat."""
        return Features(self.values[torch.from_numpy(rows)])


def frechet(composite: Features, truth: Features) -> float:
    """The squared Frechet distance of the two Gaussians, in double precision; 0 where rounding takes it below.

    Raises:
        DataError: The two have features of different width.
    """
    if composite.width != truth.width:
        raise DataError(f"features of {composite.width} and {truth.width} numbers cannot be compared")
    apart = float((composite.mean - truth.mean).square().sum())
    distance = apart + composite.trace + truth.trace - 2 * _root_trace(composite, truth)
    return 0.0 if distance < 0 else distance


def _root_trace(composite: Features, truth: Features) -> float:
    """The trace of the root of the product of the covariances."""
    if min(len(composite), len(truth)) < truth.width:
        products = composite.spread @ truth.spread.T
        if len(composite) > len(truth):
            products = products.T
        symmetric = products @ products.T
    else:
        symmetric = truth.factor.T @ composite.covariance @ truth.factor
    return float(torch.linalg.eigvalsh(symmetric).clamp(min=0).sqrt().sum())


def frechet_interval(composite: Features, truth: Features, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The Frechet distance with an interval that says how much it would vary with other images.

    Images are resampled with their truths. A resample repeats images, and its distance is larger than that of as many
    different ones: by percentiles the interval would often not hold the value itself. So its width is taken from the
    resamples, 1.96 standard deviations to either side, and its centre from the value. Means over resamples would
    estimate nothing.

    Args:
        composite: Features of the composites.
        truth: Features of the truths of the same images, in the same order.
        seed: Another seed draws other resamples.
        resamples: How many; each costs as much as the distance itself. Fewer than 2 give no interval.

    Returns:
        `lo` and `hi` are NaN without resamples; `lo` is at least 0.

    Raises:
        DataError: The two differ in length or width.
    """
    value, n = frechet(composite, truth), len(composite)
    if n != len(truth):
        raise DataError(f"{n} composites and {len(truth)} truths are no pairs")
    if resamples < 2:
        return Interval(value, float("nan"), float("nan"), n)
    generator = numpy_generator("frechet", seed, n)
    draws = (generator.integers(0, n, n) for _ in range(resamples))
    found = torch.tensor([frechet(composite.at(rows), truth.at(rows)) for rows in draws], dtype=torch.float64)
    half = 1.96 * float(found.std())
    return Interval(value, max(0.0, value - half), value + half, n)
