"""Measures of one completed image against its truth, what each of them means, and intervals over many images.

Every measure is taken on the 8-bit composite, per image, over the whole image, over the hole and over a band along the
hole's edge. Importing this package needs torch and nothing heavier: scipy and torchmetrics are imported where they are
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.metrics.definitions import DEFINITIONS, Definition, versions
from zoo.metrics.image import NAMES, per_image
from zoo.metrics.regions import band_width, regions
from zoo.metrics.ssim import ssim_map
from zoo.metrics.statistics import Interval, interval, paired_difference

if TYPE_CHECKING:
    from zoo.metrics.collection import ImageMetrics

__all__ = [
    "DEFINITIONS",
    "NAMES",
    "Definition",
    "ImageMetrics",
    "Interval",
    "band_width",
    "interval",
    "paired_difference",
    "per_image",
    "regions",
    "ssim_map",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name == "ImageMetrics":  # torchmetrics takes seconds to import, and the benchmark does without
        from zoo.metrics.collection import ImageMetrics

        return ImageMetrics
    raise AttributeError(f"module 'zoo.metrics' has no attribute '{name}'")
