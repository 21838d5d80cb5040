"""`zoo list`: what there is, one line each."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from zoo.errors import EXIT_OK, UsageError, unknown_name

Fact = dict[str, Any]


def run(arguments: Namespace) -> int:
    """Prints one of the lists."""
    if arguments.what is None:
        raise UsageError("zoo list needs to know what", remedy=f"zoo list {'|'.join(LISTS)}")
    if arguments.what not in LISTS:
        raise unknown_name("list", arguments.what, list(LISTS))
    facts = LISTS[arguments.what]()
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print_facts(facts)
    return EXIT_OK


def print_facts(facts: list[Fact]) -> None:
    """Facts as aligned columns; a value that is a list is joined by commas, the last column is not padded."""
    rows = [[_cell(value) for value in fact.values()] for fact in facts]
    if not rows:
        return
    header = [name.upper() for name in facts[0]]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


def models() -> list[Fact]:
    """The methods, the controls and the baselines."""
    from zoo.models import BASELINES, CONTROLS, MODELS, resolve
    from zoo.weights import find_weights

    facts = []
    for name in [*MODELS, *CONTROLS, *BASELINES]:
        cls = resolve(name)
        known = presets(name) if cls.trainable else []
        facts.append(
            {
                "name": name,
                "kind": "method" if cls.trainable else "baseline" if name in BASELINES else "control",
                "needs": sorted(cls.needs - {"image", "mask"}),
                "uses": sorted(cls.uses),
                "stages": list(cls.stages) if cls.trainable else [],
                "presets": known,
                "weights": [preset for preset in known if find_weights(name, preset)],
                "what": (cls.__doc__ or "").strip().split("\n")[0],
            }
        )
    return facts


def presets(name: str) -> list[str]:
    """The presets of a method, by name: each is `configs/model/NAME/PRESET.yaml`."""
    from zoo.resources import resource

    recipes = resource(f"configs/model/{name}").glob("*.yaml")
    return sorted(path.stem for path in recipes if "." not in path.stem)  # with a dot it is of one stage


def datasets() -> list[Fact]:
    """The datasets."""
    from zoo.data import DATASETS, dataset_class

    facts = []
    for name in DATASETS:
        cls = dataset_class(name)
        what = (cls.__doc__ or "").strip().split("\n")[0]
        facts.append({"name": name, "licence": cls.licence, "what": what})
    return facts


def masks() -> list[Fact]:
    """The kinds of mask."""
    from zoo.masks import kinds

    return [{"name": name, "what": what} for name, what in kinds()]


def metrics() -> list[Fact]:
    """The metrics and their definitions."""
    from zoo.metrics.definitions import DEFINITIONS

    return [{"name": k, "better": d.better, "unit": d.unit, "what": d.text} for k, d in DEFINITIONS.items()]


def suites() -> list[Fact]:
    """The suites of `zoo benchmark`."""
    from zoo.benchmark import suites as shipped

    return [{"name": name, "what": what} for name, what in shipped().items()]


def protocols() -> list[Fact]:
    """The protocols of `zoo benchmark`, a line for each dataset; the first dataset and its first mask are defaults.

    `zoo` has no dataset of its own: it leaves dataset, size and mask open.
    """
    from zoo.benchmark.protocols import Images, load_protocol, protocol_names

    facts: list[Fact] = []
    for protocol in map(load_protocol, protocol_names()):
        datasets: dict[str, Images | None] = {**protocol.datasets} or {"any": None}
        for dataset, images in datasets.items():
            facts.append(
                {
                    "name": protocol.name,
                    "dataset": dataset,
                    "size": images.size if images else None,
                    "masks": list(images.masks) if images else [],
                    "what": protocol.description,
                }
            )
    return facts


LISTS: dict[str, Callable[[], list[Fact]]] = {
    "models": models,
    "datasets": datasets,
    "masks": masks,
    "metrics": metrics,
    "suites": suites,
    "protocols": protocols,
}
