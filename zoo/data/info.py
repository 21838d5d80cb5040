"""What a dataset is, needs and holds here; and whether every sample of it can be read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data import SPLITS, dataset_class, open_dataset
from zoo.data.base import Dataset
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.errors import DataError, UsageError, ZooError, unknown_name


def describe(name: str, root: str | Path | None = None, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Facts about a dataset, in plain types.

    Args:
        name: A short name or a dotted path.
        root: The folder of its files; None is the dataset's default.
        options: Further arguments of the dataset, such as `variant`.

    Returns:
        `name`, `licence`, `layout` (which files it needs, a text; empty where none), `root`, `sources` (a dict for each
        download, with `here`) and `splits`: for each split `count`, `provides`, `classes`, `skipped` (files of other
        kinds), where one is published `official`, the number of images, and what the dataset says of where the split is
        from (`split_source`, `caption_source`, `list_sha256`); or `error`, why it cannot be used.

    Raises:
        UsageError: There is no dataset of this name, or it has no such option.
    """
    found = dataset_class(name)
    layout = str(getattr(found, "layout", ""))
    place = root_of(found, root)
    facts: dict[str, Any] = {"name": name, "licence": found.licence, "layout": layout, "splits": {}}
    facts["root"] = None if not layout or (place is None and root is None) else str(root if place is None else place)
    facts["sources"] = [_source_facts(source, place) for source in needed(found, options or {})]
    for split in SPLITS:
        try:
            dataset = open_dataset(name, split=split, root=root, **(options or {}))
        except DataError as error:
            facts["splits"][split] = {"error": str(error)}
            continue
        except UsageError as error:
            if options:
                raise
            facts["splits"][split] = {"error": str(error)}
            continue
        facts["splits"][split] = _split_facts(dataset)
    return facts


def root_of(found: type[Any], root: str | Path | None) -> Path | None:
    """The folder of a dataset's files; None where it has no files, no folder by default, or is read from a URL."""
    if root is not None:
        return None if "://" in str(root) else Path(root)
    return default_root(found.name) if getattr(found, "sources", ()) else None


def needed(found: type[Any], options: Mapping[str, Any]) -> tuple[Source, ...]:
    """The downloads that a dataset is made of; with its `sources_for`, those that these options need."""
    chosen = getattr(found, "sources_for", None)
    return tuple(chosen(**options) if chosen is not None else getattr(found, "sources", ()))


def parse_options(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Options of a dataset from texts, as its constructor's annotations say.

    Args:
        name: A short name or a dotted path.
        pairs: Names and values.

    Raises:
        UsageError: The dataset has no such option, or it takes a number, true or false, and the value is none.
    """
    parameters = dict(inspect.signature(dataset_class(name)).parameters)
    for own in ("self", "split", "size", "count", "root"):
        parameters.pop(own, None)
    options: dict[str, Any] = {}
    for option, text in pairs:
        if option not in parameters:
            if not parameters:
                raise UsageError(f"dataset '{name}' has no options, got '{option}'", remedy="leave it out")
            raise unknown_name(f"option of '{name}'", option, list(parameters))
        kind = str(parameters[option].annotation)
        try:
            options[option] = int(text) if "int" in kind else _boolean(text) if "bool" in kind else text
        except ValueError:
            raise UsageError(f"the option '{option}' of '{name}' takes {kind}, got '{text}'") from None
    return options


def verify(dataset: Dataset) -> Iterator[tuple[str, ZooError | None]]:
    """Reads every sample of a dataset: its id, and what is wrong with it or None."""
    for index, sample_id in enumerate(dataset.ids):
        yield sample_id, read_error(dataset, index)


def read_error(dataset: Dataset, index: int) -> ZooError | None:
    """What is wrong with the sample at a position, or None."""
    try:
        dataset.sample(index)
    except ZooError as error:
        return error
    except (OSError, ValueError) as error:  # of a dataset that does not name its samples in errors
        return DataError(f"the sample cannot be read: {error}", where=dataset.ids[index])
    return None


def _split_facts(dataset: Dataset) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "count": len(dataset),
        "provides": sorted(dataset.provides),
        "classes": len(dataset.classes),
        "skipped": int(getattr(dataset, "skipped", 0)),
    }
    official = getattr(dataset, "official", None)
    if official is not None:
        facts["official"] = int(official)
    for name in ("split_source", "caption_source", "list_sha256"):
        value = getattr(dataset, name, None)
        if value is not None:
            facts[name] = [path.name for path in value] if isinstance(value, tuple) else Path(value).name
    return facts


def _source_facts(source: Source, root: Path | None) -> dict[str, Any]:
    from zoo.data.prepare import is_here

    names = ("what", "file", "url", "size", "licence", "sha256", "automatic", "note")
    return {name: getattr(source, name) for name in names} | {"here": root is not None and is_here(source, root)}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
