"""The picture strip: a few images, the input with its hole in grey, each method's result, truth and caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.gallery import FIRST, TRUTH, encode_png, read_picture

if TYPE_CHECKING:
    from zoo.benchmark.masks import Masks
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


def make_strip(
    titles: Sequence[str], rows: Sequence[Sequence[Image | None]], size: int, factor: int, captions: Sequence[str] = ()
) -> Image:
    """Lays out a strip under a line of titles.

    Args:
        titles: One per column.
        rows: Images of `size` x `size` x 3 uint8; None leaves a crossed-out cell.
        size: Height and width of an image.
        factor: Enlargement, without smoothing.
        captions: One per row, written below it; none where empty.

    Returns:
        uint8, height HEADER + rows * (side + GAP), width columns * (side + GAP) - GAP, with side = size * factor;
        another HEADER per row with captions.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    side = size * factor
    step = side + GAP + (HEADER if captions else 0)
    width, height = len(titles) * (side + GAP) - GAP, HEADER + len(rows) * step
    canvas = Pillow.new("RGB", (width, height), (PAPER,) * 3)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, text in enumerate(titles):
        middle = column * (side + GAP) + side / 2
        pen.text((middle, HEADER / 2), _shortened(text, side, pen, font), fill=(INK,) * 3, font=font, anchor="mm")
    for line, text in enumerate(captions):
        place = (0, HEADER + (line + 1) * step - GAP - HEADER / 2)
        pen.text(place, _shortened(text, width, pen, font), fill=(INK,) * 3, font=font, anchor="lm")
    for line, row in enumerate(rows):
        for column, image in enumerate(row):
            left, top = column * (side + GAP), HEADER + line * step
            if image is None:
                corners = (left, top, left + side - 1, top + side - 1)
                pen.rectangle(corners, fill=(224,) * 3)
                pen.line(corners, fill=(160,) * 3, width=2)
            else:
                canvas.paste(Pillow.fromarray(image).resize((side, side), Pillow.Resampling.NEAREST), (left, top))
    return np.asarray(canvas)


def _shortened(text: str, width: int, pen: Any, font: Any) -> str:
    """A text that fits into a width."""
    while text and pen.textlength(text, font=font) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def strip_of_run(summary: Summary, masks: Masks, given: Mapping[str, str]) -> bytes | None:
    """The strip of a run as PNG, with the captions that were given by id; None where no picture was kept."""
    plan, folder = summary.plan, summary.folder
    labels = shown(plan)
    files = {method.label: method.file_name for method in plan.methods}
    rows: list[list[Image | None]] = []
    captions: list[str] = []
    for sample in list(masks)[:FIRST]:
        truth = read_picture(folder, TRUTH, sample)
        if truth is None:
            continue
        made = [read_picture(folder, files[label], sample) for label in labels]
        rows.append([hide_grey(truth, masks[sample]), *made, truth])
        captions.append(given.get(sample, ""))
        if len(rows) == ROWS:
            break
    if not rows:
        return None
    titles = ["input", *labels, "truth"]
    return encode_png(make_strip(titles, rows, plan.size, enlargement(plan.size), captions if any(captions) else ()))
