"""inpainting-zoo: published image-inpainting methods under one data contract.

`import zoo` imports no torch; `zoo.load("deepfill")` does.
"""

from __future__ import annotations

import importlib
from typing import Any

from zoo.version import __version__

_LAZY = {
    "load": ("zoo.models", "load"),
    "build": ("zoo.models", "build"),
    "Batch": ("zoo.batch", "Batch"),
    "InpaintingModule": ("zoo.module", "InpaintingModule"),
    "Completed": ("zoo.module", "Completed"),
    "ZooError": ("zoo.errors", "ZooError"),
    "open_dataset": ("zoo.data", "open_dataset"),
    "draw_mask": ("zoo.masks", "draw_mask"),
    "models": ("zoo.models", ""),
    "datasets": ("zoo.data", ""),
    "masks": ("zoo.masks", ""),
    "metrics": ("zoo.metrics", ""),
}

__all__ = ["__version__", *_LAZY]  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted(__all__)
