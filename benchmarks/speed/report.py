"""How long reports of many rows take: `python -m benchmarks.speed.report [--runs 18] [--images 36500] [--methods 5]`.

Each run folder is that of one dataset under one kind of mask, as `zoo benchmark` leaves it: 18 runs of 36,500 images
and five methods are 3.3 million rows. The rows are made up: every metric of every run, hole ratios, captions, four
files per method as four processes write them. Timed are merging and all files of the report, folder by folder, in one
process; what it takes to make the rows up is not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from zoo.benchmark.masks import FILE as MASKS
from zoo.benchmark.plan import FILE as PLAN
from zoo.benchmark.plan import MethodPlan, Plan
from zoo.masks.manifest import Entry, Manifest, write
from zoo.metrics.image import NAMES

RUNS, IMAGES, METHODS = 18, 36_500, 5
SECONDS, MEBIBYTES = 300, 4096  # what all of them may take
WRITERS = 4
SIZE = 64


def method(number: int) -> MethodPlan:
    """A made-up method."""
    sha = f"{number:064x}"
    return MethodPlan(f"method{number}", f"method{number}", f"made.up.Method{number}", "paper", "coco", sha)


def make_run(folder: Path, images: int, methods: int, seed: int) -> int:
    """Writes a run folder with made-up rows; gives how many.

    Args:
        folder: A new folder.
        images: How many.
        methods: How many, one of them not trained.
        seed: Of the values.
    """
    plans = (*map(method, range(methods - 1)), MethodPlan("telea", "telea", "zoo.models.controls.Telea"))
    plan = Plan(
        "coco", "test", None, {}, images, SIZE, f"{seed:064x}", "irregular:10-20", 0, "", plans, 0, (), 16, "32-true",
        "cpu", 1, {"metrics": "1"}, "0.1.0",
    )  # fmt: skip
    (folder / "rows").mkdir(parents=True)
    (folder / PLAN).write_text(plan.to_json())
    ids = [f"coco/test/{number:012d}" for number in range(images)]
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:40, 20:44] = 1
    entry = Entry.of("", mask)
    entries = {sample: Entry(sample, entry.size, entry.rle, entry.ratio, entry.sha) for sample in ids}
    write(folder / MASKS, Manifest("coco", "test", "irregular:10-20", 0, entries))
    generator = np.random.default_rng(seed)
    ratios = generator.uniform(0.01, 0.6, images).round(6).tolist()
    hard = generator.random((images, 1))
    for place, one in enumerate(plans):
        values = np.abs(hard + 0.1 * place + 0.3 * generator.random((images, len(NAMES)))).tolist()
        for writer in range(WRITERS):
            with (folder / "rows" / f"{one.label}-{writer}of{WRITERS}.jsonl").open("w") as file:
                file.writelines(
                    json.dumps(_row(one, ids[k], ratios[k], values[k])) + "\n" for k in range(writer, images, WRITERS)
                )
    return images * methods


def _row(method: MethodPlan, sample: str, ratio: float, values: list[float]) -> dict[str, Any]:
    return {
        "method": method.label, "weights": method.weights_sha256, "id": sample, "mask": "irregular:10-20",
        "mask_seed": 0, "caption": f"a picture of the thing number {sample[-6:]} beside another one", "seed": 0,
        "guidance": [], "preset": method.preset, "trained_on": method.trained_on, "hole_ratio": ratio,
        **dict(zip(NAMES, values, strict=True)), "image_hash": sample[-12:] + "0000", "mask_hash": "f8cb050630f739d6",
        "seconds": 0.01, "at": "2026-01-01T00:00:00", "batch": 16,
    }  # fmt: skip


def work(folders: list[Path], channel: Any) -> None:
    """Reports of all folders in this process: wall and processor seconds, and peak memory in MiB, into the channel."""
    from zoo.benchmark import write_report

    start, worked = time.perf_counter(), time.process_time()
    for folder in folders:
        write_report(folder)
    seconds = time.perf_counter() - start, time.process_time() - worked
    channel.put((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(runs: int = RUNS, images: int = IMAGES, methods: int = METHODS) -> list[dict[str, Any]]:
    """Makes the rows up and reports in a process of its own; the ratios are to the bounds, and 1 or less keeps them."""
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / f"run{number}" for number in range(runs)]
        rows = sum(make_run(folder, images, methods, seed) for seed, folder in enumerate(folders))
        context = multiprocessing.get_context("spawn")
        channel = context.Queue()
        process = context.Process(target=work, args=(folders, channel))
        process.start()
        seconds, worked, peak = channel.get()
        process.join()
    what = f"{rows:,} rows in {runs} folders"
    found = (("wall", seconds, SECONDS), ("processor", worked, SECONDS), ("peak MiB", peak, MEBIBYTES))
    return [
        {"name": f"{what}: {name}", "ours_ms": None if bound == MEBIBYTES else 1000 * value, "plain_ms": None,
         "ratio": value / bound, "target": 1.0, "measured": value, "bound": bound}
        for name, value, bound in found
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """As `python -m benchmarks.speed report`, of as many rows as are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.report", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--methods", type=int, default=METHODS)
    arguments = parser.parse_args(argv)
    for row in measure(arguments.runs, arguments.images, arguments.methods):
        print(f"{row['name']}: {row['measured']:.1f} (bound {row['bound']})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
