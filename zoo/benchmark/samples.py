"""Several completions of one image: their mean, the oracle best of them, and how far apart they lie.

The oracle best takes, for each metric on its own, the sample that scores best against the truth. Nobody who completes
an image has the truth: it is the bound that choosing among the samples could reach, never a method's result, and grows
with the number of samples. Hence rows keep it under a key of its own, and reports in a table of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.metrics.definitions import DEFINITIONS, Definition

KEY = "samples"
MEAN, BEST, DIVERSITY = "mean", "oracle_best", "diversity"
MEASURED = ("l1_hole", "psnr_hole", "colour_fidelity", "shape_fidelity")
DIVERSITY_DEFINITION = Definition(
    "of several samples of one image: mean absolute difference between two of them, RGB in [0, 1], over the pixels of "
    "the hole alone and over all pairs; 0 where all samples are equal",
    "none",
    "",
    4,
)


def diversity(composites: Tensor, hole: Tensor) -> float:
    """The mean absolute difference in the hole over all pairs of samples of one image, in [0, 1].

    Args:
        composites: N 3 H W uint8.
        hole: H W bool.

    Returns:
        NaN where there is no pair or no hole.
    """
    count = len(composites)
    inside = composites[:, :, hole].flatten(1)
    if count < 2 or inside.shape[1] == 0:
        return math.nan
    # The sum over all pairs of |a - b|, from sorted values: the one of rank i is added i times and taken away
    # count - 1 - i times. Exact in integers, and no loop over pairs, of which 50 samples have 1,225.
    ranks = 2 * torch.arange(count) - (count - 1)
    total = int((inside.sort(0).values.to(torch.int64) * ranks[:, None]).sum())
    return total / (255 * inside.shape[1] * count * (count - 1) / 2)


def digest(samples: Sequence[Mapping[str, float]], spread: float) -> dict[str, Any]:
    """What a row stores of the samples of its image.

    Args:
        samples: The metrics of each sample; those not in `MEASURED` are passed over.
        spread: Their `diversity`.

    Returns:
        `n`, `diversity`, and by metric `mean` and `oracle_best`; None where any sample has no finite value.
    """
    stored: dict[str, Any] = {"n": len(samples), DIVERSITY: spread if math.isfinite(spread) else None}
    for name in MEASURED:
        values = [sample.get(name, math.nan) for sample in samples]
        if all(math.isfinite(value) for value in values):
            best = min(values) if DEFINITIONS[name].better == "lower" else max(values)
            stored[name] = {MEAN: math.fsum(values) / len(values), BEST: best}
        elif any(name in sample for sample in samples):
            stored[name] = {MEAN: None, BEST: None}
    return stored
