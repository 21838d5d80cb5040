"""`zoo data`: what a dataset needs and holds, fetching what may be fetched, and whether all of it can be read."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.expand import check_data
from zoo.cli.progress import Meter
from zoo.errors import EXIT_DATA, EXIT_OK, DataError, UsageError, ZooError, unknown_name

if TYPE_CHECKING:
    from zoo.data.check import Findings


def run(arguments: Namespace) -> int:
    """Runs one of the actions on a dataset."""
    if arguments.action not in ACTIONS:
        if arguments.action is None:
            raise UsageError("zoo data needs an action", remedy=f"zoo data {'|'.join(ACTIONS)} DATASET")
        raise unknown_name("action", arguments.action, list(ACTIONS))
    if arguments.dataset is None:
        from zoo.data import DATASETS

        raise UsageError(f"zoo data {arguments.action} needs a dataset", remedy=f"one of {', '.join(DATASETS)}")
    check_data(arguments.dataset)
    return ACTIONS[arguments.action](arguments)


# --- info ------------------------------------------------------------------------------------------------------------


def _facts(arguments: Namespace) -> dict[str, Any]:
    from zoo.data.info import describe

    return describe(arguments.dataset, arguments.root, _options(arguments))


def _options(arguments: Namespace) -> dict[str, Any]:
    from zoo.data.info import parse_options

    return parse_options(arguments.dataset, arguments.option)


def _info(arguments: Namespace) -> int:
    facts = _facts(arguments)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return EXIT_OK
    print(f"{facts['name']}: {facts['licence']}")
    if facts["root"]:
        print(f"root: {facts['root']}")
    for source in facts["sources"]:
        _print_source(source)
    said = ""
    for split, found in facts["splits"].items():
        if "error" in found:  # one error in full, not the same three times
            print(f"{split}: cannot be used: {'as above' if found['error'] == said else found['error']}")
            said = found["error"]
            continue
        differs = found.get("official", found["count"]) != found["count"]
        official = f" of {found['official']:,} officially" if differs else ""
        skipped = f", {found['skipped']} files passed over" if found["skipped"] else ""
        classes = f", {found['classes']} classes" if found["classes"] else ""
        print(f"{split}: {found['count']} images{official} with {', '.join(found['provides'])}{classes}{skipped}")
        _print_origin(found)
    return EXIT_OK


def _print_origin(found: dict[str, Any]) -> None:
    """Which lists a split and its captions are from, where the dataset says so."""
    said = {
        "split from": ", ".join(found.get("split_source", [])),
        "captions from": found.get("caption_source", ""),
        "sha256 of the list of ids": found.get("list_sha256", ""),
    }
    if any(said.values()):
        print("  " + "; ".join(f"{what} {value}" for what, value in said.items() if value))


def _print_source(source: dict[str, Any]) -> None:
    from zoo.data.sources import size_text

    how = "here" if source["here"] else "zoo data prepare --download fetches it" if source["automatic"] else "by hand"
    print(f"  {source['what']}: {size_text(source['size'])}, {how}")
    print(f"    {source['url']}")
    print(f"    licence: {source['licence']}")
    if source["note"] and not source["here"]:
        print(f"    {source['note']}")


# --- verify ----------------------------------------------------------------------------------------------------------


def _verify(arguments: Namespace) -> int:
    from zoo.data import SPLITS

    splits = SPLITS if arguments.split == "all" else (arguments.split,)
    reports = [_verify_split(arguments, split) for split in splits]
    if arguments.json:
        print(json.dumps(reports if arguments.split == "all" else reports[0], indent=2))
    return EXIT_OK if all(report["ok"] for report in reports) else EXIT_DATA


def _verify_split(arguments: Namespace, split: str) -> dict[str, Any]:
    found = _findings(arguments, split)
    wrong = found.wrong_count and not arguments.partial
    if not arguments.json:
        prefix = f"{split}: " if arguments.split == "all" else ""
        print(f"{prefix}{found.n - found.unread} of {found.n} samples can be read")
        if found.index or found.note:
            print(f"{prefix}{found.note or f'hashes: {found.index}'}")
    _explain(found.changed, wrong, found.n, found.official, split)
    return {
        "dataset": arguments.dataset,
        "split": split,
        "n": found.n,
        "official": found.official,
        "damaged": found.damaged,
        "changed": found.changed,
        "index": found.index or None,
        "ok": not (found.damaged or found.changed or wrong),
    }


def _findings(arguments: Namespace, split: str) -> Findings:
    """Reads every sample of a split, and says on stderr how far it is and what cannot be read."""
    from zoo.data import dataset_class, open_dataset
    from zoo.data.check import Checked, check_split
    from zoo.data.info import root_of

    options = _options(arguments)
    dataset = open_dataset(
        arguments.dataset, split=split, size=arguments.size, root=arguments.root, count=arguments.limit, **options
    )
    root = root_of(dataset_class(arguments.dataset), arguments.root)
    damaged = 0
    with Meter(f"verify {split}", len(dataset), seconds=2.0) as meter:

        def tell(done: int, checked: Checked) -> None:
            nonlocal damaged
            if checked.error:
                damaged += 1
                meter.say(f"{checked.id}: {checked.error}")
            meter.update(done, f"{damaged} damaged")

        return check_split(
            dataset,
            root,
            split,
            options,
            limit=arguments.limit,
            workers=arguments.workers,
            reindex=arguments.reindex,
            tell=tell,
        )


def _explain(changed: list[dict[str, str]], wrong: bool, n: int, official: int | None, split: str) -> None:
    """Says on stderr what is wrong besides samples that cannot be read."""
    for entry in changed[:20]:
        print(f"{entry['file']}: {entry['error']}", file=sys.stderr)
    if len(changed) > 20:
        print(f"... and {len(changed) - 20} more", file=sys.stderr)
    if changed:
        remedy = "get these files again; if the change is meant: zoo data verify --reindex"
        _say(DataError(f"{len(changed)} files are not as they were when the index was made", remedy=remedy))
    if wrong:
        remedy = "get what is missing; to accept a part: zoo data verify --partial"
        _say(DataError(f"split '{split}' has {n:,} images, officially {official:,}", remedy=remedy))


def _say(error: ZooError) -> None:
    print(f"zoo: {error}", file=sys.stderr)


# --- prepare ---------------------------------------------------------------------------------------------------------


def _prepare(arguments: Namespace) -> int:
    from zoo.data import dataset_class
    from zoo.data.info import needed, root_of

    found = dataset_class(arguments.dataset)
    root = root_of(found, arguments.root)
    sources = _wanted(list(needed(found, _options(arguments))), arguments.only)
    if root is not None and sources:
        _put_in_place(arguments, sources, root)
    facts = _facts(arguments)
    ready = [split for split, fact in facts["splits"].items() if "error" not in fact]
    if arguments.json:
        print(json.dumps(facts | {"ready": ready}, indent=2))
    elif not facts["layout"]:
        print(f"{facts['name']} needs no preparation: it is drawn on demand")
    elif ready:
        name = facts["name"]
        print(f"{name}: {', '.join(ready)} can be used, in {facts['root']}; zoo data verify {name} checks it")
    else:
        _print_instructions(facts)
    if root is not None and not ready and hasattr(found, "instructions"):
        print(found.instructions(root, **_options(arguments)), file=sys.stderr if arguments.json else sys.stdout)
    errors = {split: fact["error"] for split, fact in facts["splits"].items() if "error" in fact}
    for error in dict.fromkeys(errors.values()):
        print(f"{', '.join(split for split in errors if errors[split] == error)}: {error}", file=sys.stderr)
    return EXIT_OK if ready else EXIT_DATA


def _wanted(sources: list[Any], only: str | None) -> list[Any]:
    """The downloads that `--only` names, by a part of their file's name each."""
    if only is None:
        return sources
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not any(word in source.file for source in sources):
            files = ", ".join(source.file for source in sources)
            raise UsageError(f"no download's file has '{word}' in its name", remedy=f"files: {files}")
    return [source for source in sources if any(word in source.file for word in words)]


def _put_in_place(arguments: Namespace, sources: list[Any], root: Path) -> None:
    """Unpacks the archives that lie in the root, and with `--download` fetches what may be fetched."""
    from zoo.data.prepare import check_before, install, is_here, unpack_waiting, waiting_archive
    from zoo.data.sources import size_text

    for source in sources:
        archive = waiting_archive(source, root)
        if archive is not None:
            _with_meter(source.file, partial(unpack_waiting, source, archive, root))
    missing = [source for source in sources if source.automatic and (arguments.again or not is_here(source, root))]
    if not arguments.download or not missing:
        return
    for source in missing:
        print(f"fetching {source.what}: {source.file}, {size_text(source.size)}", file=sys.stderr)
        print(f"  from {source.url}\n  licence: {source.licence}", file=sys.stderr)
    print(f"  to {root}: {size_text(sum(source.size for source in missing))} in all", file=sys.stderr)
    check_before(missing, root)
    for source in missing:
        _with_meter(source.file, partial(install, source, root, keep=arguments.keep))


def _with_meter(file: str, work: Callable[..., str]) -> None:
    """Does a piece of work that takes `tell`, shows how far it is, and says on stderr what came of it."""
    meters: dict[str, Meter] = {}
    try:

        def tell(what: str, done: int, total: int) -> None:
            if what not in meters:
                for meter in meters.values():
                    meter.close()
                meters[what] = Meter(f"{what} {file}", total or None, seconds=5.0).__enter__()
            meters[what].update(done, f"{done / 1e6:.0f} MB")

        story = work(tell=tell)
    finally:
        for meter in meters.values():
            meter.close()
    print(story, file=sys.stderr)


def _print_instructions(facts: dict[str, Any]) -> None:
    print(facts["layout"])
    print(f"\nlicence: {facts['licence']}")
    if facts["root"]:
        print(f"root: {facts['root']}")
    for source in facts["sources"]:
        _print_source(source)
    if not facts["sources"]:
        return
    automatic = any(source["automatic"] for source in facts["sources"])
    how = f"zoo data prepare {facts['name']} --download fetches what may be fetched, " if automatic else ""
    print(f"nothing is downloaded without --download: {how}archives put into the root are unpacked by the same command")


def _shard(arguments: Namespace) -> int:
    from zoo.cli import shard

    return shard.run(arguments)


ACTIONS: dict[str, Callable[[Namespace], int]] = {
    "prepare": _prepare,
    "verify": _verify,
    "info": _info,
    "shard": _shard,
}
