"""The metrics of a set of images: what the features of the composites and of their truths say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from zoo.errors import DataError
from zoo.metrics.definitions import STAND_IN
from zoo.metrics.frechet import RESAMPLES, frechet_interval
from zoo.metrics.kernel import SUBSET_SIZE, KernelFeatures, kernel_distance, kernel_subsets
from zoo.metrics.separability import FEWEST, Scores, fitted_scores, held_out_scores
from zoo.metrics.sources import Skipped, importable
from zoo.metrics.statistics import Interval, interval
from zoo.metrics.store import Stored

EXTRACTORS = {
    "fid_tf": "inception_tf",
    "fid_clean": "inception_clean",
    **dict.fromkeys(("kid", "kid_subsets", "p_ids", "u_ids", "p_ids_cross", "u_ids_cross"), "inception_tf"),
}
"""Whose features each metric is taken of."""


class Truths:
    """The features of truths, with what they need to be compared again and again.

    Args:
        stored: Their features.
    """

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    @cached_property
    def features(self) -> KernelFeatures:
        """The features themselves, N of at least 2."""
        return KernelFeatures(self.stored.values)


def extractor_of(name: str) -> str:
    """The extractor of a metric of sets; that of a stand-in ends as the metric does."""
    base = name.removesuffix(STAND_IN)
    return EXTRACTORS[base] + (STAND_IN if name.endswith(STAND_IN) else "")


def distribution(
    names: Iterable[str], composite: Stored, truth: Truths | Stored, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | Skipped]:
    """Takes metrics of one set of composites against the truths of the same images.

    Give a `Truths` where several methods meet the same truths: their covariance and kernels are then taken once.

    Args:
        names: Metrics of one extractor, in `EXTRACTORS`, or their stand-ins.
        composite: Features of the composites.
        truth: Features of the truths, of the same ids.
        resamples: Of the Frechet distance's interval; each costs as much as the distance itself.
        seed: Of resamples and halves.

    Returns:
        By name, value and interval (`lo` and `hi` are NaN where there is none), or why it is not computed.

    Raises:
        DataError: The ids differ, or the features are damaged.
    """
    truths = truth if isinstance(truth, Truths) else Truths(truth)
    if composite.ids != truths.stored.ids:
        raise DataError(
            f"features of {len(composite.ids)} composites and of {len(truths.stored.ids)} truths are not of the same "
            "images",
            remedy="read both of the ids that both have",
        )
    if len(composite.ids) < 2:
        return {name: Skipped(f"it needs two images at least, there are {len(composite.ids)}") for name in names}
    return _Comparison(composite, truths, resamples, seed).all(names)


class _Comparison:
    """Two sets, with what several metrics share."""

    def __init__(self, composite: Stored, truth: Truths, resamples: int, seed: int) -> None:
        self.fake, self.real = composite.values, truth.stored.values
        self.features, self.truth = KernelFeatures(composite.values), truth.features
        self.resamples, self.seed, self.n = resamples, seed, len(composite.ids)
        self._scores: dict[str, Scores] = {}

    def all(self, names: Iterable[str]) -> dict[str, Interval | Skipped]:
        return {name: self._one(name.removesuffix(STAND_IN)) for name in names}

    def _one(self, name: str) -> Interval | Skipped:
        if name in ("fid_tf", "fid_clean"):
            return frechet_interval(self.features, self.truth, self.seed, self.resamples)
        if name == "kid":
            return kernel_distance(self.features, self.truth)
        if name == "kid_subsets":
            return self._subsets()
        return self._separability(name)

    def _subsets(self) -> Interval | Skipped:
        if self.n < SUBSET_SIZE:
            return Skipped(
                f"subsets of {SUBSET_SIZE:,} images need as many, there are {self.n:,}", "kid takes all pairs at any n"
            )
        if absent := importable("torch_fidelity"):
            return absent
        return Interval(kernel_subsets(self.fake, self.real), float("nan"), float("nan"), self.n)

    def _separability(self, name: str) -> Interval | Skipped:
        crossed = name.endswith("_cross")
        if not crossed and self.n < FEWEST:
            return Skipped(
                f"it needs {FEWEST:,} images, there are {self.n:,}: fewer than twice its dimensions are separated by a "
                "line whatever they are, and the value would be 0",
                f"{name}_cross has no such limit",
            )
        if absent := importable("sklearn.svm"):
            return absent
        scores = self._scored("crossed" if crossed else "fitted")
        if name.startswith("u_ids"):
            return interval(scores.unpaired, seed=self.seed)
        return interval(scores.paired_or_tied if crossed else scores.paired, seed=self.seed)

    def _scored(self, how: str) -> Scores:
        if how not in self._scores:
            judge: dict[str, Callable[[], Scores]] = {
                "fitted": lambda: fitted_scores(self.fake, self.real),
                "crossed": lambda: held_out_scores(self.fake, self.real, self.seed),
            }
            self._scores[how] = judge[how]()
        return self._scores[how]
