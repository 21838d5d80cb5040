"""Measures what the README shows and puts it there: `python -m benchmarks.publish [NAME ...]`.

A name is a mask, or a mask and how captions are edited (`object-deranged`), or a mask and `guided`: edges and
segmentations are shown. For each: `zoo benchmark --dataset shapes --mask MASK [--captions RULE] [--guidance G]
[--samples N] [--cost]` with the shipped weights (several samples and the cost for `object` alone; for `guided` only the
methods that can be guided), then into `benchmarks/results/shapes-NAME/`: the plan, the tables, the strip and all rows.
Where the README has marks for a name, the first of its tables replaces what is between them.

`--tables` measures nothing: it makes the tables anew from the rows that are there, where only their form has changed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from pathlib import Path

from zoo.benchmark import make_plan, measure_cost, run, summarize, write_report
from zoo.benchmark.cost import FILE as COST
from zoo.benchmark.plan import Plan
from zoo.benchmark.planning import GUIDES
from zoo.benchmark.processes import processes_for
from zoo.benchmark.report_files import tables_of
from zoo.benchmark.report_update import marks, update
from zoo.benchmark.store import ROWS, constant, read_rows
from zoo.data.shapes.edits import EDITS
from zoo.models import CONTROLS, names, resolve
from zoo.weights import shipped

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("object", "object-guided", "freeform", "center", "object-deranged", "object-recoloured")
GUIDED = "guided"
SAMPLES = {"object": 5}
COSTED = ("object",)
KEPT = ("plan.json", "summary.json", "table.md", "table.csv", "strip.png")
PACKED = "rows.jsonl.gz"


def place_of(name: str) -> Path:
    """Where the results of a name are kept."""
    return ROOT / "benchmarks" / "results" / f"shapes-{name}"


def publish(name: str) -> None:
    """Runs one benchmark and copies what is kept of it."""
    mask, _, change = name.partition("-")
    captions = change if change in EDITS else "own"
    guidance = GUIDES if change == GUIDED else ()
    models = [*(one for one in shipped_methods() if resolve(one).uses & {*GUIDES}), *CONTROLS] if guidance else None
    target = place_of(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"shapes-{name}"
        samples = SAMPLES.get(name, 0)
        plan = make_plan("shapes", mask, models, captions=captions, guidance=guidance, samples=samples)
        result = run(plan, folder, devices=processes_for(plan, folder))
        if not result.complete or result.failed:
            raise SystemExit(f"{name}: {result.failed} failed rows; nothing is published")
        if name in COSTED and (unknown := measure_cost(folder)):
            raise SystemExit(f"{name}: no cost of {', '.join(unknown)}; nothing is published")
        write_report(folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in (*KEPT, *((COST,) if name in COSTED else ())):
            shutil.copyfile(folder / file, target / file)
        rows = sorted((constant(row) for row in read_rows(folder)), key=lambda row: (row["method"], row["id"]))
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        (target / PACKED).write_bytes(gzip.compress(text.encode(), mtime=0))
    for file in ("plan.json", "summary.json"):  # places on this machine say nothing to others
        path = target / file
        path.write_text(path.read_text().replace(str(folder), f"shapes-{name}").replace(f"{ROOT}/", ""))


def tables(name: str) -> dict[str, bytes]:
    """The tables of a name, made anew from its plan, its rows and its cost."""
    source = place_of(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / source.name
        (folder / ROWS).mkdir(parents=True)
        for file in ("plan.json", *((COST,) if name in COSTED else ())):
            shutil.copyfile(source / file, folder / file)
        (folder / ROWS / "all.jsonl").write_bytes(gzip.decompress((source / PACKED).read_bytes()))
        return tables_of(summarize(folder))


def shipped_methods() -> list[str]:
    """The methods whose nano weights come with the package."""
    return [name for name in names() if shipped(name) is not None]


def update_readme(name: str) -> None:
    """Puts the first table of a name between the README's marks for it, where it has them."""
    path, folder = ROOT / "README.md", place_of(name)
    if marks(name)[0] in path.read_text():
        update(path, Plan.read(folder), (folder / "table.md").read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all where none is named: {', '.join(NAMES)}")
    parser.add_argument("--tables", action="store_true", help="only make the tables anew, from the rows that are there")
    arguments = parser.parse_args(argv)
    for name in arguments.names or NAMES:
        folder = place_of(name)
        if arguments.tables:
            for file, content in tables(name).items():
                (folder / file).write_bytes(content)
        else:
            publish(name)
        print(folder.relative_to(ROOT))
        update_readme(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
