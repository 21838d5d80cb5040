"""`zoo data`: what a dataset holds, whether it can be read, and what it needs."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from zoo.cli.expand import check_data
from zoo.cli.progress import Meter
from zoo.errors import EXIT_DATA, EXIT_OK, UsageError, unknown_name

ACTIONS = ("prepare", "verify", "info")


def run(arguments: Namespace) -> int:
    """Runs one of the actions on a dataset."""
    if arguments.action not in ACTIONS:
        if arguments.action is None:
            raise UsageError("zoo data needs an action", remedy="zoo data prepare|verify|info DATASET")
        raise unknown_name("action", arguments.action, list(ACTIONS))
    if arguments.dataset is None:
        from zoo.data import DATASETS

        raise UsageError(f"zoo data {arguments.action} needs a dataset", remedy=f"one of {', '.join(DATASETS)}")
    check_data(arguments.dataset)
    return {"prepare": _prepare, "verify": _verify, "info": _info}[arguments.action](arguments)


def _info(arguments: Namespace) -> int:
    from zoo.data.info import describe

    facts = describe(arguments.dataset, arguments.root)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return EXIT_OK
    print(f"{facts['name']}: {facts['licence']}")
    if facts["root"]:
        print(f"root: {facts['root']}")
    for split, found in facts["splits"].items():
        if "error" in found:
            print(f"{split}: cannot be used: {found['error']}")
            continue
        skipped = f", {found['skipped']} files passed over" if found["skipped"] else ""
        classes = f", {found['classes']} classes" if found["classes"] else ""
        print(f"{split}: {found['count']} images with {', '.join(found['provides'])}{classes}{skipped}")
    return EXIT_OK


def _verify(arguments: Namespace) -> int:
    from zoo.data import open_dataset
    from zoo.data.info import verify

    dataset = open_dataset(
        arguments.dataset, split=arguments.split, size=arguments.size, root=arguments.root, count=arguments.limit
    )
    damaged: list[dict[str, str]] = []
    with Meter("verify", len(dataset), seconds=2.0) as meter:
        for index, (sample, error) in enumerate(verify(dataset), 1):
            if error is not None:
                damaged.append({"id": sample, "error": str(error)})
                meter.say(f"{sample}: {error}")
            meter.update(index, f"{len(damaged)} damaged")
    if arguments.json:
        print(json.dumps({"dataset": arguments.dataset, "n": len(dataset), "damaged": damaged}, indent=2))
    else:
        print(f"{len(dataset) - len(damaged)} of {len(dataset)} samples can be read")
    return EXIT_DATA if damaged else EXIT_OK


def _prepare(arguments: Namespace) -> int:
    from zoo.data.info import describe

    facts = describe(arguments.dataset, arguments.root)
    ready = [split for split, found in facts["splits"].items() if "error" not in found]
    if arguments.json:
        print(json.dumps(facts | {"ready": ready}, indent=2))
    elif not facts["layout"]:
        print(f"{facts['name']} needs no preparation: it is drawn on demand")
    else:
        print(facts["layout"])
        print(f"\nlicence: {facts['licence']}")
        print("nothing is downloaded by this version: put the files there, then zoo data verify " + arguments.dataset)
    for split, found in facts["splits"].items():
        if "error" in found:
            print(f"{split}: {found['error']}", file=sys.stderr)
    return EXIT_OK if ready else EXIT_DATA
