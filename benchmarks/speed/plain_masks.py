"""The generators of masks as they are usually written: one random number, one segment and one disc at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw

from zoo.masks.freeform import ANGLE, JITTER, SEGMENTS, STROKES, WIDTH

SIZE = 256
TRIES = 200  # of a rejection, so that a bucket it never meets ends
Random = np.random.Generator


def number(rng: Random, low: int, high: int) -> int:
    """An integer, both ends included."""
    return int(rng.integers(low, high + 1))


def brush(rng: Random, most: int = STROKES[1], widest: float = WIDTH[1]) -> np.ndarray:
    """DeepFill's brush with PIL."""
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


def by_rejection(rng: Random, low: float, high: float) -> np.ndarray:
    """Draws the brush until the ratio fits; for large holes LaMa-like thick strokes, which reach them at all."""
    large = low >= 40
    for _ in range(TRIES):
        mask = brush(rng, most=8, widest=100.0) if large else brush(rng)
        if low < 100 * mask.mean() <= high:
            break
    return mask


def box(rng: Random) -> np.ndarray:
    """DeepFill's random box."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    height, width = (round(128 - float(rng.uniform(0, 32))) for _ in range(2))
    top, left = number(rng, 0, SIZE - height), number(rng, 0, SIZE - width)
    mask[top : top + height, left : left + width] = 1
    return mask


def boxes(rng: Random, count: tuple[int, int], side: tuple[int, int], margin: int) -> np.ndarray:
    """LaMa's rectangles."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(number(rng, *count)):
        width, height = number(rng, *side), number(rng, *side)
        left, top = number(rng, margin, SIZE - margin - width), number(rng, margin, SIZE - margin - height)
        mask[top : top + height, left : left + width] = 1
    return mask


def strokes(rng: Random, count: tuple[int, int], length: tuple[int, int], width: tuple[int, int]) -> np.ndarray:
    """LaMa's polylines."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    for i in range(number(rng, *count)):
        x, y = number(rng, 0, SIZE - 1), number(rng, 0, SIZE - 1)
        for _ in range(number(rng, 1, 5)):
            angle = 0.01 + number(rng, 0, 3)
            angle = 2 * math.pi - angle if i % 2 == 0 else angle
            reach = number(rng, *length)
            to_x = int(np.clip(x + reach * np.sin(angle), 0, SIZE))
            to_y = int(np.clip(y + reach * np.cos(angle), 0, SIZE))
            cv2.line(mask, (x, y), (to_x, to_y), 1.0, number(rng, *width))
            x, y = to_x, to_y
    return mask


def lama(rng: Random, share: float, large: bool) -> np.ndarray:
    """LaMa's thick or medium masks, or its training mixture."""
    if rng.random() < share:
        return boxes(rng, (1, 4), (30, 150), 10) if large else boxes(rng, (1, 5), (10, 50), 0)
    return strokes(rng, (1, 6), (10, 209), (5, 104)) if large else strokes(rng, (4, 6), (10, 109), (5, 54))


def large(rng: Random, small: int, big: int, brushes: int, widths: tuple[int, int]) -> np.ndarray:
    """MAT's and CoModGAN's rectangles and brush strokes, these with PIL."""
    while True:
        image = Image.new("L", (SIZE, SIZE))
        draw = ImageDraw.Draw(image)
        for most, side in ((small, SIZE // 2), (big, SIZE)):
            for _ in range(number(rng, 0, most)):
                width, height = number(rng, 0, side - 1), number(rng, 0, side - 1)
                left = number(rng, -(width // 2), SIZE - width + width // 2 - 1)
                top = number(rng, -(height // 2), SIZE - height + height // 2 - 1)
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=1) if width and height else None
        for _ in range(number(rng, 0, brushes)):
            _large_stroke(rng, draw, number(rng, *widths))
        mask = np.asarray(image)
        if 0 < mask.mean() < 1:
            return mask


def _large_stroke(rng: Random, draw: ImageDraw.ImageDraw, width: int) -> None:
    mean = math.hypot(SIZE, SIZE) / 8
    low, high = ANGLE - float(rng.uniform(0, JITTER)), ANGLE + float(rng.uniform(0, JITTER))
    vertices = [(number(rng, 0, SIZE - 1), number(rng, 0, SIZE - 1))]
    for i in range(number(rng, 4, 17)):
        angle = float(rng.uniform(low, high))
        angle = 2 * math.pi - angle if i % 2 == 0 else angle
        reach = float(np.clip(rng.normal(mean, mean / 2), 0, 2 * mean))
        x = int(np.clip(vertices[-1][0] + reach * math.cos(angle), 0, SIZE))
        y = int(np.clip(vertices[-1][1] + reach * math.sin(angle), 0, SIZE))
        vertices.append((x, y))
    draw.line(vertices, fill=1, width=width)
    for x, y in vertices:
        draw.ellipse((x - width // 2, y - width // 2, x + width // 2, y + width // 2), fill=1)


def mmagic(rng: Random) -> np.ndarray:
    """MMagic's irregular mask, by rejection."""
    while True:
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for i in range(number(rng, 4, 9)):
            x, y = number(rng, 0, SIZE - 1), number(rng, 0, SIZE - 1)
            for _ in range(number(rng, 1, 5)):
                angle = (0.01 + number(rng, 0, 5)) * (-1 if i % 2 == 0 else 1)
                reach, width = number(rng, 20, 127), number(rng, 10, 44)
                to_x, to_y = int(x + reach * np.cos(angle)), int(y + reach * np.sin(angle))
                cv2.line(mask, (x, y), (to_x, to_y), 1, width)
                x, y = to_x, to_y
        if 0.15 < mask.mean() < 0.65:
            return mask


def mmt(rng: Random) -> np.ndarray:
    """MMT's free-form mask, with a disc at every joint."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(number(rng, 3, 15)):
        x, y = number(rng, 0, SIZE - 1), number(rng, 0, SIZE - 1)
        for _ in range(number(rng, 0, 25)):
            angle, reach = float(rng.uniform(0, 2 * np.pi)), number(rng, 0, 100)
            width = 2 * number(rng, 5, 12)
            to_x = int(np.clip(x + reach * np.sin(angle), 0, SIZE - 1))
            to_y = int(np.clip(y + reach * np.cos(angle), 0, SIZE - 1))
            cv2.line(mask, (x, y), (to_x, to_y), 1.0, width)
            cv2.circle(mask, (x, y), width // 2, 1.0, -1)
            x, y = to_x, to_y
    return mask


def picnet_irregular(rng: Random) -> np.ndarray:
    """PICNet's lines, discs and arcs."""
    mask = np.zeros((SIZE, SIZE, 1), np.uint8)

    def point() -> tuple[int, int]:
        return number(rng, 1, SIZE), number(rng, 1, SIZE)

    for _ in range(number(rng, 16, 64)):
        shape = rng.random()
        if shape < 0.6:
            cv2.line(mask, point(), point(), (1, 1, 1), number(rng, 4, 20))
        elif shape < 0.8:
            cv2.circle(mask, point(), number(rng, 4, 20), (1, 1, 1), -1)
        else:
            turn, begin, end = (number(rng, 3, 180) for _ in range(3))
            cv2.ellipse(mask, point(), point(), turn, begin, end, (1, 1, 1), number(rng, 4, 20))
    return mask


def picnet_regular(rng: Random) -> np.ndarray:
    """PICNet's rectangles."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    count = number(rng, 1, 5)
    for _ in range(count):
        x, y = (number(rng, 0, SIZE * count // (count + 1)) for _ in range(2))
        least = SIZE // (count + 7)
        to_x, to_y = (start + number(rng, least, max(least, SIZE - start)) for start in (x, y))
        mask[y:to_y, x:to_x] = 1
    return mask


PLAIN: dict[str, Callable[[Random], np.ndarray]] = {
    "freeform": brush,
    "deepfill": lambda rng: np.maximum(box(rng), brush(rng)),
    "box": box,
    "irregular:10-20": lambda rng: by_rejection(rng, 10, 20),
    "irregular:30-40": lambda rng: by_rejection(rng, 30, 40),
    "irregular:50-60": lambda rng: by_rejection(rng, 50, 60),
    "lama:thin": lambda rng: strokes(rng, (4, 51), (10, 49), (5, 14)),
    "lama:medium": lambda rng: lama(rng, 0.26, large=False),
    "lama:thick": lambda rng: lama(rng, 0.30, large=True),
    "lama:train": lambda rng: lama(rng, 0.5, large=True),
    "mat": lambda rng: large(rng, 4, 2, 8, (6, 23)),
    "comodgan": lambda rng: large(rng, 9, 4, 19, (12, 47)),
    "mmagic": mmagic,
    "mmt:strokes": mmt,
    "picnet:irregular": picnet_irregular,
    "picnet:regular": picnet_regular,
}
"""By the kind of the zoo that has the same law; `irregular` by rejection from strokes."""
