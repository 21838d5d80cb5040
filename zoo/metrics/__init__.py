"""Measures of completed images against their truths, what each of them means, and statistics over many images.

Every measure is taken on the 8-bit composite. `per_image` measures each image by itself, over the whole image, over the
hole and over a band along the hole's edge: what every run has. What else is asked for goes three steps: `ask` says what
can be taken here and what its values depend on; `Suite` measures images and takes features; `distribution` makes the
metrics of sets out of features that a `FeatureStore` keeps. `compare`, `ranks` and `bands` set methods side by side.

Names are loaded when they are asked for: the definitions need no torch, the measures nothing but torch, intervals
scipy, and what works with feature networks the libraries of the extra `metrics`, when it is set up.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.metrics.asked import GROUPS, Asked, ask
    from zoo.metrics.collection import ImageMetrics
    from zoo.metrics.comparison import (
        Band,
        Comparison,
        bands,
        bootstrap_means,
        compare,
        holm,
        intervals,
        ranks,
        win_rates,
    )
    from zoo.metrics.definitions import DEFINITIONS, STAND_IN, Definition, definition, versions
    from zoo.metrics.image import NAMES, per_image
    from zoo.metrics.region import band_width, regions
    from zoo.metrics.sets import Truths, distribution, extractor_of
    from zoo.metrics.sources import PUBLISHED, Located, Skipped, locate, parse_files
    from zoo.metrics.ssim import ssim_map
    from zoo.metrics.statistics import Interval, interval, paired_difference
    from zoo.metrics.store import Extractor, FeatureStore, Stored, pixel_digest
    from zoo.metrics.suite import Suite
    from zoo.metrics.tdanet import PROTOCOL_NAMES, protocols

_FOUND_IN = {
    "asked": (
        "GROUPS",
        "Asked",
        "ask",
    ),
    "collection": ("ImageMetrics",),
    "comparison": (
        "Band",
        "Comparison",
        "bands",
        "bootstrap_means",
        "compare",
        "holm",
        "intervals",
        "ranks",
        "win_rates",
    ),
    "definitions": (
        "DEFINITIONS",
        "STAND_IN",
        "Definition",
        "definition",
        "versions",
    ),
    "sets": (
        "Truths",
        "distribution",
        "extractor_of",
    ),
    "image": (
        "NAMES",
        "per_image",
    ),
    "tdanet": (
        "PROTOCOL_NAMES",
        "protocols",
    ),
    "region": (
        "band_width",
        "regions",
    ),
    "sources": (
        "PUBLISHED",
        "Located",
        "Skipped",
        "locate",
        "parse_files",
    ),
    "ssim": ("ssim_map",),
    "statistics": (
        "Interval",
        "interval",
        "paired_difference",
    ),
    "store": (
        "Extractor",
        "FeatureStore",
        "Stored",
        "pixel_digest",
    ),
    "suite": ("Suite",),
}

__all__ = [
    "DEFINITIONS",
    "GROUPS",
    "NAMES",
    "PROTOCOL_NAMES",
    "PUBLISHED",
    "STAND_IN",
    "Asked",
    "Band",
    "Comparison",
    "Definition",
    "Extractor",
    "FeatureStore",
    "ImageMetrics",
    "Interval",
    "Located",
    "Skipped",
    "Stored",
    "Suite",
    "Truths",
    "ask",
    "band_width",
    "bands",
    "bootstrap_means",
    "compare",
    "definition",
    "distribution",
    "extractor_of",
    "holm",
    "interval",
    "intervals",
    "locate",
    "paired_difference",
    "parse_files",
    "per_image",
    "pixel_digest",
    "protocols",
    "ranks",
    "regions",
    "ssim_map",
    "versions",
    "win_rates",
]


def __getattr__(name: str) -> Any:
    for module, names in _FOUND_IN.items():
        if name in names:
            return getattr(importlib.import_module(f"zoo.metrics.{module}"), name)
    raise AttributeError(f"module 'zoo.metrics' has no attribute '{name}'")
