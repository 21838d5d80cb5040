"""Makes the masks of a protocol: `python -m benchmarks.manifests PROTOCOL [--dataset D] [--data.root DIR]`.

A protocol is the images, masks and captions that a paper's tables are measured with, as far as the papers say. Its
manifests go to `benchmarks/masks/`, where README.md lists them, and `zoo benchmark --manifest FILE` takes them.
DIR holds a folder for each dataset, named as the dataset, or is the folder of the only one that is asked for. Without
DIR each dataset is looked for at its default place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from zoo.data import open_dataset
from zoo.data.masked import canvas_of
from zoo.errors import EXIT_DATA, EXIT_OK, DataError, UsageError, ZooError, unknown_name
from zoo.masks import draw_mixture, parse_mixture
from zoo.masks.manifest import Entry, Manifest, write
from zoo.weights import sha256

FOLDER = Path(__file__).resolve().parent / "masks"
SEED = 0


@dataclass(frozen=True)
class Images:
    """A split of a dataset as a protocol sees it.

    Attributes:
        dataset: Its short name.
        size: Height and width in pixels.
        masks: The kinds of mask it is tested with.
        options: More arguments of the dataset.
        captioned: Whether the first caption of an image is fixed with its mask (COCO: that of the smallest id).
        count: At most so many images; None is all.
    """

    dataset: str
    size: int
    masks: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    captioned: bool = False
    count: int | None = None
    split: str = "test"

    def file(self, mask: str) -> str:
        """The name of a manifest: `coco-karpathy-test-object-256.jsonl.gz`."""
        parts = [self.dataset, *self.options.values(), self.split, mask.replace(":", "-"), str(self.size)]
        return "-".join(parts) + ".jsonl.gz"


TWO = ("center", "object")
THREE = ("irregular:10-30", "irregular:40-60", "irregular:70-90")
BUCKETS = ("irregular:10-20", "irregular:30-40", "irregular:50-60")
SIDES = ("outpaint:right:0.25", "outpaint:right:0.5", "outpaint:right:0.75")
PROTOCOLS: dict[str, tuple[Images, ...]] = {
    "zoo": (Images("shapes", 64, ("object", "freeform"), count=512),),
    "tdanet": (
        Images("coco", 256, TWO, {"variant": "karpathy"}, captioned=True),
        Images("coco", 256, TWO, {"variant": "2014"}, captioned=True),
        Images("flickr30k", 256, TWO, captioned=True),
        Images("cub", 256, TWO, captioned=True),
    ),
    "ecdm": (
        Images("coco", 512, BUCKETS, captioned=True),
        Images("openimages", 512, BUCKETS, captioned=True),
    ),
    "mminvertfill": (
        Images("celebahq", 512, THREE, {"variant": "mminvertfill"}),
        Images("places2", 512, THREE, {"variant": "large"}),
        Images("cityscapes", 256, THREE),
        Images("ost", 256, THREE),
        Images("metfaces", 256, (THREE[0], THREE[2])),
        Images("scenery", 256, SIDES),
    ),
}
"""What each protocol tests with. The papers leave open: seeds and generators of their masks, which are ours; CMA's
split (Karpathy's is clean of what ViLT has seen, 2014's validation images are TDANet's and NIGDT's); MMInvertFill's
sizes, and its shares of outpainting, which are Boundless'."""


def make(images: Images, root: Path | None, out: Path, limit: int | None = None) -> Iterator[Path]:
    """Draws all the masks of a split in one pass over its images; yields the files that it writes.

    Args:
        images: The split.
        root: The folder of the dataset; None is its default.
        out: Where the manifests go.
        limit: At most so many images, for trying it out.

    Raises:
        DataError: The dataset is not there, or damaged.
    """
    counts = [count for count in (images.count, limit) if count is not None]
    dataset = open_dataset(
        images.dataset,
        split=images.split,
        size=images.size,
        root=root,
        count=min(counts, default=None),
        **images.options,
    )
    mixtures = {mask: parse_mixture(mask) for mask in images.masks}
    entries: dict[str, dict[str, Entry]] = {mask: {} for mask in images.masks}
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        canvas = canvas_of(dataset, sample)
        caption = 0 if images.captioned and sample.captions else None
        for mask, mixture in mixtures.items():
            entries[mask][sample.id] = Entry.of(sample.id, draw_mixture(mixture, canvas, SEED), caption)
    for mask, found in entries.items():
        path = out / images.file(mask)
        write(path, Manifest(images.dataset, images.split, mask, SEED, found))
        ratio = np.mean([entry.ratio for entry in found.values()])
        print(f"{path}: {len(found)} masks, holes of {ratio:.1%} on average, sha256 {sha256(path)}", flush=True)
        yield path


def chosen(protocol: str, dataset: str | None) -> list[Images]:
    """The splits of a protocol, or those of one of its datasets.

    Raises:
        UsageError: There is no such protocol, or it has no such dataset.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, list(PROTOCOLS))
    known = sorted({images.dataset for images in PROTOCOLS[protocol]})
    if dataset is not None and dataset not in known:
        raise unknown_name(f"dataset of protocol '{protocol}'", dataset, known)
    return [images for images in PROTOCOLS[protocol] if dataset in (None, images.dataset)]


def place(root: Path | None, dataset: str, *, alone: bool) -> Path | None:
    """The folder of a dataset under `--data.root`.

    Raises:
        DataError: There is none, and the root cannot be the folder itself, since several datasets are asked for.
    """
    if root is None or (root / dataset).is_dir():
        return None if root is None else root / dataset
    if not alone:
        raise DataError(f"there is no folder '{dataset}' here", str(root), "make it, or choose: --dataset NAME")
    return root


def run(arguments: argparse.Namespace) -> int:
    """Makes the manifests; a dataset that is not here does not keep others from being made."""
    splits = chosen(arguments.protocol, arguments.dataset)
    if arguments.limit is not None and arguments.out == FOLDER:
        raise UsageError("manifests with a --limit are not the protocol's", remedy="write them elsewhere: --out DIR")
    alone = len({images.dataset for images in splits}) == 1
    missing = 0
    for dataset, group in groupby(splits, key=lambda images: images.dataset):
        for images in group:
            try:
                root = place(arguments.root, dataset, alone=alone)
                for _ in make(images, root, arguments.out, arguments.limit):
                    pass
            except DataError as error:
                missing += 1
                print(f"{images.dataset} {' '.join(images.options.values())}: {error}", file=sys.stderr)
    return EXIT_DATA if missing else EXIT_OK


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.manifests", description=__doc__)
    parser.add_argument("protocol", help=", ".join(PROTOCOLS))
    parser.add_argument("--dataset", metavar="NAME", help="only this one of its datasets")
    parser.add_argument("--data.root", metavar="DIR", dest="root", type=Path)
    parser.add_argument("--limit", metavar="N", type=int, help="the first N images, to try it out: give another --out")
    parser.add_argument("--out", metavar="DIR", type=Path, default=FOLDER)
    try:
        return run(parser.parse_args(argv))
    except ZooError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
