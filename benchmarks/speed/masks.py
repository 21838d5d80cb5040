"""Masks per second against plain formulations: a PIL brush drawn piece by piece, and buckets by rejection."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zoo.masks import Canvas, draw_mask
from zoo.masks.freeform import ANGLE, JITTER, SEGMENTS, STROKES, WIDTH

SIZE = 256
TRIES = 200  # of the rejection, so that a bucket it never meets ends


def plain_brush(rng: np.random.Generator, most: int = STROKES[1], widest: float = WIDTH[1]) -> np.ndarray:
    """DeepFill's brush as it is usually written: PIL, one segment and one disc at a time."""
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    mean = math.hypot(SIZE, SIZE) / 8
    for _ in range(int(rng.integers(STROKES[0], most + 1))):
        x, y = float(rng.uniform(0, SIZE)), float(rng.uniform(0, SIZE))
        width = float(rng.uniform(WIDTH[0], widest))
        for i in range(int(rng.integers(SEGMENTS[0], SEGMENTS[1] + 1))):
            angle = float(rng.uniform(ANGLE - JITTER, ANGLE + JITTER))
            angle = 2 * math.pi - angle if i % 2 == 0 else angle
            length = float(np.clip(rng.normal(mean, mean / 2), 0, 2 * mean))
            x2 = float(np.clip(x + length * math.cos(angle), 0, SIZE - 1))
            y2 = float(np.clip(y + length * math.sin(angle), 0, SIZE - 1))
            draw.line((x, y, x2, y2), fill=1, width=round(width))
            draw.ellipse((x2 - width / 2, y2 - width / 2, x2 + width / 2, y2 + width / 2), fill=1)
            x, y = x2, y2
    for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if rng.random() < 0.5:
            image = image.transpose(flip)
    return np.asarray(image)


def by_rejection(rng: np.random.Generator, low: float, high: float) -> tuple[np.ndarray, int]:
    """Draws the plain brush until the ratio fits; for large holes LaMa-like thick strokes, which reach them at all."""
    large = low >= 40
    for tries in range(1, TRIES + 1):
        mask = plain_brush(rng, most=8, widest=100.0) if large else plain_brush(rng)
        if low < 100 * mask.mean() <= high:
            return mask, tries
    return mask, TRIES


def milliseconds(draw: Callable[[int], object], count: int) -> float:
    """Mean time of a call, over `count` calls after five to warm up."""
    for i in range(5):
        draw(i)
    start = time.perf_counter()
    for i in range(count):
        draw(i)
    return 1000 * (time.perf_counter() - start) / count


def measure(count: int = 300) -> list[dict[str, Any]]:
    """Our generators and the plain ones, on 256-pixel images."""

    canvases = [Canvas("speed", str(i), SIZE, SIZE) for i in range(count)]

    def ours(kind: str) -> Callable[[int], object]:
        return lambda i: draw_mask(kind, canvases[i])

    rows = [_row("freeform, 256", milliseconds(ours("freeform"), count), _plain_time(count), 10.0)]
    for low, high in ((10, 20), (30, 40), (50, 60)):
        rng = np.random.default_rng(0)
        plain = milliseconds(lambda i, b=(low, high), r=rng: by_rejection(r, *b), max(20, count // 10))  # type: ignore[misc]
        strokes = "LaMa-like thick strokes" if low >= 40 else "the same brush"
        name = f"irregular:{low}-{high}, 256, against rejection from {strokes}"
        rows.append(_row(name, milliseconds(ours(f"irregular:{low}-{high}"), count), plain, 10.0))
    rows += [
        {"name": f"{kind}, 256", "ours_ms": milliseconds(ours(kind), count)} for kind in ("box", "deepfill", "center")
    ]
    return rows


def _plain_time(count: int) -> float:
    rng = np.random.default_rng(0)
    return milliseconds(lambda i: plain_brush(rng), count)


def _row(name: str, ours: float, plain: float, target: float) -> dict[str, Any]:
    return {"name": name, "ours_ms": ours, "plain_ms": plain, "ratio": plain / ours, "target": target}
