"""Runs a plan in a process of its own: `python -m tests.benchmark.bench_script FOLDER MODEL DEVICES WORKERS`."""

from __future__ import annotations

import sys

from tests.benchmark.test_plan import plan
from zoo.benchmark import run

if __name__ == "__main__":
    folder, model, devices, workers = sys.argv[1:]
    run(plan(model, batch_size=4), folder, devices=int(devices), workers=int(workers))
