"""The cost pass: what completing an image takes, method by method, each in a process of its own.

It reads a run folder and writes `RUN/cost.json`, which the report shows; rows, plan and summary stay as they are:

    {"plan": hash, "device": text, "torch": version, "threads": n, "repeats": n,
     "methods": {label: {fact: number}}, "failed": {label: why}}

with the facts of `FACTS`. A method that fails here has no facts, and the others are measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.benchmark.plan import Plan
    from zoo.benchmark.work import Item

FILE = "cost.json"
SECONDS = "latency_median_s"
FACTS = {
    SECONDS: "latency, median (s)",
    "latency_p95_s": "latency, p95 (s)",
    "images_per_second": "images/s",
    "batch": "in batches of",
    "peak_mb": "peak memory (MB)",
    "parameters": "parameters",
    "macs": "MACs per image",
    "evaluations": "network evaluations",
}
DEFINITIONS = (
    "Latency: one image, from memory to its composite, after a warm-up. Images/s: in batches as the run's. Peak "
    "memory: of a process of its own at that batch size; on a CPU with interpreter and libraries, as of a control. "
    "Parameters: those that completing an image reads. MACs: of convolutions, matrix products and attention; other "
    "operations are not counted. Network evaluations: calls, for one image, of the network that takes most of them."
)
REPEATS = 20

Progress = Callable[[int, int, str], None]


def measure_cost(folder: str | Path, repeats: int = REPEATS, progress: Progress | None = None) -> dict[str, str]:
    """Measures what a run's methods cost on this machine and writes it into the run folder.

    What was measured before on the same device, with the same libraries, stays; delete `cost.json` to measure anew.

    Args:
        folder: The folder of a run.
        repeats: How often one image is completed, after a warm-up.
        progress: Called with the methods done, the methods in all, and the label of the one at work.

    Returns:
        Why there are no facts of a method, by its label; empty where all could be measured.

    Raises:
        DataError: No run folder, or its data are not here.
    """
    from zoo.benchmark.plan import Plan

    folder = Path(folder)
    plan = Plan.read(folder)
    about = _about(plan, repeats)
    methods = _stored(folder, about)
    failed: dict[str, str] = {}
    todo = [method.label for method in plan.methods if method.label not in methods]
    done = len(plan.methods) - len(todo)
    if todo:
        with tempfile.TemporaryDirectory(prefix="zoo-cost-") as place:
            items = _write_items(folder, plan, Path(place))
            for number, label in enumerate(todo, done):
                if progress is not None:
                    progress(number, len(plan.methods), label)
                result = _measured(folder, label, items, repeats, Path(place) / "facts.json")
                if isinstance(result, str):
                    failed[label] = result
                else:
                    methods[label] = result
                _write(folder, {**about, "methods": methods, "failed": failed})
    if progress is not None:
        progress(len(plan.methods), len(plan.methods), "cost")
    return failed


def _about(plan: Plan, repeats: int) -> dict[str, Any]:
    """What times depend on: facts that differ in it must not stand in one table."""
    from zoo.benchmark.environment import describe_environment

    found = describe_environment(plan)
    return {
        "plan": plan.hash,
        "device": found["device"],
        "torch": found["packages"]["torch"],
        "threads": plan.threads,
        "repeats": repeats,
    }


def _stored(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Facts that were measured before under the same circumstances; a file that cannot be read counts for nothing."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        same = all(content.get(name) == value for name, value in about.items())
        return dict(content["methods"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(folder: Path, content: dict[str, Any]) -> None:
    from zoo.benchmark.store import write_whole

    write_whole(folder / FILE, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _write_items(folder: Path, plan: Plan, place: Path) -> Path:
    """The run's first images, a batch of them, in a file: the memory that a dataset takes is no method's."""
    import torch

    from zoo.benchmark.masks import read_masks
    from zoo.data import open_dataset
    from zoo.data.masked import EvaluationSet

    data = open_dataset(
        plan.dataset, split=plan.split, size=plan.size, root=plan.root, count=plan.count, **plan.data_options
    )
    items = EvaluationSet(data, plan.mask, plan.mask_seed, captions=plan.captions, masks=read_masks(folder))
    found: list[Item] = []
    for index in range(plan.count):
        try:
            found.append(items[index])
        except Exception:  # its rows say why
            continue
        if len(found) == plan.batch_size:
            break
    if not found:
        raise DataError("no image of the run can be read: its cost cannot be measured", where=str(folder))
    torch.save(found, place / "items.pt")
    return place / "items.pt"


def _measured(folder: Path, label: str, items: Path, repeats: int, answer: Path) -> dict[str, Any] | str:
    """The facts of one method, or why there are none."""
    answer.unlink(missing_ok=True)
    words = [sys.executable, "-m", "zoo.benchmark.cost_method", folder, label, items, repeats, answer]
    # Whatever this process can import, such as a method beside the user's script, that one can, too.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, check=False)
    if not answer.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"its process ended with code {done.returncode}: {last}"
    content: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return str(content["error"]) if "error" in content else content
