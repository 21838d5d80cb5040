"""Holes at the sides of the image: half of it, and outpainting."""

from __future__ import annotations

from zoo.masks.canvas import Canvas, Mask

SIDES = ("left", "right", "top", "bottom")
ALL, RANDOM = "all", "random"
SHARE = 0.25  # of the area; Boundless (Krishnan et al. 2019) extends images by 0.25, 0.5 and 0.75 of their width


def side(canvas: Canvas, kind: str, seed: int, name: str, share: float) -> Mask:
    """A hole along one side, or around the image; never empty, nor all of it where there are two pixels at least.

    Args:
        canvas: The image.
        kind: The kind's full name; with the seed it keys a random side.
        seed: The seed.
        name: One of `SIDES`; `all` for a frame around a known part in the middle; `random` for a keyed side.
        share: The hole's share of the area, in (0, 1).
    """
    if name == RANDOM:
        name = SIDES[canvas.integers(1, kind, seed)[0] * len(SIDES) // 65536]
    mask = canvas.empty()
    if name == ALL:
        height, width = (_length(whole, (1 - share) ** 0.5) for whole in mask.shape)
        top, left = (canvas.height - height) // 2, (canvas.width - width) // 2
        mask[:] = 1
        mask[top : top + height, left : left + width] = 0
    elif name in ("left", "right"):
        depth = _length(canvas.width, share)
        mask[:, slice(depth) if name == "left" else slice(canvas.width - depth, None)] = 1
    else:
        depth = _length(canvas.height, share)
        mask[slice(depth) if name == "top" else slice(canvas.height - depth, None)] = 1
    return mask


def _length(whole: int, share: float) -> int:
    return max(1, min(whole - 1, round(whole * share)))
