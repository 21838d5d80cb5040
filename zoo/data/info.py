"""What a dataset is, needs and holds here; and whether every sample of it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.data import SPLITS, dataset_class, open_dataset
from zoo.data.base import Dataset
from zoo.errors import ZooError


def describe(name: str, root: str | Path | None = None) -> dict[str, Any]:
    """Facts about a dataset, in plain types.

    Returns:
        `name`, `licence`, `layout` (which files it needs, a text; empty where none), `root`, and `splits`: for each
        split `count`, `provides`, `classes` and `skipped` (files of other kinds), or `error`, why it cannot be used.

    Raises:
        UsageError: There is no dataset of this name.
    """
    found = dataset_class(name)
    layout = str(getattr(found, "layout", ""))
    facts: dict[str, Any] = {"name": name, "licence": found.licence, "layout": layout, "splits": {}}
    facts["root"] = None if root is None else str(root)
    for split in SPLITS:
        try:
            dataset = open_dataset(name, split=split, root=root)
        except ZooError as error:
            facts["splits"][split] = {"error": str(error)}
            continue
        facts["splits"][split] = {
            "count": len(dataset),
            "provides": sorted(dataset.provides),
            "classes": len(dataset.classes),
            "skipped": int(getattr(dataset, "skipped", 0)),
        }
        facts["root"] = str(getattr(dataset, "root", facts["root"])) if layout else None
    return facts


def verify(dataset: Dataset) -> Iterator[tuple[str, ZooError | None]]:
    """Reads every sample of a dataset: its id, and what is wrong with it or None."""
    for index, sample_id in enumerate(dataset.ids):
        try:
            dataset.sample(index)
        except ZooError as error:
            yield sample_id, error
        else:
            yield sample_id, None
