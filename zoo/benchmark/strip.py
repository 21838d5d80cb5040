"""The picture strip: a few images, the input with its hole in grey, what each method made of it, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.gallery import FIRST, TRUTH, encode_png, read_picture
from zoo.benchmark.masks import read_masks

if TYPE_CHECKING:
    from zoo.benchmark.plan import Plan
    from zoo.benchmark.summary import Summary

Image = NDArray[np.uint8]

ROWS = 6
SIDE = 192  # images are enlarged by a whole factor to about this side
GAP = 4
HEADER = 20
GREY = 128
PAPER, INK = 255, 32


def enlargement(size: int) -> int:
    """The whole factor that brings an image's side nearest to `SIDE`, at least 1 (3 for 64 pixels)."""
    return max(1, round(SIDE / size))


def shown(plan: Plan) -> list[str]:
    """Labels of the methods that have a column; the control `truth` has the last one already."""
    return [method.label for method in plan.methods if method.name != "truth"]


def hide_grey(truth: Image, mask: NDArray[np.uint8]) -> Image:
    """The input as a picture: the hole in mid-grey (H W 3 uint8; mask H W, 1 = hole)."""
    return np.where(mask[..., None] > 0, np.uint8(GREY), truth)


def make_strip(titles: Sequence[str], rows: Sequence[Sequence[Image | None]], size: int, factor: int) -> Image:
    """Lays out a strip under a line of titles.

    Args:
        titles: One per column.
        rows: Images of `size` x `size` x 3 uint8; None leaves a crossed-out cell.
        size: Height and width of an image.
        factor: Enlargement, without smoothing.

    Returns:
        uint8, height HEADER + rows * (side + GAP), width columns * (side + GAP) - GAP, with side = size * factor.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    side = size * factor
    width, height = len(titles) * (side + GAP) - GAP, HEADER + len(rows) * (side + GAP)
    canvas = Pillow.new("RGB", (width, height), (PAPER,) * 3)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, text in enumerate(titles):
        left = column * (side + GAP)
        while text and pen.textlength(text, font=font) > side:
            text = text[:-2] + "…" if len(text) > 2 else ""
        pen.text((left + side / 2, HEADER / 2), text, fill=(INK,) * 3, font=font, anchor="mm")
    for line, row in enumerate(rows):
        for column, image in enumerate(row):
            left, top = column * (side + GAP), HEADER + line * (side + GAP)
            if image is None:
                corners = (left, top, left + side - 1, top + side - 1)
                pen.rectangle(corners, fill=(224,) * 3)
                pen.line(corners, fill=(160,) * 3, width=2)
            else:
                canvas.paste(Pillow.fromarray(image).resize((side, side), Pillow.Resampling.NEAREST), (left, top))
    return np.asarray(canvas)


def strip_of_run(summary: Summary) -> bytes | None:
    """The strip of a run as PNG; None where no picture was kept."""
    plan, folder = summary.plan, summary.folder
    masks = read_masks(folder)
    labels = shown(plan)
    files = {method.label: method.file_name for method in plan.methods}
    rows: list[list[Image | None]] = []
    for sample in list(masks)[:FIRST]:
        truth = read_picture(folder, TRUTH, sample)
        if truth is None:
            continue
        made = [read_picture(folder, files[label], sample) for label in labels]
        rows.append([hide_grey(truth, masks[sample]), *made, truth])
        if len(rows) == ROWS:
            break
    if not rows:
        return None
    return encode_png(make_strip(["input", *labels, "truth"], rows, plan.size, enlargement(plan.size)))
