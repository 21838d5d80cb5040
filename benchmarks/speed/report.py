"""How long reports of many rows take: `python -m benchmarks.speed.report [--runs 18] [--images 36500] [--methods 5]`.

Each run folder is that of one dataset under one kind of mask, as `zoo benchmark` leaves it: 18 runs of 36,500 images
and five methods are 3.3 million rows. The rows are made up: every metric of every run, hole ratios, captions, four
files per method as four processes write them. Timed are merging and all files of the report, folder by folder, in one
process; what it takes to make the rows up is not. `--together` puts all rows into one folder instead.
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


def measure(folders: list[Path], channel: Any) -> None:
    """Reports of all folders in this process: wall and processor seconds, and peak memory in MiB, into the channel."""
    from zoo.benchmark import write_report

    start, worked = time.perf_counter(), time.process_time()
    for folder in folders:
        write_report(folder)
    seconds = time.perf_counter() - start, time.process_time() - worked
    channel.put((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main(argv: list[str] | None = None) -> int:
    """Makes the rows up, measures in a process of its own, and prints what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.report", description=__doc__)
    parser.add_argument("--runs", type=int, default=18)
    parser.add_argument("--images", type=int, default=36_500)
    parser.add_argument("--methods", type=int, default=5)
    parser.add_argument("--together", action="store_true", help="one folder of runs x images")
    arguments = parser.parse_args(argv)
    runs, images = (1, arguments.runs * arguments.images) if arguments.together else (arguments.runs, arguments.images)
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / f"run{number}" for number in range(runs)]
        rows = sum(make_run(folder, images, arguments.methods, seed) for seed, folder in enumerate(folders))
        context = multiprocessing.get_context("spawn")
        channel = context.Queue()
        process = context.Process(target=measure, args=(folders, channel))
        process.start()
        seconds, worked, peak = channel.get()
        process.join()
    print(f"{rows:,} rows in {runs} folders: {seconds:.1f} s ({worked:.1f} s of processor), peak {peak:,.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
