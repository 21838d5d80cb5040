"""NVIDIA's irregular masks (Liu et al. 2018), read from their files.

    $ZOO_NVIDIA_MASKS or $ZOO_DATA/nvidia_masks or data/nvidia_masks/**/*.png

Of the official archive `test_mask.zip`: 12,000 files of 512 x 512, six buckets of hole ratios from 1-10 to 50-60 %,
half of each with all holes at least 50 pixels from the border. In these files white is the hole. (Those of the training
set are raw and must be augmented first; they are not meant.)
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from zoo.errors import DataError
from zoo.masks.canvas import Canvas, Mask

BORDER = 50 / 512  # of the side: within it lies a hole of `border`, and none of `noborder`
PAGE = "https://nv-adlr.github.io/publication/partialconv-inpainting"
REMEDY = (
    f"from {PAGE} get the testing masks (test_mask.zip, 12,000 files), unpack them,"
    " and name the folder with ZOO_NVIDIA_MASKS, or put it at $ZOO_DATA/nvidia_masks"
)


def default_root() -> Path:
    """Where the files are: `$ZOO_NVIDIA_MASKS`, else `$ZOO_DATA/nvidia_masks`, else `data/nvidia_masks`."""
    return Path(os.environ.get("ZOO_NVIDIA_MASKS") or Path(os.environ.get("ZOO_DATA") or "data") / "nvidia_masks")


def nvidia(canvas: Canvas, kind: str, seed: int, low: float, high: float, border: bool | None = None) -> Mask:
    """A file whose hole takes a share in (low, high] once it has the image's size, mirrored at random in both axes.

    Files are tried in a keyed order, so each that fits is as likely. A file is brought to the image's height and width
    by its nearest pixels. Where the files change, so do the masks: a manifest pins them.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed it keys the mask.
        seed: The seed.
        low: Percent of the area, excluded.
        high: Percent of the area, included.
        border: True: a hole within 50 of 512 pixels of the border; False: none; None: either.

    Raises:
        DataError: No folder, no files, a file that is damaged or looks inverted, or none that fits.
        UsageError: No number of pixels of this image lies in the bucket.
    """
    least, most = canvas.bucket(low, high)
    folder = default_root()
    if not folder.is_dir():
        raise DataError("there is no folder of NVIDIA's irregular masks", str(folder), REMEDY)
    files = _files(str(folder))
    if not files:
        raise DataError("there are no mask files (*.png) in this folder", str(folder), REMEDY)
    rng = canvas.rng(kind, seed)
    mirrored = rng.integers(2, size=2).tolist()
    for index in rng.permutation(len(files)).tolist():
        count, near = _facts(files[index], canvas.height, canvas.width)
        if least <= count <= most and border in (None, near):
            mask = _fit(_read(files[index]), canvas.height, canvas.width)
            return np.ascontiguousarray(mask[:: 1 - 2 * mirrored[0], :: 1 - 2 * mirrored[1]])
    wanted = {None: "", True: " near the border", False: " away from the border"}[border]
    raise DataError(f"none of {len(files)} masks has a hole of {low:g} to {high:g} %{wanted}", str(folder), REMEDY)


@functools.lru_cache(maxsize=8)
def _files(folder: str) -> list[str]:
    return [str(path) for path in sorted(Path(folder).rglob("*.png"))]


@functools.lru_cache(maxsize=1 << 17)
def _facts(path: str, height: int, width: int) -> tuple[int, bool]:
    """Hole pixels at a size, and whether a hole is near the border; kept, since most files are looked at in vain."""
    hole = _read(path)
    down, right = (round(BORDER * length) for length in hole.shape)
    inside = hole[down : hole.shape[0] - down, right : hole.shape[1] - right]
    return int(_fit(hole, height, width).sum()), bool(hole.sum() > inside.sum())


def _fit(hole: Mask, height: int, width: int) -> Mask:
    rows = ((np.arange(height) + 0.5) * hole.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * hole.shape[1] / width).astype(np.intp)
    fitted: Mask = hole[rows[:, None], columns]
    return fitted


def _read(path: str) -> Mask:
    import cv2

    levels = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if levels is None:
        raise DataError("a mask file cannot be read", path, "unpack or download it again")
    hole: Mask = (levels > 127).astype(np.uint8)
    rim = (hole[0], hole[-1], hole[:, 0], hole[:, -1])
    if all(line.all() for line in rim):  # as an inverted file without holes at the border
        raise DataError("this mask looks inverted: white is the hole in NVIDIA's testing masks", path, REMEDY)
    return hole
