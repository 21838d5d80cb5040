"""Measures what the README shows and puts it there: `python -m benchmarks.publish [object freeform center]`.

For each mask: `zoo benchmark --dataset shapes --mask MASK` with the shipped weights, then into
`benchmarks/results/shapes-MASK/`: the plan, the tables, the strip and all rows. Where the README has marks for
a mask, the table between them is replaced. Nobody types a result.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from pathlib import Path

from zoo.benchmark import make_plan, run, write_report
from zoo.benchmark.store import constant, read_rows

ROOT = Path(__file__).resolve().parents[1]
MASKS = ("object", "freeform", "center")
KEPT = ("plan.json", "summary.json", "table.md", "table.csv", "strip.png")


def publish(mask: str) -> Path:
    """Runs one benchmark and copies what is kept of it; returns the folder."""
    target = ROOT / "benchmarks" / "results" / f"shapes-{mask}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"shapes-{mask}"
        result = run(make_plan("shapes", mask), folder)
        if not result.complete or result.failed:
            raise SystemExit(f"{mask}: {result.failed} failed rows; nothing is published")
        write_report(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(folder / name, target / name)
        rows = sorted((constant(row) for row in read_rows(folder)), key=lambda row: (row["method"], row["id"]))
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        (target / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    for name in ("plan.json", "summary.json"):  # places on this machine say nothing to others
        path = target / name
        path.write_text(path.read_text().replace(str(folder), f"shapes-{mask}").replace(f"{ROOT}/", ""))
    return target


def update_readme(mask: str, table: str) -> None:
    """Replaces the table between the README's marks for a mask, where it has them."""
    path = ROOT / "README.md"
    begin, end = f"<!-- table {mask}: begin -->", f"<!-- table {mask}: end -->"
    before, found, rest = path.read_text().partition(begin)
    if found:
        path.write_text(f"{before}{begin}\n{table.strip()}\n{end}{rest.partition(end)[2]}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("masks", nargs="*", help="of the built-in scenes; all three where none is named")
    arguments = parser.parse_args(argv)
    for mask in arguments.masks or MASKS:
        folder = publish(mask)
        print(folder.relative_to(ROOT))
        update_readme(mask, (folder / "table.md").read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
