"""What a finished stage leaves behind: weights with their provenance, a picture, and figures."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.cli.progress import figures
from zoo.compose import hide, to_uint8
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.batch import Batch
    from zoo.cli.lightning import ZooCLI
    from zoo.module import InpaintingModule

PACKAGES = ("torch", "lightning", "numpy", "kornia")


def inherited_licence(run: Path, stages: Sequence[str], foreign: Sequence[str] = ()) -> str:
    """The licence of weights that build on those of earlier stages, which may have been converted from published ones.

    Args:
        run: The run folder.
        stages: The stages before, finished or not there.
        foreign: The terms of published weights that the method itself starts from (`InpaintingModule.licences`).

    Returns:
        The licences of those weights that are not this project's own; its own where there are none.
    """
    from zoo.weights import LICENCE, read_header

    files = [path for name in stages if (path := run / name / "weights.safetensors").is_file()]
    found = {*foreign, *(read_header(path).licence for path in files)} - {LICENCE}
    return "; ".join(sorted(found)) or LICENCE


def finish(cli: ZooCLI, folder: Path, stage: str, command: Sequence[str], licence: str) -> None:
    """Validates what will be exported, writes it, and says where it is. Every process calls this, one writes.

    Args:
        cli: The command line after its fit.
        folder: RUN/STAGE.
        stage: The name of the stage.
        command: What the user typed.
        licence: Of the weights.
    """
    from zoo.cli.callbacks import Samples, shown
    from zoo.cli.checkpoint import Ema
    from zoo.weights import save_weights

    trainer, module = cli.trainer, cli.model
    for average in (callback for callback in cli.callbacks if isinstance(callback, Ema)):
        average.finish(module)
    samples = next(callback for callback in cli.callbacks if isinstance(callback, Samples))
    step = trainer.global_step
    if samples.validated_at != step and trainer.limit_val_batches:
        trainer.validate(module, datamodule=cli.datamodule, verbose=False)
    if not trainer.is_global_zero:
        return
    story = provenance(cli, stage, step, samples.seen, samples.values, command)
    path = save_weights(
        module, folder / "weights.safetensors", preset=cli.config.preset, provenance=story, licence=licence
    )
    print(f"{stage} finished after {step} iterations")
    if samples.values:
        print(f"validation: {figures(shown(samples.values))}")
    print(f"weights: {path}")
    if samples.batch is not None and module.completes:
        print(f"samples: {save_samples(module, samples.batch, folder.parent / 'samples.png')}")
        if "caption" in module.needs:
            print(f"captions: {save_captions(samples.batch, folder.parent / 'samples.txt')}, a line for each column")
    if not module.completes:
        made = save_sheet(module, folder.parent / f"{stage}.png")
        if made is not None:
            print(f"made: {made}")


def provenance(
    cli: ZooCLI, stage: str, step: int, seen: int, values: dict[str, float], command: Sequence[str]
) -> dict[str, Any]:
    """Where weights come from: command, seed, code, data, figures. No date: the same run gives the same file."""
    data, trainer = cli.config.data, cli.config.trainer
    story: dict[str, Any] = {
        "command": shlex.join(command),
        "stage": stage,
        "seed": cli.config.seed_everything,
        "zoo": __version__,
        "iterations": step,
        "images_seen": seen,
        "data": {name: data[name] for name in ("name", "size", "batch_size", "seed", "train_mask", "train_count")},
        "licence_of_data": str(cli.datamodule.dataset("train").licence),
        "precision": str(trainer.precision or "32-true"),
        "devices": cli.trainer.world_size,
        "versions": versions(),
        "validation": {name: round(value, 6) for name, value in values.items()},
    }
    if cli.config.ema is not None:
        story["ema"] = cli.config.ema
    commit = git_commit()
    if commit:
        story["commit"] = commit
    return story


def versions() -> dict[str, str]:
    """The versions of the packages that training depends on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with a mark where files differ; None in a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def save_samples(module: InpaintingModule, batch: Batch, path: Path) -> Path:
    """Writes a sheet of images, a row each for input, completed and truth.

    Args:
        module: The method.
        batch: Some samples under the contract of `zoo.batch`, on the CPU.
        path: The PNG file.
    """
    from zoo.cli.files import save_png

    device = next(module.parameters()).device
    moved: Any = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    completed = module.complete(moved).image.cpu()
    rows = [hide(batch["image"], batch["mask"]), completed, batch["image"]]
    sheet = torch.cat([torch.cat(list(to_uint8(row)), dim=2) for row in rows], dim=1)
    save_png(np.ascontiguousarray(sheet.permute(1, 2, 0).numpy()), path)
    return path


def save_sheet(module: InpaintingModule, path: Path) -> Path | None:
    """Writes what a stage that completes nothing has to show, in rows of eight; None where that is nothing."""
    from zoo.cli.files import save_png

    module.eval()
    with torch.no_grad():
        images = module.sheet()
    if images is None:
        return None
    pixels = to_uint8(images.float().cpu()).numpy()
    across = min(8, len(pixels))
    rows = [np.concatenate(list(pixels[i : i + across]), 2) for i in range(0, len(pixels) - across + 1, across)]
    save_png(np.ascontiguousarray(np.concatenate(rows, 1).transpose(1, 2, 0)), path)
    return path


def save_captions(batch: Batch, path: Path) -> Path:
    """Writes the captions of a sheet of images, a line for each column.

    Args:
        batch: The samples of the sheet.
        path: The text file.
    """
    from zoo.weights import write_atomically

    lines = [" ".join(caption.split()) + "\n" for caption in batch["caption"]]
    write_atomically(path, "".join(lines).encode())
    return path
