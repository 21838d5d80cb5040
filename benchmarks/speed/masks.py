"""Masks per second of every kind that needs no annotations, against plain formulations where there are any."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.plain_masks import PLAIN, SIZE
from zoo.masks import Canvas, draw_mask, examples

TARGETS = {"freeform": 10.0, "irregular:10-20": 10.0, "irregular:30-40": 10.0, "irregular:50-60": 10.0}
NEED_MORE = ("object", "object:segmentation", "instance", "file", "nvidia:1-10", "nvidia:50-60:border")


def milliseconds(draw: Callable[[int], object], count: int) -> float:
    """Mean time of a call, over `count` calls after five to warm up."""
    for i in range(5):
        draw(i)
    start = time.perf_counter()
    for i in range(count):
        draw(i)
    return 1000 * (time.perf_counter() - start) / count


def measure(count: int = 300) -> list[dict[str, Any]]:
    """Our generators and the plain ones, on 256-pixel images, the former keyed by 300 of them."""
    canvases = [Canvas("speed", str(i), SIZE, SIZE) for i in range(count)]
    rows = []
    for kind in examples():
        if kind in NEED_MORE:
            continue
        ours = milliseconds(lambda i, k=kind: draw_mask(k, canvases[i]), count)  # type: ignore[misc]
        row = {"name": f"{kind}, {SIZE}", "ours_ms": ours, "per_second": 1000 / ours}
        if kind in PLAIN:
            rng, draw = np.random.default_rng(0), PLAIN[kind]
            slow = kind.startswith("irregular")
            plain = milliseconds(lambda i, d=draw, r=rng: d(r), max(20, count // 10) if slow else count)  # type: ignore[misc]
            row |= {"plain_ms": plain, "ratio": plain / ours, "target": TARGETS.get(kind)}
        rows.append(row)
    return rows
