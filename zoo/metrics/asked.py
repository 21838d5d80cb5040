"""Which of the metrics that were asked for can be taken here, and what their values depend on; without any network."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from zoo.errors import unknown_name
from zoo.metrics.definitions import DEFINITIONS, STAND_IN, definition
from zoo.metrics.definitions_learned import PER_IMAGE, PER_SET, PROTOCOLS
from zoo.metrics.sources import Announce, Files, Located, Skipped, check_files, importable, locate

GROUPS: dict[str, tuple[str, ...]] = {
    "lpips": ("lpips_alex", "lpips_alex_hole", "lpips_vgg", "lpips_vgg_hole"),
    "clip_score": ("clip", "clip_hole"),
    "fid": ("fid_tf", "fid_clean"),
    "ids": ("p_ids", "u_ids", "p_ids_cross", "u_ids_cross"),
    "tdanet": tuple(name for name in PROTOCOLS if name.startswith("tdanet_")),
    "picnet": tuple(name for name in PROTOCOLS if name.startswith("picnet_")),
    "perceptual": tuple(PER_IMAGE),
    "distribution": tuple(PER_SET),
    "all": (*PROTOCOLS, *PER_IMAGE, *PER_SET),
}
"""Names for several metrics at once."""


@dataclass(frozen=True)
class Asked:
    """Metrics beyond those of every run.

    Attributes:
        names: Those that can be taken, in the order of the definitions.
        skipped: Those that cannot, and why.
        files: The files of the feature networks that the names need, by key.
        facts: What each value depends on besides `zoo.metrics.versions()`: revision, library versions and the hash of
            the weights. It belongs into the hash of a plan, and is empty where nothing was asked for.
    """

    names: tuple[str, ...] = ()
    skipped: dict[str, Skipped] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)


def ask(names: Iterable[str], files: Files | None = None, announce: Announce | None = None) -> Asked:
    """Finds out what can be taken; fetches files of weights where that is allowed (see `locate`).

    Args:
        names: Metrics, names of `GROUPS`, or either with `_stand-in` at its end.
        files: Files of weights of the user's own: `inception`, `alexnet`, `vgg16`, `clip`.
        announce: Is told of each download before it is made.

    Raises:
        UsageError: An unknown metric, or one that every run has.
        WeightsError: A file that the user named is missing, or is not the published one.
    """
    check_files(files)
    found: dict[str, Located | Skipped] = {}
    asked = Asked()
    kept = []
    for name in _expand(names):
        key, modules = needs(name)
        absent = importable(*modules)
        if absent is None and key and key not in found:
            found[key] = locate(key, files, announce)
        place = found.get(key)
        if absent is None and isinstance(place, Skipped):
            absent = place
        if absent is not None:
            asked.skipped[name] = absent
            continue
        kept.append(name)
        asked.facts[name] = _facts(name)
        if isinstance(place, Located):
            asked.files[key] = str(place.path)
            asked.facts[name]["weights"] = place.sha256
    return replace(asked, names=tuple(kept))


def _expand(names: Iterable[str]) -> list[str]:
    """Single metrics, each once, in the order of the definitions, stand-ins after all others."""
    single: set[str] = set()
    for name in names:
        base, end = name.removesuffix(STAND_IN), STAND_IN if name.endswith(STAND_IN) else ""
        members = GROUPS.get(base, (base,))
        for member in members:
            if member not in GROUPS["all"]:
                raise unknown_name("metric", name, [*GROUPS["all"], *GROUPS])
            if not end or member not in PROTOCOLS:  # protocols have no network that could be replaced
                single.add(member + end)
    order = {name: place for place, name in enumerate(DEFINITIONS)}
    return sorted(single, key=lambda name: (name.endswith(STAND_IN), order[name.removesuffix(STAND_IN)]))


def needs(name: str) -> tuple[str, tuple[str, ...]]:
    """The key of the file of weights, empty where there is none, and the modules, that a metric needs."""
    if name.endswith(STAND_IN) or name in PROTOCOLS:
        return "", ()
    if name.startswith("lpips_alex"):
        return "alexnet", ("torchvision", "torchmetrics.image.lpip")
    if name.startswith("lpips_vgg"):
        return "vgg16", ("torchvision", "torchmetrics.image.lpip")
    if name == "dists":
        return "vgg16", ("torchvision", "torchmetrics.functional.image.dists")
    if name.startswith("clip"):
        return "clip", ("open_clip",)
    return "inception", ("torch_fidelity", "sklearn") if "_ids" in name else ("torch_fidelity",)


def _facts(name: str) -> dict[str, str]:
    found = definition(name)
    if found is None:
        raise unknown_name("metric", name, list(DEFINITIONS))
    return {"revision": found.revision} | {library: importlib.metadata.version(library) for library in found.libraries}
