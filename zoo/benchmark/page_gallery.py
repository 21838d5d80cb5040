"""The page's gallery: the worst images, the most disputed ones and random ones, each with all methods and numbers."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.gallery import FIRST, ORDER_BY, TRUTH, encode_png, kept_ids, picture_path, read_picture
from zoo.benchmark.gallery import WORST as KEPT_WORST
from zoo.benchmark.masks import Masks
from zoo.benchmark.strip import hide_grey
from zoo.benchmark.summary import Summary
from zoo.benchmark.tables import Numbers, Table
from zoo.benchmark.tables_pairs import shown
from zoo.keyed import key
from zoo.metrics.definitions import definition

WORST = 2  # of each method
DISPUTED = 5
RANDOM = 5
BYTES = 8_000_000  # of all pictures of a page, as they stand in it
SIDE = 256  # larger pictures are scaled down to it
LOSSLESS = 128  # up to this side pictures are PNG, above it WebP
QUALITY = 88
NUMBERS = 3  # metrics under each picture


@dataclass
class Budget:
    """How many bytes of pictures a page may still take in.

    Attributes:
        left: Bytes.
        refused: Images that did not fit.
    """

    left: int = BYTES
    refused: int = 0

    def row(self, pictures: list[NDArray[np.uint8] | None]) -> list[str] | None:
        """The pictures of one image as data URIs, empty for None; None where they do not all fit."""
        uris = ["" if picture is None else data_uri(picture) for picture in pictures]
        size = sum(map(len, uris))
        if size > self.left:
            self.refused += 1
            return None
        self.left -= size
        return uris


def data_uri(image: NDArray[np.uint8]) -> str:
    """An H x W x 3 uint8 image as a data URI: PNG where it is small, else WebP of at most `SIDE` pixels a side."""
    from PIL import Image

    if max(image.shape[:2]) <= LOSSLESS:
        return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def gallery(summary: Summary, table: Table, masks: Masks) -> dict[str, Any]:
    """What the template shows of pictures: groups of images, each with its cells, and how many did not fit."""
    labels = shown(summary)
    if ORDER_BY not in table.values or not labels:
        return {"groups": [], "refused": 0}
    errors = np.stack(list(table.columns(ORDER_BY, labels).values()), 1)
    pool = kept_ids(list(masks), summary.plan.size)
    kept = [sample for sample in pool if _has_all(summary, table, labels, sample)]
    sure = {label: {*pool, *_kept_worst(table, column, pool)} for label, column in zip(labels, errors.T, strict=True)}
    view = _View(summary, table, masks, labels, sure, Budget())
    title = (
        f"Over all {len(table.ids)} images, by L1 in the hole. Pictures of other methods are there where they were kept"
    )
    many = f"Of the {len(kept)} images whose pictures every method keeps"
    groups = [
        ("Worst of each method", f"{title}.", _worst(table, labels, errors)),
        (
            "Most disputed",
            f"{many}: where the best and the worst method lie furthest apart in L1 in the hole.",
            [(sample, "") for sample in _disputed(table, errors, kept)],
        ),
        ("Random", f"{many}: drawn by the hash of their names.", [(sample, "") for sample in _random(kept)]),
    ]
    made = [{"title": title, "note": note, "images": view.images(entries)} for title, note, entries in groups]
    return {"groups": [group for group in made if group["images"]], "refused": view.budget.refused}


def _has_all(summary: Summary, table: Table, labels: Iterable[str], sample: str) -> bool:
    """Whether every method's picture of an image is there, or its failure."""
    files = {method.label: method.file_name for method in summary.plan.methods}
    return picture_path(summary.folder, TRUTH, sample).is_file() and all(
        sample in table.failures[label] or picture_path(summary.folder, files[label], sample).is_file()
        for label in labels
    )


def _largest(table: Table, column: Numbers) -> list[str]:
    """Ids by a column, the largest first, as `gallery.Keeper` orders them."""
    there = np.flatnonzero(np.isfinite(column))[::-1]  # of equal values the last id comes first
    return [table.ids[place] for place in there[np.argsort(-column[there], kind="stable")].tolist()]


def _kept_worst(table: Table, column: Numbers, pool: list[str]) -> list[str]:
    """The images whose pictures a method keeps for being its worst, however the work was shared out.

    A page that showed whatever lies in the folder would tell how many processes there were: each keeps its own worst.
    """
    first = set(pool[:FIRST])
    return list(islice((sample for sample in _largest(table, column) if sample not in first), KEPT_WORST))


def _worst(table: Table, labels: tuple[str, ...], errors: Numbers) -> list[tuple[str, str]]:
    """The worst images of each method, each once, with whose they are."""
    found: dict[str, list[str]] = {}
    for label, column in zip(labels, errors.T, strict=True):
        for sample in _largest(table, column)[:WORST]:
            found.setdefault(sample, []).append(label)
    return [(sample, f"among the worst of {', '.join(whose)}") for sample, whose in found.items()]


def _disputed(table: Table, errors: Numbers, kept: list[str]) -> list[str]:
    """Ids in the order of how far apart methods lie, the furthest first."""
    if errors.shape[1] < 2:
        return []
    place = {sample: k for k, sample in enumerate(table.ids)}
    spread = {}
    for sample in kept:
        values = errors[place[sample]]
        values = values[np.isfinite(values)]
        if len(values) > 1 and values.max() > values.min():
            spread[sample] = float(values.max() - values.min())
    return sorted(spread, key=lambda sample: (-spread[sample], sample))[:DISPUTED]


def _random(kept: list[str]) -> list[str]:
    return sorted(kept, key=lambda sample: (key("page", sample), sample))[:RANDOM]


@dataclass(frozen=True)
class _View:
    """What the cells of an image are made of."""

    summary: Summary
    table: Table
    masks: Masks
    labels: tuple[str, ...]
    sure: dict[str, set[str]]
    budget: Budget

    def images(self, entries: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Images with their pictures, in order, as far as the page's bytes go."""
        found = []
        for sample, why in entries:
            truth = read_picture(self.summary.folder, TRUTH, sample)
            if truth is None or sample not in self.masks:
                continue
            files = {method.label: method.file_name for method in self.summary.plan.methods}
            made = [
                read_picture(self.summary.folder, files[label], sample) if sample in self.sure[label] else None
                for label in self.labels
            ]
            uris = self.budget.row([hide_grey(truth, self.masks[sample]), *made, truth])
            if uris is not None:
                found.append(self._image(sample, why, uris))
        return found

    def _image(self, sample: str, why: str, uris: list[str]) -> dict[str, Any]:
        place = self.table.ids.index(sample)
        titles = ["input", *self.labels, "truth"]
        cells = []
        for title, uri in zip(titles, uris, strict=True):
            numbers = self._numbers(title, place) if title in self.labels else []
            absent = "failed" if sample in self.table.failures.get(title, {}) else "not kept"
            cells.append({"title": title, "uri": uri, "numbers": numbers, "absent": absent})
        ratio = self.table.ratios[place]
        hole = f"hole {100 * ratio:.1f} %" if np.isfinite(ratio) else ""
        return {
            "id": sample,
            "caption": self.table.captions.get(sample, ""),
            "about": " · ".join(text for text in (hole, why) if text),
            "cells": cells,
        }

    def _numbers(self, label: str, place: int) -> list[tuple[str, str]]:
        """The first metrics of the table with their values on an image."""
        column = self.table.labels.index(label)
        found = []
        for name in [name for name in self.summary.main if name in self.table.values][:NUMBERS]:
            value, about = self.table.values[name][place, column], definition(name)
            if np.isfinite(value):
                found.append((name, f"{value:.{about.digits if about else 4}f}"))
        return found
