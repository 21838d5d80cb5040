"""Canny edges of an image, on whatever device it is on."""

from __future__ import annotations

import torch
from torch import Tensor

# cv2.Canny's usual 100 and 200 of 255. kornia's Sobel is not normalised either, so the numbers carry over.
LOW, HIGH = 100 / 255, 200 / 255
WEAK, STRONG = 0.25, 0.75  # kornia marks weak edges with 0.5, strong ones with 1
ROUNDS = 4  # pixels that edges grow between two looks at whether they still do: a look waits for the device


def canny(image: Tensor, low: float = LOW, high: float = HIGH, blur: int = 1) -> Tensor:
    """Canny edges (Canny 1986, kornia's implementation), one map per image.

    Computed in float32 whatever the surrounding precision: under bfloat16 thresholds move and edges break. An image's
    edges do not depend on the rest of its batch.

    Args:
        image: B 3 H W in [0, 1].
        low: Gradient magnitude from which a pixel that touches an edge belongs to it.
        high: Gradient magnitude from which a pixel is an edge.
        blur: Side of the Gaussian blur before it (sigma 1), odd; 1 blurs nothing, as `cv2.Canny` does.

    Returns:
        B 1 H W float32 in {0, 1}.
    """
    from kornia.filters import canny as kornia_canny  # 1.6 s to import, and only methods that need edges come here

    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        _, edges = kornia_canny(image.float(), low, high, (blur, blur), (1.0, 1.0), hysteresis=False)
    return _connected(edges > STRONG, edges > WEAK).to(torch.float32)


def _connected(strong: Tensor, weak: Tensor) -> Tensor:
    """The weak pixels that a path of weak ones links to a strong one, B 1 H W bool.

    kornia's own hysteresis finds the same ones and takes ten times as long: a training step waits for it.
    """
    while True:
        before = strong
        for _ in range(ROUNDS):
            wide = strong.clone()
            wide[..., 1:] |= strong[..., :-1]
            wide[..., :-1] |= strong[..., 1:]
            strong = wide.clone()
            strong[..., 1:, :] |= wide[..., :-1, :]
            strong[..., :-1, :] |= wide[..., 1:, :]
            strong &= weak
        if torch.equal(strong, before):
            return strong
