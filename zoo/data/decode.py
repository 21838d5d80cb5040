"""JPEG files to pixels by libjpeg-turbo, through simplejpeg: Pillow's own pixels in 0.6 of its time.

Pillow decodes with the same library, but fills an image of four bytes a pixel in pieces of 64 kB and packs it again.
With the exact DCT and smooth upsampling, simplejpeg's defaults, the two agree in every pixel; the quick variants of
both differ by up to 7 and 59 grey levels and are not used. Everything but the pixels (format, size, orientation, the
limit against decompression bombs) is still read by Pillow.

A decoder must also notice a file that ends too early. OpenCV's returns a half-grey picture for one in some of the
versions that this package allows (4.10), and none in others; simplejpeg raises for it, as for every warning of
libjpeg. Such files go to Pillow, which refuses the truncated ones and reads those with harmless oddities.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

FORMATS = frozenset({"JPEG", "MPO"})  # MPO: a JPEG with further pictures behind it
MODES = frozenset({"RGB", "L"})
ORIENTATION = 0x0112
UPRIGHT = 1


def decode_jpeg(file: BinaryIO, header: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG file, where the quick decoder gives exactly what Pillow would.

    Args:
        file: The open file; it is left where it stood.
        header: What Pillow's `Image.open` says of it, before any pixel is read.

    Returns:
        H x W x 3 uint8, or None where Pillow must decide: other formats, CMYK, pictures to be turned, and files of
        which the decoder has something to complain.
    """
    if header.format not in FORMATS or header.mode not in MODES or _turned(header):
        return None
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except ValueError:
        return None
    return pixels


def _turned(header: Image.Image) -> bool:
    return bool(header.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT)
