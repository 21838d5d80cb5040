"""Reading pictures and masks from files: every kind a camera or a tool writes, or one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from zoo.data.decode import decode_jpeg
from zoo.errors import DataError, UsageError

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Reads a picture as 8-bit RGB.

    Rotated as its EXIF orientation says. Transparency is laid over white. Palettes, greyscale and CMYK are converted;
    16-bit levels become round(v / 257). Of an animation the first frame is taken. Colour profiles are ignored.
    Pixels are Pillow's, also where `zoo.data.decode` gets them in less time.

    Returns:
        H x W x 3 uint8.

    Raises:
        DataError: The file is missing, damaged, truncated, no picture, or holds more pixels than Pillow deems safe.
    """
    with _file(path, "image") as file:
        return decode_image(file, path)


def decode_image(file: BinaryIO, where: str | Path) -> NDArray[np.uint8]:
    """As `read_image`, from an open file or from bytes in memory.

    Args:
        file: Stands at the start of the picture.
        where: What errors call it.
    """
    with _decoding(where, "image"), Image.open(file) as opened:
        pixels = decode_jpeg(file, opened)
        if pixels is not None:
            return pixels
        picture = _upright(opened)
    if picture.mode in DEEP or picture.mode == "F":
        grey = _levels(picture, where)
        return np.repeat(grey[:, :, None], 3, axis=2)
    with _decoding(where, "image"):
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.new("RGBA", layer.size, "white")
            picture.alpha_composite(layer)
        return np.array(picture.convert("RGB"))


def reduced(path: str | Path) -> str:
    """What `read_image` does not keep of a picture's levels, in words; empty where it keeps all.

    Raises:
        DataError: As of `read_image`.
    """
    with _file(path, "image") as file, _decoding(path, "image"), Image.open(file) as opened:
        # Pillow gives colours of 16 bits as 8, and says what they were only to its decoder.
        if opened.mode in DEEP or any(";16" in str(tile) for tile in opened.tile):
            return "16-bit levels become 8-bit"
        clear = opened.has_transparency_data and int(np.asarray(opened.convert("RGBA"))[..., 3].min()) < 255
        return "transparency is laid over white" if clear else ""


def read_mask(
    path: str | Path,
    size: tuple[int, int] | None = None,
    *,
    threshold: int | None = None,
    invert: bool | None = None,
    what: str = "mask",
) -> NDArray[np.uint8]:
    """Reads a mask file: white (255, or 1) is the hole, black the known part.

    Whether a mask is inverted cannot be known; one whose hole covers all but a part in the middle is refused unless
    `invert` says which it is. A mask that is all hole, or has none, is taken as it is.

    Args:
        path: The file: black and white, greyscale, or colour with equal channels.
        size: Height and width it must have, those of its image; None accepts any.
        threshold: Levels from this one (1 to 255) upwards are the hole; None accepts black and white only.
        invert: True where black marks the hole; False where white does, beyond doubt; None checks that it looks so.
        what: What errors call it: an edge map is such a file, too, white being the edge.

    Returns:
        H x W uint8 in {0, 1}, 1 = hole.

    Raises:
        DataError: The file cannot be read, has another size than its image, is grey or coloured or transparent, or
            looks inverted.
        UsageError: `threshold` is out of range.
    """
    if threshold is not None and not 1 <= threshold <= 255:
        raise UsageError(f"mask_threshold must be from 1 to 255, got {threshold}")
    with _file(path, what) as file:
        levels = _mask_levels(_load(file, path, what), path, what)
    if size is not None and levels.shape != tuple(size):
        raise DataError(
            f"the {what} is {_size(levels.shape)}, its image {_size(size)} (width x height)",
            where=str(path),
            remedy=f"save the {what} at the size of its image; nothing is resized silently",
        )
    if threshold is not None:
        hole = (levels >= threshold).astype(np.uint8)
    else:
        hole = _binary(levels, path)
    if invert:
        return 1 - hole
    if invert is None and looks_inverted(hole):
        raise DataError(
            f"the mask looks inverted: {hole.mean():.0%} of it is white, with a black part in the middle",
            where=str(path),
            remedy="white is the hole; say which it is: --invert-mask or --no-invert-mask"
            " (--data.mask_invert true or false)",
        )
    return hole


def read_segmentation(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads a map of class ids: a greyscale picture whose levels are ids, or one with a palette, whose indices are.

    Args:
        path: The file.
        size: Height and width it must have, those of its image; None accepts any.

    Returns:
        H x W uint8, 255 = unknown.

    Raises:
        DataError: The file cannot be read, is in colour, or has another size than its image.
    """
    with _file(path, "segmentation") as file:
        return decode_segmentation(file, path, size)


def decode_segmentation(file: BinaryIO, where: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """As `read_segmentation`, from an open file or from bytes in memory; `where` is what errors call it."""
    picture = _load(file, where, "segmentation")
    if picture.mode not in ("L", "P", "1"):
        raise DataError(
            f"the segmentation is a picture of mode {picture.mode}, which has no class ids",
            where=str(where),
            remedy="save it as 8-bit greyscale or with a palette: level or index is the class id, 255 unknown",
        )
    classes = np.array(picture).astype(np.uint8)
    if size is not None and classes.shape != tuple(size):
        raise DataError(
            f"the segmentation is {_size(classes.shape)}, its image {_size(size)} (width x height)",
            where=str(where),
            remedy="save it at the size of its image; nothing is resized silently",
        )
    return classes


def looks_inverted(hole: NDArray[np.uint8]) -> bool:
    """Whether a mask is probably the wrong way round: over 95 % hole, or over half of it with the whole border.

    Args:
        hole: H x W in {0, 1}. All ones is no inversion but a mask without known pixels.
    """
    ratio = float(hole.mean())
    border = bool(hole[0].all() and hole[-1].all() and hole[:, 0].all() and hole[:, -1].all())
    return ratio < 1.0 and (ratio > 0.95 or (ratio > 0.5 and border))


@contextmanager
def _decoding(path: str | Path, what: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata of a picture that reads well
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"the {what} has more pixels than is safe to decode", where=str(path), remedy="scale it down first"
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file provokes: OSError, SyntaxError, struct.error
        raise DataError(f"the {what} cannot be read: {error}", where=str(path), remedy="get this file again") from error


def _file(path: str | Path, what: str) -> BinaryIO:
    if not Path(path).is_file():
        raise DataError(f"there is no {what} here", where=str(path), remedy="check the path")
    with _decoding(path, what):
        return Path(path).open("rb")


def _load(file: BinaryIO, where: str | Path, what: str) -> Image.Image:
    with _decoding(where, what), Image.open(file) as opened:
        return _upright(opened)


def _upright(opened: Image.Image) -> Image.Image:
    opened.load()
    return ImageOps.exif_transpose(opened)


def _levels(picture: Image.Image, path: str | Path) -> NDArray[np.uint8]:
    """Deep greyscale as 8-bit levels."""
    deep = np.asarray(picture)
    if picture.mode == "F" or deep.size == 0 or deep.min() < 0 or deep.max() > 65535:
        raise DataError(
            "the picture has no 8-bit or 16-bit levels (floating point, or 32-bit)",
            where=str(path),
            remedy="save it with 8 or 16 bits a channel",
        )
    levels: NDArray[np.uint8] = ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return levels


def _mask_levels(picture: Image.Image, path: str | Path, what: str) -> NDArray[np.uint8]:
    if picture.mode in DEEP or picture.mode == "F":
        return _levels(picture, path)
    white = "hole" if what == "mask" else what
    with _decoding(path, what):
        opacity = np.asarray(picture.convert("RGBA"))[..., 3] if picture.has_transparency_data else None
        colours = np.asarray(picture.convert("RGB"))
    if opacity is not None and opacity.min() < 255:
        raise DataError(
            f"the {what} is transparent, which leaves open what is the {white}",
            where=str(path),
            remedy="save it in black and white, without an alpha channel",
        )
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"the {what} has colours", where=str(path), remedy=f"save it in black and white, white = {white}"
        )
    return np.ascontiguousarray(colours[..., 0])


def _binary(levels: NDArray[np.uint8], path: str | Path) -> NDArray[np.uint8]:
    found = np.unique(levels)
    for white in (255, 1):
        if np.isin(found, (0, white)).all():
            hole: NDArray[np.uint8] = (levels == white).astype(np.uint8)
            return hole
    raise DataError(
        f"the mask is grey: {len(found)} levels from {found[0]} to {found[-1]}",
        where=str(path),
        remedy="save it in black and white (PNG, not JPEG), or make lighter levels the hole: --mask-threshold 128"
        " (--data.mask_threshold 128)",
    )


def _size(shape: Any) -> str:
    return f"{shape[1]}x{shape[0]}"
