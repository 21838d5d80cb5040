"""The palette of the objects, and sRGB to CIE Lab (1976) and back for the D65 white point, 2 degree observer.

Formulas: IEC 61966-2-1 (sRGB transfer curve and primaries) and CIE 15 (Lab). The same numbers as
`skimage.color.rgb2lab`, without the dependency.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Tones(NamedTuple):
    """A named colour: its `main` tone fills more than half of an object, its `second` is what stripes and dots are."""

    main: tuple[int, int, int]
    second: tuple[int, int, int]


# Main tones are at least 40 apart in Lab; a second tone is nearer to its own main tone than to any other and than to
# any background.
PALETTE: dict[str, Tones] = {
    "red": Tones((218, 36, 38), (160, 14, 28)),
    "orange": Tones((255, 138, 20), (214, 100, 0)),
    "yellow": Tones((250, 222, 40), (212, 178, 0)),
    "green": Tones((44, 160, 52), (18, 112, 34)),
    "cyan": Tones((30, 208, 222), (0, 164, 186)),
    "blue": Tones((25, 92, 215), (80, 142, 250)),
    "purple": Tones((150, 44, 182), (190, 92, 222)),
    "pink": Tones((255, 128, 190), (228, 72, 150)),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27


def _linear(value: Floats) -> Floats:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR_OF_BYTE = _linear(np.arange(256) / 255.0)


def lab(rgb: ArrayLike) -> Floats:
    """sRGB to Lab.

    Args:
        rgb: ... x 3, uint8, or floats in 0..255 (clipped).

    Returns:
        ... x 3 float64: L in 0..100, a and b about -110..110.
    """
    values = np.asarray(rgb)
    linear = _LINEAR_OF_BYTE[values] if values.dtype == np.uint8 else _linear(np.clip(values, 0, 255) / 255.0)
    relative = linear @ (_TO_XYZ / _WHITE[:, None]).T
    f = np.where(relative > _EPSILON, np.cbrt(relative), (_KAPPA * relative + 16) / 116)
    out: Floats = f @ _TO_LAB.T
    out[..., 0] -= 16
    return out


def rgb(lightness: float, chroma: float, hue: float) -> Floats:
    """Lab in polar form (hue in radians) to sRGB, float64 in 0..255, clipped to the gamut channel by channel."""
    y = (lightness + 16) / 116
    f = np.array([y + chroma * np.cos(hue) / 500, y, y - chroma * np.sin(hue) / 200])
    relative = np.where(f**3 > _EPSILON, f**3, (116 * f - 16) / _KAPPA)
    linear = np.clip(np.linalg.inv(_TO_XYZ) @ (relative * _WHITE), 0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(255 * value, np.float64)


PALETTE_LAB: Floats = lab([PALETTE[name].main for name in COLOURS])
