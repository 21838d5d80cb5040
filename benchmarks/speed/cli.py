"""How long the front door takes: help, a usage error, and `import zoo`. Targets are milliseconds, not ratios."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

RUNS = 7
COMMANDS = {
    "zoo --help (ms; at most 300)": ["-m", "zoo", "--help"],
    "zoo benchmark --help (ms; at most 300)": ["-m", "zoo", "benchmark", "--help"],
    "zoo fit --model depfill: a usage error (ms; at most 300)": ["-m", "zoo", "fit", "--model", "depfill"],
    "import zoo (ms)": ["-c", "import zoo"],
    "python -c pass, to compare (ms)": ["-c", "pass"],
}


def measure() -> list[dict[str, Any]]:
    """The median of seven runs of each command."""
    rows = []
    for name, arguments in COMMANDS.items():
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            seconds.append(time.perf_counter() - start)
        rows.append({"name": name, "ours_ms": 1000 * statistics.median(seconds)})
    return rows
