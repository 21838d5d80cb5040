"""Protocols by name: which images, masks, captions and metrics the tables of a paper are measured with.

A protocol is a file, `configs/protocol/NAME.yaml`, that says where each of its choices comes from. It fixes what a
command leaves open; a command that says something else is refused. `zoo`, the default, leaves everything open.

    description: one line
    resize: shorter side, centre crop      # what every dataset does
    caption: first                         # of the captions of an image
    split: test
    metrics: [lpips_alex]                  # besides those of every run; names of `zoo.metrics.ask`
    datasets:                              # the first is taken where the command names none
      coco:
        size: 512
        masks: [irregular:10-20, center]   # the first is taken where the command names none
        options: {variant: ["2017"]}       # of the dataset; the first of each list
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.benchmark.plan import PROTOCOL
from zoo.data.base import OWN
from zoo.errors import UsageError, unknown_name
from zoo.resources import resource

RESIZE = "shorter side, centre crop"
CAPTION = "first"
KEYS = ("description", "resize", "caption", "split", "metrics", "datasets")
DATASET_KEYS = ("size", "masks", "options")


@dataclass(frozen=True)
class Images:
    """A dataset as a protocol sees it.

    Attributes:
        size: Height and width in pixels.
        masks: The kinds of mask it is measured with, the default first.
        options: Arguments of the dataset: the values that are allowed, the default first.
    """

    size: int
    masks: tuple[str, ...]
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """What a file of `configs/protocol` says.

    Attributes:
        name: Its short name.
        description: One line.
        sha256: Of the file.
        split: The split of every dataset; None leaves it open.
        metrics: Metrics besides those of every run.
        datasets: By short name, the default first; none leaves dataset, size and masks open.
    """

    name: str
    description: str
    sha256: str
    split: str | None = None
    metrics: tuple[str, ...] = ()
    datasets: dict[str, Images] = field(default_factory=dict)


class Settled(NamedTuple):
    """Arguments of `make_plan` that a protocol and a command agree on; a size of None is left to the methods."""

    dataset: str
    mask: str
    size: int | None
    split: str
    data_options: dict[str, Any]
    metrics: tuple[str, ...]


def protocol_names() -> list[str]:
    """The names of the protocols, the default first."""
    found = sorted(path.stem for path in resource("configs/protocol").glob("*.yaml"))
    return sorted(found, key=lambda name: name != PROTOCOL)


def load_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UsageError: There is none of this name, or its file says something else than the above.
    """
    known = protocol_names()
    if name not in known:
        raise unknown_name("protocol", name, known)
    return read_protocol(resource(f"configs/protocol/{name}.yaml"))


def read_protocol(path: Path) -> Protocol:
    """The protocol in a file.

    Raises:
        UsageError: The file is not readable, has an unknown key, or names a rule that does not exist.
    """
    import yaml  # type: ignore[import-untyped]

    raw = path.read_bytes()
    try:
        content = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise UsageError(f"not readable as YAML: {error}", where=str(path)) from error
    _check_keys(content, KEYS, path)
    for key, only in (("resize", RESIZE), ("caption", CAPTION)):
        if content.get(key) != only:
            raise UsageError(f"'{key}' is '{content.get(key)}'", str(path), f"the only rule there is: {only}")
    datasets = {name: _images(about, path) for name, about in (content.get("datasets") or {}).items()}
    return Protocol(
        name=path.stem,
        description=str(content.get("description", "")),
        sha256=hashlib.sha256(raw).hexdigest(),
        split=content.get("split"),
        metrics=tuple(content.get("metrics") or ()),
        datasets=datasets,
    )


def settle(protocol: Protocol, said: Mapping[str, Any]) -> Settled:
    """What a protocol and a command come to together.

    Args:
        protocol: Of `load_protocol`.
        said: Arguments of `make_plan`; one that is None or missing was not said.

    Raises:
        UsageError: The command says something else than the protocol; the message names the option.
    """
    if not protocol.datasets:
        options = dict(said.get("data_options") or {})
        dataset, mask = said.get("dataset") or "shapes", said.get("mask") or "object"
        split, metrics = said.get("split") or protocol.split or "test", tuple(said.get("metrics") or ())
        return Settled(dataset, mask, said.get("size"), split, options, _both(protocol.metrics, metrics))
    dataset = _one(protocol, "dataset", said.get("dataset"), list(protocol.datasets))
    images = protocol.datasets[dataset]
    _one(protocol, "captions", said.get("captions"), [OWN])
    _one(protocol, "mask_seed", said.get("mask_seed"), [0])
    options = dict(said.get("data_options") or {})
    for name, allowed in images.options.items():
        options[name] = _one(protocol, f"option {name}", options.get(name), list(allowed), f" on {dataset}")
    return Settled(
        dataset=dataset,
        mask=_one(protocol, "mask", said.get("mask"), list(images.masks), f" on {dataset}"),
        size=_one(protocol, "size", said.get("size"), [images.size], f" on {dataset}"),
        split=_one(protocol, "split", said.get("split"), [protocol.split or "test"]),
        data_options=options,
        metrics=_both(protocol.metrics, said.get("metrics") or ()),
    )


def _one(protocol: Protocol, option: str, said: Any, allowed: list[Any], where: str = "") -> Any:
    """What was said, where the protocol allows it; its default where nothing was said."""
    if said is None:
        return allowed[0]
    if said not in allowed:
        what = f"protocol '{protocol.name}'{where} has {option} {' or '.join(map(str, allowed))}, not {said}"
        typed = f"--option {option.removeprefix('option ')}=" if option.startswith("option ") else f"--{option} "
        raise UsageError(what, f"{typed}{said}", "leave the option out, or the protocol")
    return said


def _both(fixed: Iterable[str], asked: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*fixed, *asked)))


def _images(about: Any, path: Path) -> Images:
    _check_keys(about, DATASET_KEYS, path)
    options = {str(name): tuple(map(str, values)) for name, values in (about.get("options") or {}).items()}
    if not about.get("masks") or not isinstance(about.get("size"), int) or not all(options.values()):
        raise UsageError("a dataset of a protocol has a size and a list of masks", where=str(path))
    return Images(about["size"], tuple(map(str, about["masks"])), options)


def _check_keys(content: Any, known: tuple[str, ...], path: Path) -> None:
    if not isinstance(content, dict):
        raise UsageError(f"{content!r} is no list of `key: value` lines", where=str(path))
    for key in content:
        if key not in known:
            error = unknown_name("key of a protocol", str(key), list(known))
            raise UsageError(error.what, str(path), error.remedy)
