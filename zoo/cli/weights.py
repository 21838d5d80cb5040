"""`zoo weights`: what is here, whether it is whole, and how to get more."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.errors import EXIT_OK, UsageError, WeightsError, unknown_name

ACTIONS = ("list", "pull", "convert", "verify")


def run(arguments: Namespace) -> int:
    """Runs one of the actions."""
    if arguments.action not in ACTIONS:
        if arguments.action is None:
            raise UsageError("zoo weights needs an action", remedy=f"zoo weights {'|'.join(ACTIONS)}")
        raise unknown_name("action", arguments.action, list(ACTIONS))
    if arguments.action != "list" and arguments.source is None:
        raise UsageError(f"zoo weights {arguments.action} needs a file", remedy="zoo weights --help")
    return {"list": _list, "pull": _pull, "convert": _convert, "verify": _verify}[arguments.action](arguments)


def places() -> Iterator[tuple[str, Path]]:
    """Every weights file that a method would find, and how it came here."""
    from zoo.models import MODELS
    from zoo.weights import home, shipped

    for path in sorted(Path("runs").glob("*/*/weights.safetensors")):
        yield "trained", path
    for path in sorted(home().glob("*.safetensors")):
        yield "pulled", path
    for name in MODELS:
        for preset in ("nano", "paper"):
            ours = shipped(name, preset)
            if ours is not None:
                yield "shipped", ours


def facts_of(path: Path, where: str) -> dict[str, Any]:
    """What a weights file says of itself, its size and its hash."""
    from zoo.weights import read_header, sha256

    header = read_header(path)
    data = header.provenance.get("data")
    return {
        "name": header.method,
        "preset": header.preset,
        "where": where,
        "size": path.stat().st_size,
        "trained_on": data.get("name") if isinstance(data, dict) else data,
        "licence": header.licence,
        "sha256": sha256(path),
        "path": str(path),
    }


def _list(arguments: Namespace) -> int:
    from zoo.cli.lists import print_facts

    facts = []
    for where, path in places():
        try:
            facts.append(facts_of(path, where))
        except WeightsError as error:  # one damaged file must not hide the others
            facts.append({"name": "damaged", "where": where, "path": str(path), "error": error.what})
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return EXIT_OK
    whole = [fact for fact in facts if "error" not in fact]
    print_facts([f | {"size": f"{f['size'] / 1e6:.1f} MB", "sha256": f["sha256"][:12]} for f in whole])
    for fact in facts:
        if "error" in fact:
            print(f"damaged: {fact['path']}: {fact['error']}")
    return EXIT_OK


def _find(source: str, preset: str | None) -> Path:
    from zoo.models import MODELS
    from zoo.weights import find_weights

    if source not in MODELS or Path(source).is_file():
        return Path(source)
    for choice in (preset,) if preset else ("paper", "nano"):
        path = find_weights(source, choice)
        if path is not None:
            return path
    raise WeightsError(f"no weights of '{source}' are here", remedy=f"zoo fit --model {source}")


def _verify(arguments: Namespace) -> int:
    from safetensors.torch import load_file

    from zoo.cli.pull import recorded_hash
    from zoo.weights import load_weights, sha256

    path = _find(arguments.source, arguments.preset)
    if not path.is_file():
        raise WeightsError("no such weights file", where=str(path))
    found = sha256(path)
    for wanted, whose in ((arguments.sha256, "--sha256"), (recorded_hash(path), f"{path}.sha256")):
        if wanted and wanted.lower() != found:
            raise WeightsError(f"the hash is {found}, not {wanted} as {whose} says", str(path), "get the file again")
    module = load_weights(path, any_stage=True)
    stored = load_file(str(path))
    broken = [name for name, tensor in stored.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise WeightsError(f"{len(broken)} tensors hold NaN or infinity: {', '.join(broken[:3])}", where=str(path))
    facts = facts_of(path, "verified")
    parameters = sum(p.numel() for name, p in module.named_parameters() if name in stored)
    if arguments.json:
        from zoo.weights import read_header

        print(json.dumps(facts | {"parameters": parameters, "header": asdict(read_header(path))}, indent=2))
    else:
        print(f"{path}: whole; {facts['name']} {facts['preset']}, {parameters:,} parameters, sha256 {found}")
    return EXIT_OK


def _convert(arguments: Namespace) -> int:
    """Published weights of another project, through the method's own renamer."""
    from zoo.models import MODELS

    for option in ("model", "kind", "out"):
        if getattr(arguments, option) is None:
            raise UsageError(f"zoo weights convert needs --{option}", remedy="zoo weights --help")
    if arguments.model not in MODELS:
        raise unknown_name("model", arguments.model, list(MODELS))
    folder = MODELS[arguments.model].rpartition(".")[0]
    try:
        converter = importlib.import_module(f"{folder}.convert")
    except ModuleNotFoundError as error:
        raise UsageError(f"there is no converter for '{arguments.model}'") from error
    path = converter.convert_upstream(Path(arguments.source), arguments.kind, Path(arguments.out))
    facts = facts_of(Path(path), "converted")
    print(f"{path}: {facts['name']} {facts['preset']}, licence {facts['licence']}, sha256 {facts['sha256']}")
    return EXIT_OK


def _pull(arguments: Namespace) -> int:
    from zoo.cli.pull import pull

    path = pull(arguments.source, arguments.sha256)
    print(path)
    return EXIT_OK
