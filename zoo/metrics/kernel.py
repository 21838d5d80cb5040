"""The kernel distance of features (Binkowski et al. 2018): the estimate over all pairs, and torch-fidelity's subsets.

Kernels are taken in single precision, as features are, and summed in double precision: at 2,048 dimensions the value
changes by 1e-10, and matrix products are twice as fast.
"""

from __future__ import annotations

from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from zoo.errors import DataError
from zoo.metrics.frechet import Features
from zoo.metrics.statistics import Interval

BLOCK = 1024
SUBSETS, SUBSET_SIZE, SEED = 50, 1000, 2020


class KernelFeatures(Features):
    """Features that also keep the sums of their kernels."""

    @cached_property
    def single(self) -> Tensor:
        """N x D, float32."""
        return self.values.float()

    @cached_property
    def own_sums(self) -> Tensor:
        """For each image, the sum of its kernels with all the others, N values, float64."""
        x = self.single
        total = self.values.new_zeros(len(x))
        for i in range(0, len(x), BLOCK):
            for j in range(i, len(x), BLOCK):
                kernels = _kernels(x[i : i + BLOCK], x[j : j + BLOCK])
                if i == j:
                    kernels.fill_diagonal_(0.0)
                else:  # symmetric: each block serves both of its sides
                    total[j : j + BLOCK] += kernels.sum(0, dtype=torch.float64)
                total[i : i + BLOCK] += kernels.sum(1, dtype=torch.float64)
        return total


def _kernels(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1.0).pow_(3)


def kernel_distance(composite: KernelFeatures, truth: KernelFeatures) -> Interval:
    """The squared MMD over all pairs, with an interval.

    Every composite is compared with every truth, its own too, as the libraries do it: unbiased where the two sets are
    independent. Where a composite resembles its own truth more than others, the value is lower by 2 / n times as much
    as their kernels differ, so that a set against itself lies below 0. The interval knows nothing of that.

    The interval is the value and 1.96 standard errors to either side. The errors are those of the mean of the
    estimate's projection on the images (Hoeffding 1948), twice that of a mean, with each composite and its truth drawn
    together; where the numbers of the two sets differ, independently.

    Raises:
        DataError: The two have features of different width.
    """
    if composite.width != truth.width:
        raise DataError(f"features of {composite.width} and {truth.width} numbers cannot be compared")
    n, m = len(composite), len(truth)
    x, y = composite.single, truth.single
    rows, columns = composite.values.new_zeros(n), truth.values.new_zeros(m)
    for i in range(0, n, BLOCK):
        for j in range(0, m, BLOCK):
            kernels = _kernels(x[i : i + BLOCK], y[j : j + BLOCK])
            rows[i : i + BLOCK] += kernels.sum(1, dtype=torch.float64)
            columns[j : j + BLOCK] += kernels.sum(0, dtype=torch.float64)
    first = composite.own_sums / (n - 1) - rows / m
    second = truth.own_sums / (m - 1) - columns / n
    value = float(first.mean() + second.mean())
    if n == m:
        variance = float((first + second).var()) / n
    else:
        variance = float(first.var()) / n + float(second.var()) / m
    half = 2 * 1.96 * variance**0.5
    return Interval(value, value - half, value + half, n)


def kernel_subsets(
    composite: ArrayLike, truth: ArrayLike, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> float:
    """The mean of the squared MMD over random subsets, by torch-fidelity.

    Args:
        composite: N x D.
        truth: M x D.
        subsets: How many are drawn.
        size: Images in each, of either set; at most N and M.
        seed: Of torch-fidelity's generator.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    first, second = (torch.as_tensor(x).cpu() for x in (composite, truth))
    found = kid_features_to_metric(
        first, second, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return float(found[KEY_METRIC_KID_MEAN])
