"""What the networks are shown of an image: hints, the mask of its latents, and the image that the known ones are of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.compose import GREY, hide, shrink_mask
from zoo.errors import UsageError, unknown_name

HINTS = {"neg1": 3, "rgbm": 4, "rgbm_neg1": 4}  # channels
LATENT_MASKS = ("max", "area", "nearest")
KNOWN = ("filled", "masked", "gt")
SWEEPS = 8  # of averaging at each size


def inpainting_hint(image: Tensor, mask: Tensor, kind: str = "neg1") -> Tensor:
    """The hint of the inpainting branch, in [0, 1] where known.

    Args:
        image: B 3 H W in [0, 1]; what lies in the hole is not looked at.
        mask: B 1 H W in {0, 1}, 1 = hole.
        kind: `neg1`: the hole is -1 in all channels, as `control_v11p_sd15_inpaint` was trained. `rgbm`: the hole is
            0, and the mask is a fourth channel. `rgbm_neg1`: a fourth channel, and the hole stays -1, for networks of
            four channels that start from three-channel weights.

    Returns:
        B 3 H W, or B 4 H W.

    Raises:
        UsageError: No such kind.
    """
    if kind not in HINTS:
        raise unknown_name("hint", kind, list(HINTS))
    shown = hide(image, mask, 0.0 if kind == "rgbm" else -1.0)
    return shown if kind == "neg1" else torch.cat([shown, mask.to(shown.dtype)], 1)


def edge_hint(edge: Tensor) -> Tensor:
    """The teacher's hint: Canny edges of the whole truth in three equal channels.

    Args:
        edge: B 1 H W in {0, 1}, as batches hold it.
    """
    return edge.expand(-1, 3, -1, -1)


def latent_mask(mask: Tensor, factor: int, kind: str = "max") -> Tensor:
    """The mask of latent cells, B 1 H/factor W/factor.

    Args:
        mask: B 1 H W in {0, 1}, H and W multiples of `factor`.
        factor: Pixels of a cell along each side.
        kind: `max`: a cell is a hole if any of its pixels is. `area`: its share of hole pixels, so that thin strokes
            are mostly known (the released code). `nearest`: its first pixel, which loses thin strokes (diffusers).

    Raises:
        UsageError: No such kind.
    """
    if kind not in LATENT_MASKS:
        raise unknown_name("latent mask", kind, list(LATENT_MASKS))
    if kind == "max":
        return shrink_mask(mask, factor)
    return F.avg_pool2d(mask, factor) if kind == "area" else mask[..., ::factor, ::factor]


def known_image(image: Tensor, mask: Tensor, kind: str = "filled") -> Tensor:
    """The image whose latents are the known ones, B 3 H W in [0, 1].

    An encoder looks beyond a latent cell, so that what lies in the hole changes known latents, too.

    Args:
        image: B 3 H W in [0, 1].
        mask: B 1 H W in {0, 1}, 1 = hole.
        kind: `filled`: the hole is filled from its surroundings. `masked`: it is mid-grey. `gt`: the image as it is,
            which lets hole content leak where `image` is the truth; for measuring just that.

    Raises:
        UsageError: No such kind.
    """
    if kind not in KNOWN:
        raise unknown_name("known latent", kind, list(KNOWN))
    if kind == "gt":
        return image
    # Deviation: the known latents are those of the masked image with its hole filled from its surroundings.
    return fill(image, mask) if kind == "filled" else hide(image, mask)


def fill(image: Tensor, mask: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """Fills holes by averaging neighbours, from coarse to fine, so that the way across a large hole is short.

    The known pixels are averaged down to a single one; on the way back up each hole takes the values below it, and
    then several times the mean of its eight neighbours and itself. Pixels of an image depend on no other image.

    Args:
        image: B C H W in [0, 1]; what lies in the hole is not looked at.
        mask: B 1 H W in {0, 1}, 1 = hole.
        sweeps: Rounds of averaging at each size.

    Returns:
        B C H W, known pixels bit-exact; mid-grey where nothing is known.

    Raises:
        UsageError: `sweeps` is negative.
    """
    if sweeps < 0:
        raise UsageError(f"sweeps must be at least 0, got {sweeps}")
    hole = mask > 0.5
    shown = hide(image, mask, 0.0)
    if max(shown.shape[-2:]) == 1:
        return torch.where(hole, image.new_full((), GREY), shown)
    below = fill(*_halve(shown, hole), sweeps)
    guess = F.interpolate(below, scale_factor=2, mode="nearest")[..., : shown.shape[-2], : shown.shape[-1]]
    for _ in range(sweeps):
        guess = torch.where(hole, guess, shown)
        guess = F.avg_pool2d(F.pad(guess, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.where(hole, guess, shown)


def _halve(shown: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the known pixels of two by two, and where there are none; odd sizes are padded with unknown ones."""
    edges = (0, shown.shape[-1] % 2, 0, shown.shape[-2] % 2)
    shown, weight = F.pad(shown, edges), F.pad((~hole).to(shown.dtype), edges)
    share = F.avg_pool2d(weight, 2)
    return F.avg_pool2d(shown, 2) / share.clamp(min=0.25), (share == 0).to(shown.dtype)
