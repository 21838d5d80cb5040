"""Datasets, and how they reach a method. Importing this package imports no torch.

A dataset is a class with `name`, `object_rule`, `licence`, `provides`, `classes`, `ids` and `sample(index)` (see
`zoo.data.base`); its constructor takes `split`, `size`, `count` and `root`. Short names are in `DATASETS`; a dotted
path, `package.module:Class` or `package.module.Class`, works everywhere a short name does.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from zoo.data.base import SPLITS, Dataset, ObjectRule, Sample
from zoo.errors import UsageError, unknown_name

DATASETS: dict[str, str] = {
    "shapes": "zoo.data.shapes:Shapes",
    "coco": "zoo.data.coco:Coco",
    "flickr30k": "zoo.data.flickr30k:Flickr30k",
    "cub": "zoo.data.cub:Cub",
    "openimages": "zoo.data.openimages:OpenImages",
    "celebahq": "zoo.data.celebahq:CelebAHQ",
    "places2": "zoo.data.places2:Places2",
    "cityscapes": "zoo.data.cityscapes:Cityscapes",
    "ost": "zoo.data.ost:OutdoorScenes",
    "metfaces": "zoo.data.metfaces:MetFaces",
    "scenery": "zoo.data.scenery:Scenery",
    "folder": "zoo.data.folder:Folder",
    "shards": "zoo.data.shards:Shards",
}

__all__ = ["DATASETS", "SPLITS", "Dataset", "ObjectRule", "Sample", "dataset_class", "names", "open_dataset"]


def names() -> list[str]:
    """The short names of the datasets."""
    return list(DATASETS)


def dataset_class(name: str) -> type[Any]:
    """The class behind a short name or a dotted path.

    Raises:
        UsageError: No dataset has this name, or the path cannot be imported.
    """
    path = DATASETS.get(name, name)
    module_name, _, class_name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not class_name:
        raise unknown_name("dataset", name, names())
    import importlib

    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"dataset '{name}' cannot be imported: {error}", remedy=f"known: {', '.join(names())}, or pkg.module:Class"
        ) from error
    if not inspect.isclass(found) or not hasattr(found, "sample"):
        raise UsageError(f"'{name}' is not a dataset class", remedy="see zoo.data.base.Dataset for what it must define")
    return found


def open_dataset(
    name: str,
    *,
    split: str = "train",
    size: int | None = 64,
    root: str | Path | None = None,
    count: int | None = None,
    **options: Any,
) -> Dataset:
    """Opens a dataset and checks that its files are there.

    Args:
        name: A short name of `DATASETS`, or the dotted path of a class.
        split: "train", "val" or "test".
        size: Height and width of the samples in pixels; None (`folder` only) keeps each image's own.
        root: The folder of its files; None is the dataset's default.
        count: At most so many samples, the first ones; None is all of them. (`shapes` draws exactly as many.)
        **options: More arguments of this dataset, such as `mask_root` of `folder`; those that are None are dropped.

    Raises:
        UsageError: An unknown name, split or option, or a size or count below 1.
        DataError: Files are missing or damaged.
    """
    for what, number in (("size", size), ("count", count)):
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, got {number}")
    if split not in SPLITS:
        raise unknown_name("split", split, list(SPLITS))
    found = dataset_class(name)
    given = {k: v for k, v in options.items() if v is not None}
    unknown = sorted(set(given) - set(inspect.signature(found).parameters))
    if unknown:
        raise UsageError(f"dataset '{name}' has no option {', '.join(unknown)}", remedy="leave it out")
    dataset: Dataset = found(split=split, size=size, count=count, root=root, **given)
    return dataset
