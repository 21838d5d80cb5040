"""Where datasets lie when nobody names a folder."""

from __future__ import annotations

import os
from pathlib import Path


def default_root(name: str) -> Path:
    """`$ZOO_DATA/NAME`, or `data/NAME` here where ZOO_DATA is not set.

    Args:
        name: The short name of a dataset.
    """
    return Path(os.environ.get("ZOO_DATA") or "data") / name
