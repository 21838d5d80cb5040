"""The per-image metrics as a `torchmetrics.Metric`, for validation loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.metrics.image import NAMES, per_image


class ImageMetrics(Metric):  # type: ignore[misc]  # torchmetrics is not followed by the type checker
    """Means of `per_image` over all images seen, on all ranks together.

    Every mean is over the images for which the value is defined, so that a last, shorter batch weighs what it holds.
    `update` takes the arguments of `per_image`; `compute` gives each name of `NAMES` a float64 scalar, NaN where no
    image defined it.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("total", "count"):
            self.add_state(state, torch.zeros(len(NAMES), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, composite: Tensor, truth: Tensor, mask: Tensor, raw: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            composite: B 3 H W uint8.
            truth: B 3 H W uint8.
            mask: B 1 H W in {0, 1}, 1 = hole.
            raw: B 3 H W float in [0, 1], or None.
        """
        values = torch.stack(list(per_image(composite, truth, mask, raw).values()))
        missing = (0, 0, 0, len(NAMES) - len(values))  # without a raw output its change, the last name, is missing
        self.total = self.total + torch.nn.functional.pad(values.nansum(1, keepdim=True), missing)[:, 0]
        self.count = self.count + torch.nn.functional.pad((~values.isnan()).sum(1, keepdim=True), missing)[:, 0]

    def compute(self) -> dict[str, Tensor]:
        """The means over all updates."""
        return dict(zip(NAMES, self.total / self.count, strict=True))
