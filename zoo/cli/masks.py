"""`zoo masks`: a manifest of masks is made, verified, or shown."""

from __future__ import annotations

import math
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.cli.expand import check_data, check_mask, one
from zoo.cli.progress import Meter
from zoo.errors import EXIT_DATA, EXIT_OK, DataError, UsageError, unknown_name

if TYPE_CHECKING:
    from zoo.data.base import Dataset
    from zoo.masks import Canvas

Picture = NDArray[np.uint8]

ACTIONS = ("make", "verify", "show")
SHOWN = 16
LISTED = 10
EVERY = "all"  # in place of a kind: `show` then draws every kind there is
SHOWN_EACH = 4  # images of each of them
ROW = 3  # kinds side by side
LABEL, GAP = 18, 6  # pixels


def run(arguments: Namespace) -> int:
    """Runs one of the actions."""
    action = arguments.action
    if action not in ACTIONS:
        if action is None:
            raise UsageError("zoo masks needs an action", remedy="zoo masks make|verify|show")
        raise unknown_name("action", action, list(ACTIONS))
    if action == "verify" and arguments.file is None:
        raise UsageError("zoo masks verify needs a manifest", remedy="zoo masks verify FILE.jsonl.gz")
    if action != "verify" and arguments.out is None:
        raise UsageError(f"zoo masks {action} needs --out FILE", remedy="zoo masks --help")
    if action != "verify" and arguments.file is not None:
        raise UsageError(f"unexpected argument '{arguments.file}'", remedy="zoo masks --help")
    dataset = one(arguments.data, "--dataset")
    check_data(dataset)
    if action == "show" and arguments.mask == EVERY:
        return _show_all(arguments, dataset or "shapes")
    check_mask(arguments.mask)
    if action == "verify":
        return _verify(arguments, dataset)
    return (_make if action == "make" else _show)(arguments, dataset or "shapes", arguments.mask or "object")


def _open(arguments: Namespace, name: str, limit: int | None, size: int) -> Dataset:
    from zoo.data import open_dataset
    from zoo.data.info import parse_options

    options = parse_options(name, arguments.option)
    return open_dataset(name, split=arguments.split, size=size, root=arguments.root, count=limit, **options)


def canvases(dataset: Dataset, what: str) -> Iterator[Canvas]:
    """What masks are drawn from, image by image, with progress."""
    from zoo.data.masked import canvas_of

    with Meter(what, len(dataset), seconds=2.0) as meter:
        for index in range(len(dataset)):
            yield canvas_of(dataset, dataset.sample(index))
            meter.update(index + 1, "masks")


def _make(arguments: Namespace, name: str, kind: str) -> int:
    from zoo.masks.manifest import make
    from zoo.weights import sha256

    dataset = _open(arguments, name, arguments.limit, arguments.size)
    path = Path(arguments.out)
    drawn = canvases(dataset, "make")
    manifest = make(path, drawn, dataset=dataset.name, split=arguments.split, kind=kind, seed=arguments.seed)
    ratios = [entry.ratio for entry in manifest.entries.values()]
    print(f"{path}: {len(ratios)} masks, holes of {np.mean(ratios):.1%} on average, sha256 {sha256(path)}")
    return EXIT_OK


def _verify(arguments: Namespace, name: str | None) -> int:
    """Checks every mask; with --dataset they are drawn again and compared, too."""
    from zoo.masks.manifest import read, verify
    from zoo.weights import sha256

    path = Path(arguments.file)
    manifest = read(path)
    again = None
    if name is not None:
        sizes = {entry.size for entry in manifest.entries.values()}
        size = next(iter(sizes))[0] if len(sizes) == 1 else arguments.size
        arguments.split = manifest.split
        again = canvases(_open(arguments, name, len(manifest.entries), size), "verify")
    problems = verify(path, again)
    for problem in problems[:LISTED]:
        print(problem)
    if len(problems) > LISTED:
        print(f"and {len(problems) - LISTED} more")
    story = f"{manifest.kind} masks of {manifest.dataset} {manifest.split}, seed {manifest.seed}"
    print(f"{path}: {len(manifest.entries)} {story}, {len(problems)} problems, sha256 {sha256(path)}")
    return EXIT_DATA if problems else EXIT_OK


def _show(arguments: Namespace, name: str, kind: str) -> int:
    """A sheet of images under their masks, the hole in mid-grey."""
    from zoo.data.masked import canvas_of
    from zoo.masks import draw_mixture, parse_mixture

    dataset = _open(arguments, name, arguments.limit or SHOWN, arguments.size)
    mixture, pictures = parse_mixture(kind), []
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        mask = draw_mixture(mixture, canvas_of(dataset, sample), arguments.seed)
        pictures.append(_hide(sample.image, mask))
    return _save(_grid(pictures, math.ceil(math.sqrt(len(pictures)))), Path(arguments.out))


def _show_all(arguments: Namespace, name: str) -> int:
    """A sheet of every kind under its name; why a kind cannot be had of this data stands in its place and on stderr."""
    from zoo.data.masked import canvas_of
    from zoo.masks import draw_mask, examples

    dataset = _open(arguments, name, arguments.limit or SHOWN_EACH, arguments.size)
    samples = [dataset.sample(index) for index in range(len(dataset))]
    images = [sample.image for sample in samples]
    cells = []
    for kind in examples(dataset.classes):
        try:
            masks = [draw_mask(kind, canvas_of(dataset, sample), arguments.seed) for sample in samples]
        except DataError as error:
            print(f"{kind}: {error}", file=sys.stderr)
            cells.append(_cell(kind, [np.full_like(image, 255) for image in images], error.what))
        else:
            cells.append(_cell(kind, [_hide(*pair) for pair in zip(images, masks, strict=True)]))
    return _save(_grid(cells, ROW), Path(arguments.out))


def _hide(image: Picture, mask: Picture) -> Picture:
    return np.where(mask[:, :, None] > 0, np.uint8(128), image)


def _cell(kind: str, pictures: list[Picture], text: str = "") -> Picture:
    """Pictures in a row with the name of the kind above them, and a text over them, H x W x 3."""
    from PIL import Image, ImageDraw

    apart = [np.pad(picture, ((LABEL, GAP), (0, 2), (0, 0)), constant_values=255) for picture in pictures]
    cell = Image.fromarray(np.pad(np.concatenate(apart, 1), ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    draw = ImageDraw.Draw(cell)
    draw.text((1, 2), kind, fill="black", font_size=12)
    draw.multiline_text((1, LABEL + 2), textwrap.fill(text, cell.width // 7), fill="grey", font_size=12)
    return np.asarray(cell)


def _grid(pictures: list[Picture], columns: int) -> Picture:
    """Pictures of one size, row by row; what is left of the last row is white."""
    blank = np.full_like(pictures[0], 255)
    pictures = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return np.ascontiguousarray(np.concatenate(rows))


def _save(picture: Picture, path: Path) -> int:
    from zoo.cli.files import save_png

    save_png(picture, path)
    print(path)
    return EXIT_OK
