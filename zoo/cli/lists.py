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
        presets = [preset for preset in ("nano", "paper") if cls.trainable and find_weights(name, preset)]
        facts.append(
            {
                "name": name,
                "kind": "method" if cls.trainable else "baseline" if name in BASELINES else "control",
                "needs": sorted(cls.needs - {"image", "mask"}),
                "uses": sorted(cls.uses),
                "stages": list(cls.stages) if cls.trainable else [],
                "weights": presets,
                "what": (cls.__doc__ or "").strip().split("\n")[0],
            }
        )
    return facts


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
    """The protocols of `zoo benchmark`; the first dataset, and of each dataset the first mask, is its default."""
    from zoo.benchmark.protocols import load_protocol, protocol_names

    found = [load_protocol(name) for name in protocol_names()]
    return [{"name": p.name, "datasets": list(p.datasets), "what": p.description} for p in found]


LISTS: dict[str, Callable[[], list[Fact]]] = {
    "models": models,
    "datasets": datasets,
    "masks": masks,
    "metrics": metrics,
    "suites": suites,
    "protocols": protocols,
}
