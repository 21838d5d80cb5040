"""Measures of one completed image against its truth, what each of them means, and intervals over many images.

Every measure is taken on the 8-bit composite, per image, over the whole image, over the hole and over a band along the
hole's edge. Names are loaded when they are asked for: the definitions need no torch, the measures nothing but torch,
intervals scipy, and `ImageMetrics` torchmetrics.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.metrics.collection import ImageMetrics
    from zoo.metrics.definitions import DEFINITIONS, Definition, versions
    from zoo.metrics.image import NAMES, per_image
    from zoo.metrics.region import band_width, regions
    from zoo.metrics.ssim import ssim_map
    from zoo.metrics.statistics import Interval, interval, paired_difference

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

_FOUND_IN = {
    "collection": ("ImageMetrics",),
    "definitions": ("DEFINITIONS", "Definition", "versions"),
    "image": ("NAMES", "per_image"),
    "region": ("band_width", "regions"),
    "ssim": ("ssim_map",),
    "statistics": ("Interval", "interval", "paired_difference"),
}


def __getattr__(name: str) -> Any:
    for module, names in _FOUND_IN.items():
        if name in names:
            return getattr(importlib.import_module(f"zoo.metrics.{module}"), name)
    raise AttributeError(f"module 'zoo.metrics' has no attribute '{name}'")
