"""The cost of one method: times, memory, parameters, MACs and network evaluations. Run as a process of its own."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from zoo.benchmark.plan import Plan
from zoo.benchmark.work import Bench, Item, describe, out_of_memory, peak_mb
from zoo.errors import DataError
from zoo.module import InpaintingModule

WARM_UP = 2
BATCHES = 5

Facts = dict[str, float]


class Counted(NamedTuple):
    """What one completion takes, whatever the machine.

    Attributes:
        parameters: Numbers in the parameters that were read.
        macs: Multiplications with an addition, of convolutions, matrix products and attention.
        evaluations: Calls of the network that takes most of the MACs; 0 where no network is called.
    """

    parameters: int
    macs: int
    evaluations: int


def measure(bench: Bench, items: Sequence[Item], repeats: int) -> Facts:
    """The facts of one method.

    Args:
        bench: The method, set up.
        items: Images of the run, at most a batch.
        repeats: How often one image is completed.

    Raises:
        DataError: None of the images has what the method needs.
    """
    items = [item for item in items if (bench.wanted() & {"caption", "segmentation"}) <= item.keys()]
    if not items:
        raise DataError(f"no image has {', '.join(sorted(bench.wanted()))}, which the method needs")
    turns = [[items[n % len(items)]] for n in range(WARM_UP + repeats)]
    single = sorted([_seconds(bench, one) for one in turns][WARM_UP:])
    batch, seconds = _throughput(bench, items)
    facts: Facts = {
        "latency_median_s": statistics.median(single),
        "latency_p95_s": single[math.ceil(0.95 * len(single)) - 1],
        "images_per_second": batch / seconds,
        "batch": batch,
        "peak_mb": peak_of_process(bench.device),
    }
    return facts | count(bench, items[0])._asdict()  # last: plain kernels take more memory than the usual ones


def _seconds(bench: Bench, items: list[Item]) -> float:
    _wait(bench.device)
    started = time.perf_counter()
    bench.complete(items, bench.plan.seed)
    _wait(bench.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _throughput(bench: Bench, items: Sequence[Item]) -> tuple[int, float]:
    """The images of a batch, halved where memory does not hold it as in the run, and the seconds it takes."""
    size = bench.plan.batch_size
    while True:
        batch = [items[n % len(items)] for n in range(size)]
        try:
            return size, statistics.median([_seconds(bench, batch) for _ in range(1 + BATCHES)][1:])
        except Exception as error:
            if not out_of_memory(error) or size == 1:
                raise
            size //= 2
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def peak_of_process(device: torch.device) -> int:
    """The most memory of the device, or of this process on the CPU, in megabytes.

    Linux hands the peak of a parent on to its children, in what `getrusage` tells, but not in `VmHWM`.
    """
    status = Path("/proc/self/status")
    if device.type != "cuda" and status.is_file():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(int(found[1]) * 1024 / 1e6)
    return peak_mb(device)


# --- counting --------------------------------------------------------------------------------------------------------


def count(bench: Bench, item: Item) -> Counted:
    """Counts in one completion of one image."""
    with _unfused(), FlopCounterMode(display=False) as flops, _Read() as read, _outermost(flops) as networks:
        bench.complete([item], bench.plan.seed)
    spent, calls = networks
    most = max(calls, key=lambda place: (spent[place], calls[place]), default=None)
    return Counted(
        parameters=sum(parameter.numel() for parameter in read.parameters.values()),
        macs=flops.get_total_flops() // 2,
        evaluations=0 if most is None else calls[most],
    )


class _Read(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each parameter that an operation reads, wherever the method keeps it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters: dict[int, nn.Parameter] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, nn.Parameter):
                self.parameters[id(value)] = value
        return func(*args, **(kwargs or {}))


@contextmanager
def _outermost(flops: FlopCounterMode) -> Iterator[tuple[Counter[int], Counter[int]]]:
    """FLOPs and calls of each network that is called from no other one, by its identity.

    These are a method's own networks, be they its sub-modules or held elsewhere: what a sampler calls once a step.
    """
    spent, calls, started = Counter[int](), Counter[int](), list[int]()

    def before(module: nn.Module, _: Any) -> None:
        if not isinstance(module, InpaintingModule):
            started.append(flops.get_total_flops())

    def after(module: nn.Module, _: Any, __: Any) -> None:
        if isinstance(module, InpaintingModule):
            return
        total = flops.get_total_flops() - started.pop()
        if not started:
            spent[id(module)] += total
            calls[id(module)] += 1

    hooks = [register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)]
    try:
        yield spent, calls
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _unfused() -> Iterator[None]:
    """Takes recurrent layers and encoders apart, which would be single operations of which nobody knows the FLOPs."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# --- the process -----------------------------------------------------------------------------------------------------


def run(folder: Path, label: str, items: Path, repeats: int) -> Mapping[str, Any]:
    """The facts of one method of a run, or `error`: why there are none.

    Args:
        folder: The run folder.
        label: The method's label.
        items: A file with a list of items.
        repeats: See `measure`.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    from zoo.benchmark.loop import load_method

    plan = Plan.read(folder)
    method = next(method for method in plan.methods if method.label == label)
    torch.set_num_threads(plan.threads)
    precision: Any = plan.precision
    # This process stands alone, even where torchrun or SLURM started the one that started it.
    fabric = Fabric(accelerator=plan.accelerator, devices=1, precision=precision, plugins=LightningEnvironment())
    try:
        module: InpaintingModule = load_method(method).to(fabric.device)
        bench = Bench(plan, method, module.eval(), fabric.device, fabric.autocast)
        return measure(bench, torch.load(items, weights_only=True), repeats)
    except Exception as error:
        return {"error": describe(error)}


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # small numbers of no consequence make a CPU several times slower
    place, name, file, times, answer = sys.argv[1:]
    content = run(Path(place), name, Path(file), int(times))
    Path(answer).write_text(json.dumps(content), encoding="utf-8")
