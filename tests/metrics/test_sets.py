"""The metrics of sets: each by its name, what is refused and why, what is shared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.metrics import DEFINITIONS, Interval, Skipped, Stored, Truths, distribution, extractor_of, interval, sets
from zoo.metrics.frechet import Features, frechet_interval
from zoo.metrics.kernel import KernelFeatures, kernel_distance, kernel_subsets
from zoo.metrics.separability import fitted_scores, held_out_scores

NAMES = tuple(name for name, definition in DEFINITIONS.items() if definition.of == "set")
Rows = NDArray[np.float32]


def stored(values: Rows) -> Stored:
    names = [f"{k:06d}" for k in range(len(values))]
    return Stored(names, values, names)


def pair(n: int, width: int = 16) -> tuple[Rows, Rows]:
    generator = np.random.default_rng(0)
    truth = np.maximum(generator.normal(size=(n, width)), 0).astype(np.float32)
    return (truth + 0.4 * generator.normal(size=truth.shape)).astype(np.float32), truth


def test_every_metric_of_sets_has_an_extractor() -> None:
    assert set(NAMES) == set(sets.EXTRACTORS)
    assert extractor_of("fid_clean") == "inception_clean"
    assert extractor_of("kid_stand-in") == "inception_tf_stand-in"


def test_values_are_those_of_their_parts() -> None:
    fake, real = pair(60)
    found = distribution(NAMES, stored(fake), stored(real), resamples=3, seed=5)
    assert found["fid_tf"] == frechet_interval(Features(fake), Features(real), 5, 3)
    assert found["fid_clean"] == found["fid_tf"]  # another network's features, the same distance
    assert found["kid"] == kernel_distance(KernelFeatures(fake), KernelFeatures(real))
    crossed = held_out_scores(fake, real, 5)
    assert found["p_ids_cross"] == interval(crossed.paired_or_tied, seed=5)
    assert found["u_ids_cross"] == interval(crossed.unpaired, seed=5)
    assert all(value.n == 60 for value in found.values() if isinstance(value, Interval))


def test_too_few_images_are_skipped_with_the_reason() -> None:
    found = distribution(NAMES, *map(stored, pair(60)), resamples=0)
    skipped = {name: value for name, value in found.items() if isinstance(value, Skipped)}
    assert set(skipped) == {"kid_subsets", "p_ids", "u_ids"}
    assert "4,096 images, there are 60" in skipped["p_ids"].reason
    assert skipped["u_ids"].remedy == "u_ids_cross has no such limit"
    assert "1,000 images need as many, there are 60" in skipped["kid_subsets"].reason
    one = distribution(NAMES, *map(stored, pair(1)))
    assert all(isinstance(value, Skipped) and "two images" in value.reason for value in one.values())


def test_the_limits_themselves() -> None:
    fake, real = pair(4096, 8)
    found = distribution(("p_ids", "u_ids", "kid_subsets"), stored(fake), stored(real))
    scores = fitted_scores(fake, real)
    assert found["p_ids"] == interval(scores.paired)
    assert found["u_ids"] == interval(scores.unpaired)
    subsets = found["kid_subsets"]
    assert isinstance(subsets, Interval)
    assert subsets.mean == kernel_subsets(fake, real)
    assert math.isnan(subsets.lo)
    less = distribution(("p_ids",), stored(fake[:4095]), stored(real[:4095]))
    assert isinstance(less["p_ids"], Skipped)


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "importable", lambda module: Skipped(f"{module} is not installed", "install it"))
    found = distribution(NAMES, *map(stored, pair(4096, 4)), resamples=0)
    assert found["u_ids_cross"] == Skipped("sklearn.svm is not installed", "install it")
    assert found["kid_subsets"] == Skipped("torch_fidelity is not installed", "install it")
    assert isinstance(found["fid_tf"], Interval)
    assert isinstance(found["kid"], Interval)


def test_truth_against_itself() -> None:
    real = stored(pair(80)[1])
    found = distribution(("fid_tf", "kid", "u_ids_cross", "p_ids_cross"), real, real)
    assert all(isinstance(value, Interval) for value in found.values())
    assert 0 <= found["fid_tf"][0] < 1e-6  # type: ignore[operator, arg-type]
    assert found["kid"][0] == pytest.approx(0, abs=0.05)
    assert found["u_ids_cross"][0] == 0.5
    assert found["p_ids_cross"][0] == 0.5  # ties count half, which they did not in its first revision
    assert DEFINITIONS["p_ids_cross"].revision == "2"
    assert DEFINITIONS["u_ids_cross"].revision == "1"


def test_truths_are_prepared_once() -> None:
    fake, real = pair(60)
    truths = Truths(stored(real))
    first = distribution(("kid", "fid_tf"), stored(fake), truths)
    kept = truths.features.own_sums
    assert distribution(("kid", "fid_tf"), stored(fake), truths) == first
    assert truths.features.own_sums is kept
    assert distribution(("kid", "fid_tf"), stored(fake), stored(real)) == first


def test_stand_ins_are_computed_alike_and_named_so() -> None:
    fake, real = map(stored, pair(60))
    found = distribution(("kid_stand-in", "p_ids_stand-in"), fake, real)
    assert found["kid_stand-in"] == distribution(("kid",), fake, real)["kid"]
    assert isinstance(found["p_ids_stand-in"], Skipped)


def test_other_images_are_refused() -> None:
    fake, real = map(stored, pair(10))
    with pytest.raises(DataError, match="not of the same images"):
        distribution(("kid",), fake, Stored(real.ids[:9], real.values[:9], real.digests[:9]))
