"""What needs a GPU, in one call: `python -m benchmarks.gpu --out FOLDER [--dry-run]`.

For each method: its `paper` and `nano` presets train 50 steps of their last stage at their own size and batch in
bf16-mixed (images per second, peak memory, all weights finite), of MMInvertFill both stages, and `zoo benchmark` runs
in bf16-mixed. The batches are drawn before, so that the steps are timed and not the loader, whose speed is given apart;
pretrained parts have random weights. Results go to FOLDER/gpu.json. `--dry-run` does the same on the CPU with two steps
of two images at 96 pixels (64 where sizes are powers of two): it shows that the command runs, and its figures mean
nothing.
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

from zoo.cli.expand import stage_file
from zoo.data.module import InpaintingData
from zoo.models import build, recipe, resolve
from zoo.models.mminvertfill.features import Features
from zoo.models.nigdt.match import InceptionTrunk
from zoo.module import InpaintingModule
from zoo.resources import resource
from zoo.words import SPECIAL, vocabulary

METHODS = ("deepfill", "cma", "nigdt", "mminvertfill")
STAGES = {"mminvertfill": ("generator", "inpaint")}  # of others the last one alone
TINY: dict[tuple[str, str], dict[str, Any]] = {  # what a dry run has otherwise: on a CPU config F takes minutes
    ("mminvertfill", "nano"): {"size": 64},
    ("mminvertfill", "paper"): {
        "size": 64, "w": 32, "generator_channels": [32] * 5, "style_critic_channels": [32] * 5, "widths": [16, 32, 48],
        "auxiliary": [24, 24, 16], "mean_first": 1000,
    },
}  # fmt: skip
BATCHES = 4  # as many different ones are trained on in turn
WORD_PIECES = 30_522 - len(SPECIAL)  # rows of ViLT's word table that are no special tokens


def train(name: str, preset: str, stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains some steps of a preset's stage on `shapes` drawn at the preset's size.

    Args:
        name: A short name of a method.
        preset: `paper` or `nano`.
        stage: One of the method's.
        settings: `steps`, `batch_size`, `size`, `accelerator`, `precision`; None takes the recipe's.
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
    trainer = Trainer(
        accelerator=settings["accelerator"], devices=1, precision=settings["precision"], max_steps=settings["steps"],
        limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    clock = StepClock()
    trainer.callbacks.append(clock)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    drawn.batches = list(islice(cycle(batches), settings["steps"] * module.accumulate))
    trainer.fit(module, drawn)
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    return {
        "method": name, "preset": preset, "stage": stage, "size": data["size"], "batch_size": data["batch_size"],
        "precision": settings["precision"], "steps": trainer.global_step,
        "images_per_second": clock.images_per_second(data["batch_size"]), "peak_mb": peak,
        "loader_images_per_second": loader,
        "finite": all(bool(p.isfinite().all()) for p in module.parameters()),
    }  # fmt: skip


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
    if "tokenizer" not in accepted or arguments.get("tokenizer") == "word":
        return {"vocabulary": words}
    words += [f"filler{number}" for number in range(WORD_PIECES - len(words))]
    return {"vocabulary": words, "tokenizer": "word", "pretrained": ""}


class Drawn(InpaintingData):
    """Gives the batches it is handed, once there are any."""

    batches: Sequence[Any] = ()

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None) if self.batches else super().train_dataloader()  # type: ignore[return-value]


class StepClock(Callback):
    """Times the steps after the first fifth, when kernels are chosen and memory is warm."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def images_per_second(self, batch_size: int) -> float:
        times = self.times[len(self.times) // 5 :]
        return batch_size * (len(times) - 1) / max(times[-1] - times[0], 1e-9)


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
    settings = tiny if arguments.dry_run else full
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "device": "cpu (dry run: the figures mean nothing)" if arguments.dry_run else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "fit": [
            train(name, preset, stage, settings)
            for name in METHODS
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
