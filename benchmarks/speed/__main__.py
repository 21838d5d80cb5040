"""Speed as ratios in one run: `python -m benchmarks.speed [PART ...] [--out FOLDER]`.

Each part times the project's code and a plain formulation in turn, in one process and on one thread, so that the ratio
holds on any machine. `--out` writes one JSON file per part with the machine and the versions.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PARTS = ("attention", "masks", "metrics", "loading", "transport", "synthesis", "gma", "cli", "report")
LIBRARIES = ("torch", "numpy", "opencv-python-headless", "torchmetrics", "pillow", "pot")


def machine() -> dict[str, Any]:
    """Processor, cores, Python and the versions that timings depend on."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "threads": 1,
        **{name: version(name) for name in LIBRARIES},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of a part as text."""
    lines = [f"{'what':<58}{'ours ms':>10}{'plain ms':>10}{'ratio':>8}{'target':>8}"]
    for row in rows:
        cells = [f"{row[k]:.3g}" if row.get(k) is not None else "-" for k in ("ours_ms", "plain_ms", "ratio", "target")]
        lines.append(f"{row['name']:<58}{cells[0]:>10}{cells[1]:>10}{cells[2]:>8}{cells[3]:>8}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="all of them where none is named")
    parser.add_argument("--out", type=Path, help="write FOLDER/<part>.json")
    arguments = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for part in arguments.parts or PARTS:
        rows = importlib.import_module(f"benchmarks.speed.{part}").measure()
        print(f"\n{part}\n{table(rows)}", flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            command = f"python -m benchmarks.speed {part} --out {arguments.out}"
            content = {"command": command, "machine": machine(), "results": rows}
            (arguments.out / f"{part}.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
