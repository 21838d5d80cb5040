"""What needs a GPU, in one call: `python -m benchmarks.gpu --out FOLDER [--dry-run]`.

For each method: its `paper` and `nano` presets train 50 steps (ECDM 20) of their last stage at their own size and batch
in bf16-mixed (seconds per step, images per second, peak memory, all weights finite), of MMInvertFill both stages, and
`zoo benchmark` runs in bf16-mixed. Of ECDM, all of whose steps do the same, the operations of a step are counted and
set against the device's peak. The batches are drawn before, so that the steps are timed and not the loader, whose speed
is given apart; pretrained parts have random weights. Results go to FOLDER/gpu.json. `--dry-run` does the same on the
CPU with two steps of two images at 96 pixels (64 where sizes are powers of two) and narrow networks: it shows that the
command runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from zoo.cli.expand import stage_file
from zoo.data.module import InpaintingData
from zoo.models import build, names, recipe, resolve
from zoo.models.mminvertfill.features import Features
from zoo.models.nigdt.match import InceptionTrunk
from zoo.module import InpaintingModule
from zoo.resources import resource
from zoo.words import SPECIAL, vocabulary

STAGES = {"mminvertfill": ("generator", "inpaint")}  # of others the last one alone
STEPS = {"ecdm": 20}  # of others as many as the settings say
COUNTED = ("ecdm",)  # one step is like the next; others have terms every so many steps, or networks that take turns
TINY: dict[tuple[str, str], dict[str, Any]] = {  # what a dry run has otherwise: on a CPU config F takes minutes
    ("mminvertfill", "nano"): {"size": 64},
    ("mminvertfill", "paper"): {
        "size": 64, "w": 32, "generator_channels": [32] * 5, "style_critic_channels": [32] * 5, "widths": [16, 32, 48],
        "auxiliary": [24, 24, 16], "mean_first": 1000,
    },
    ("ecdm", "paper"): {
        "size": 64, "codec_widths": [8, 8, 16, 16], "codec_groups": 4, "text_width": 16, "text_layers": 1,
        "text_heads": 2, "unet_channels": [8, 16, 16, 16], "unet_heads": 2, "unet_groups": 4,
        "hint_widths": [4, 8, 8, 16], "acda_channels": [4, 8, 8, 16],
    },
}  # fmt: skip
BATCHES = 4  # as many different ones are trained on in turn
VILT_WORDS, CLIP_WORDS = 30_522, 49_408  # rows of the published word tables
PEAKS = {  # bf16 operations per second of dense products, as NVIDIA's data sheets state them, by the device's name
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "NVIDIA A10": 125e12,
}


def train(name: str, preset: str, stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains some steps of a preset's stage on `shapes` drawn at the preset's size.

    Args:
        name: A short name of a method.
        preset: `paper` or `nano`.
        stage: One of the method's.
        settings: `steps`, `batch_size`, `size`, `accelerator`, `precision`; None takes the recipe's.

    Returns:
        What was trained and how fast; of the methods in `COUNTED` also the operations of a step and their share of the
        peak.
    """
    seed_everything(0, verbose=False)
    tiny = settings["size"] is not None
    changes = {"size": settings["size"], **TINY.get((name, preset), {})} if tiny else {}
    data, arguments = _settings(name, preset, stage)
    data |= {"name": "shapes", "root": None, "train_mask": "freeform,object,center"}
    data |= {"batch_size": settings["batch_size"], "size": changes["size"]} if tiny else {}
    module = _ready(build(name, preset, **arguments, **changes, **_text(name, preset)))
    start = time.perf_counter()
    drawn = Drawn(**data)
    batches = list(islice(drawn.train_dataloader(), BATCHES))
    loader = len(batches) * data["batch_size"] / (time.perf_counter() - start)
    clock, counter = StepClock(), StepCount()
    trainer = Trainer(
        accelerator=settings["accelerator"], devices=1, precision=settings["precision"],
        max_steps=min(settings["steps"], STEPS.get(name, settings["steps"])), limit_val_batches=0, logger=False,
        callbacks=[clock, *([counter] if name in COUNTED else [])], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    drawn.batches = list(islice(cycle(batches), trainer.max_steps * module.accumulate))
    trainer.fit(module, drawn)
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    row = {
        "method": name, "preset": preset, "stage": stage, "size": data["size"], "batch_size": data["batch_size"],
        "precision": settings["precision"], "steps": trainer.global_step,
        "seconds_per_step": clock.seconds_per_batch() * module.accumulate,
        "images_per_second": data["batch_size"] / clock.seconds_per_batch(), "peak_mb": peak,
        "loader_images_per_second": loader,
        "finite": all(bool(p.isfinite().all()) for p in module.parameters()),
    }  # fmt: skip
    if name in COUNTED:
        device = torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu"
        row |= utilization(counter.operations * module.accumulate, row["seconds_per_step"], device)
    return row


def utilization(operations: int, seconds: float, device: str) -> dict[str, Any]:
    """How much of what a device could compute was computed.

    Args:
        operations: Of one step; a multiplication and an addition are two.
        seconds: Of one step.
        device: The device's name.

    Returns:
        `flops_per_step`, `peak_flops` (per second) and `share_of_peak`; for a device that is not in `PEAKS` the reason
        why there are no such two, `no_share`.
    """
    if device not in PEAKS:
        return {"flops_per_step": operations, "no_share": f"no peak is stated for '{device}' (benchmarks.gpu.PEAKS)"}
    share = operations / seconds / PEAKS[device]
    return {"flops_per_step": operations, "peak_flops": PEAKS[device], "share_of_peak": share}


def _stages(name: str) -> tuple[str, ...]:
    return STAGES.get(name, resolve(name).stages[-1:])


def _settings(name: str, preset: str, stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a recipe says of the data, and of the method for one stage, with what lies over it for that stage."""
    over = stage_file(resource(f"configs/model/{name}/{preset}.yaml"), stage)
    apart = recipe(name, over.stem) if over.is_file() else {}
    arguments = {"stage": stage} if len(resolve(name).stages) > 1 else {}
    data = {**recipe(name, preset)["data"], **apart.get("data", {})}
    return data, {**apart.get("model", {}).get("init_args", {}), **arguments}


def _ready(module: InpaintingModule) -> InpaintingModule:
    """Lets networks that wait for pretrained weights run with random ones."""
    for part in module.modules():
        if isinstance(part, InceptionTrunk):
            part.load_state_dict(part.state_dict())
        elif isinstance(part, Features):
            part.published = None
    return module


def _text(name: str, preset: str) -> dict[str, Any]:
    """What a method that reads captions is built with: random weights, and a word table of the true size."""
    arguments = recipe(name, preset)["model"]["init_args"]
    accepted = inspect.signature(resolve(name)).parameters
    if "vocabulary" not in accepted:
        return {}
    words = vocabulary(InpaintingData("shapes").captions())
    if "tokenizer" in accepted and arguments.get("tokenizer") != "word":
        return {"vocabulary": _filled(words, VILT_WORDS), "tokenizer": "word", "pretrained": ""}
    if "base" in accepted and arguments.get("base") != "":
        # Without a base the method builds all networks in their sizes, but for the text encoder's inner width.
        return {"vocabulary": _filled(words, CLIP_WORDS), "base": ""}
    return {"vocabulary": words}


def _filled(words: Sequence[str], rows: int) -> list[str]:
    """Words and fillers for a table of so many rows, which has its special tokens besides."""
    return [*words, *(f"filler{number}" for number in range(rows - len(SPECIAL) - len(words)))]


class Drawn(InpaintingData):
    """Gives the batches it is handed, once there are any."""

    batches: Sequence[Any] = ()

    def train_dataloader(self) -> Any:
        handed: Any = self.batches  # a list serves a loader as a dataset
        return DataLoader(handed, batch_size=None) if self.batches else super().train_dataloader()


class StepClock(Callback):
    """Times the steps after the first fifth, when kernels are chosen and memory is warm."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def seconds_per_batch(self) -> float:
        times = self.times[len(self.times) // 5 :]
        return max(times[-1] - times[0], 1e-9) / (len(times) - 1)


class StepCount(Callback):
    """Counts the operations of the first batch, which no clock sees: those of products and convolutions, both ways.

    What checkpointing computes a second time counts a second time: the device does compute it.
    """

    def __init__(self) -> None:
        self.operations = 0
        self._counter = FlopCounterMode(display=False)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.operations = self._counter.get_total_flops()


def benchmark(out: Path, accelerator: str, precision: str, limit: int) -> dict[str, Any]:
    """`zoo benchmark` as typed, in a process of its own."""
    command = [
        "benchmark", "--accelerator", accelerator, "--precision", precision, "--limit", str(limit),
        "--out", str(out / "benchmark"), "--json",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "zoo", *command], capture_output=True, text=True, check=False)
    result = {"command": "zoo " + " ".join(command), "exit": done.returncode, "seconds": time.perf_counter() - start}
    return {**result, "summary": json.loads(done.stdout) if done.returncode == 0 else done.stderr[-2000:]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, tiny, to see that it runs")
    arguments = parser.parse_args(argv)
    if not arguments.dry_run and not torch.cuda.is_available():
        print("no CUDA device is here; --dry-run runs on the CPU", file=sys.stderr)
        return 2
    tiny = {"steps": 2, "batch_size": 2, "size": 96, "accelerator": "cpu", "precision": "bf16-mixed"}
    full = {"steps": 50, "batch_size": None, "size": None, "accelerator": "gpu", "precision": "bf16-mixed"}
    settings: dict[str, Any] = tiny if arguments.dry_run else full
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "device": "cpu (dry run: the figures mean nothing)" if arguments.dry_run else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "fit": [
            train(name, preset, stage, settings)
            for name in names()
            for preset in ("paper", "nano")
            for stage in _stages(name)
        ],
        "benchmark": benchmark(arguments.out, settings["accelerator"], "bf16-mixed", 4 if arguments.dry_run else 512),
    }
    (arguments.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    failed = results["benchmark"]["exit"] != 0 or not all(row["finite"] for row in results["fit"])
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
