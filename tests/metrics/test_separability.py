"""P-IDS and U-IDS: agreed values, their edge cases, and the halves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from zoo.errors import DataError
from zoo.metrics.separability import Scores, fitted_scores, held_out_scores

Array = NDArray[np.float64]


def agreed() -> tuple[Array, Array]:
    """Composites and truths."""
    generator = np.random.default_rng(0)
    a = generator.normal(size=(600, 64))
    b = 1.1 * generator.normal(size=(500, 64)) + 0.05
    return 0.9 * a[:500] + 0.3 * b, a[:500]


def test_agreed_values() -> None:
    scores = fitted_scores(*agreed())
    assert scores.unpaired.mean() == pytest.approx(0.4470)
    assert scores.paired.mean() == pytest.approx(0.312)


def test_u_ids_is_the_error_of_the_classifier() -> None:
    fake, real = agreed()
    features, labels = np.vstack([real, fake]), np.repeat([1, 0], 500)
    classifier = LinearSVC(dual=False, C=1.0, tol=1e-8).fit(features, labels)
    assert fitted_scores(fake, real).unpaired.mean() == pytest.approx(1 - classifier.score(features, labels))


def test_scores_by_hand() -> None:
    scores = Scores(np.array([1.0, -1.0, 2.0, -2.0]), np.array([0.5, 1.0, 2.0, -3.0]))
    assert scores.paired.tolist() == [1.0, 0.0, 0.0, 1.0]  # a tie is no win
    assert scores.unpaired.tolist() == [0.5, 0.0, 0.5, 0.5]


def test_identical_sets_and_few_images() -> None:
    generator = np.random.default_rng(4)
    truth = generator.normal(size=(300, 16))
    scores = fitted_scores(truth, truth)
    assert (scores.unpaired.mean(), scores.paired.mean()) == (0.5, 0.0)
    wide = generator.normal(size=(2, 100, 400))  # fewer images than dimensions, of one distribution
    scores = fitted_scores(*wide)
    assert (scores.unpaired.mean(), scores.paired.mean()) == (0.0, 0.0)
    crossed = held_out_scores(*wide)
    assert crossed.unpaired.mean() == pytest.approx(0.5, abs=0.12)
    assert crossed.paired.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("n", [60, 400])
def test_halves_give_a_half_where_nothing_differs(n: int) -> None:
    values = []
    for seed in range(20):
        fake, real = np.random.default_rng(seed).normal(size=(2, n, 24))
        values.append([held_out_scores(fake, real).unpaired.mean(), held_out_scores(fake, real).paired.mean()])
    assert np.mean(values, 0) == pytest.approx([0.5, 0.5], abs=0.03)


def test_halves_still_see_a_difference() -> None:
    generator = np.random.default_rng(5)
    real = generator.normal(size=(200, 24))
    assert held_out_scores(real + 2.0, real).unpaired.mean() == 0.0
    assert held_out_scores(real + 0.2, real).unpaired.mean() < 0.5


def test_each_image_is_judged_by_the_other_half() -> None:
    generator = np.random.default_rng(6)
    fake, real = generator.normal(size=(2, 40, 60))
    scores = held_out_scores(fake, real, seed=3)
    changed = fake.copy()
    changed[0] += 100.0
    moved = held_out_scores(changed, real, seed=3)
    same = scores.truth == moved.truth
    # What is fitted without image 0 is judged as before: the half that image 0 is in.
    assert same[0]
    assert same.sum() == 20
    assert (held_out_scores(fake, real, seed=4).truth != scores.truth).any()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="N x D twice"):
        fitted_scores(np.eye(3), np.eye(4))
    with pytest.raises(DataError, match="N x D twice"):
        held_out_scores(np.zeros(4), np.zeros(4))
    with pytest.raises(DataError, match="two images"):
        held_out_scores(np.zeros((1, 4)), np.zeros((1, 4)))
