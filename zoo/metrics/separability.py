"""P-IDS and U-IDS (Zhao et al. 2021): what a linear classifier makes of truths and composites.

On the images it was fitted to, a linear SVM separates any two sets of fewer images than a few times their dimensions:
both values are then 0 whatever the images are. `held_out_scores` judges each half by a classifier of the other half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.errors import DataError
from zoo.keyed import numpy_generator

FEWEST = 4096


class Scores(NamedTuple):
    """How real each image looks to a classifier; above 0 it takes it for a truth.

    Attributes:
        composite: One score per image.
        truth: The score of the same image's truth.
    """

    composite: NDArray[np.float64]
    truth: NDArray[np.float64]

    @property
    def paired(self) -> NDArray[np.float64]:
        """1 where the composite scores more real than its own truth, else 0; the mean is P-IDS."""
        return (self.composite > self.truth).astype(np.float64)

    @property
    def paired_or_tied(self) -> NDArray[np.float64]:
        """As `paired`, with 1/2 where both score alike: the mean is 1/2 for truths against themselves, as U-IDS is."""
        tied: NDArray[np.float64] = (self.composite == self.truth) / 2.0
        return self.paired + tied

    @property
    def unpaired(self) -> NDArray[np.float64]:
        """How many of an image's two versions are mistaken, over 2; the mean is U-IDS."""
        return ((self.composite > 0).astype(np.float64) + (self.truth <= 0)) / 2


def fitted_scores(composite: ArrayLike, truth: ArrayLike) -> Scores:
    """Scores of the images that the classifier was fitted to, as in the paper.

    Args:
        composite: N x D features.
        truth: N x D, of the same images in the same order.

    Raises:
        DataError: Shapes differ.
    """
    fake, real = _pairs(composite, truth)
    return _judged(fake, real, fake, real)


def held_out_scores(composite: ArrayLike, truth: ArrayLike, seed: int = 0) -> Scores:
    """Scores of each half of the images by a classifier fitted to the other half.

    A composite and its truth are in the same half.

    Args:
        composite: N x D features, N at least 2.
        truth: N x D, of the same images in the same order.
        seed: Another seed draws other halves.

    Raises:
        DataError: Shapes differ, or there is one image only.
    """
    fake, real = _pairs(composite, truth)
    if len(fake) < 2:
        raise DataError("two halves need at least two images")
    order = numpy_generator("halves", seed, len(fake)).permutation(len(fake))
    halves = np.array_split(order, 2)
    scores = Scores(np.empty(len(fake)), np.empty(len(fake)))
    for held, used in (halves, halves[::-1]):
        scores.composite[held], scores.truth[held] = _judged(fake[used], real[used], fake[held], real[held])
    return scores


def _judged(
    fake: NDArray[np.float64], real: NDArray[np.float64], held_fake: NDArray[np.float64], held_real: NDArray[np.float64]
) -> Scores:
    from sklearn.svm import LinearSVC

    classifier = LinearSVC(dual=False, C=1.0, tol=1e-8)
    classifier.fit(np.vstack([real, fake]), np.repeat([1, 0], [len(real), len(fake)]))
    return Scores(classifier.decision_function(held_fake), classifier.decision_function(held_real))


def _pairs(composite: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    fake, real = np.asarray(composite, np.float64), np.asarray(truth, np.float64)
    if fake.ndim != 2 or fake.shape != real.shape:
        raise DataError(f"features of pairs must be N x D twice, got {fake.shape} and {real.shape}")
    return fake, real
