"""Writing pictures whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """An image (H W 3 or H W, uint8) as PNG: lossless, and without metadata, so that equal images are equal files."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(image: NDArray[np.uint8], path: Path) -> None:
    """Writes an image as PNG, through a temporary file beside it.

    Raises:
        OSError: The disk is full or not writable; nothing is left behind.
    """
    from zoo.weights import write_atomically

    write_atomically(path, png_bytes(image))
