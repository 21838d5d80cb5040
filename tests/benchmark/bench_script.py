"""A plan in a process of its own: `python -m tests.benchmark.bench_script FOLDER MODEL DEVICES WORKERS [ASKED]`."""

from __future__ import annotations

import sys
from typing import Any

from tests.benchmark.test_plan import plan
from zoo.benchmark import run

if __name__ == "__main__":
    folder, model, devices, workers, *metrics = sys.argv[1:]
    options: dict[str, Any] = {"size": 32, "metrics": metrics} if metrics else {}
    run(plan(model, batch_size=4, **options), folder, devices=int(devices), workers=int(workers))
