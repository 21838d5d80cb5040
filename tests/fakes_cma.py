"""CMA in miniature for its tests: sizes, scenes, training on one batch over and over."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.batch import Batch
from zoo.models.cma import CMA
from zoo.resources import resource

WORDS = ["a", "the", "red", "green", "blue", "yellow", "square", "on", "grey", "ground"]
TINY: dict[str, Any] = {
    "size": 32, "tokenizer": "word", "vocabulary": WORDS, "patch": 8, "table": 4, "hidden": 16, "layers": 1, "heads": 2,
    "intermediate": 32, "init_std": 0.2, "down": [4, 6, 8, 8, 8], "up": [8, 8, 6, 4, 4], "critic": [4, 6, 8, 8, 8],
    "critic_halvings": 3, "local_halvings": 2, "local_size": 16, "local_least": 8, "wpa_solver": "ipot", "warmup": 0,
    "decay": "constant", "lr": 1e-3,
}  # fmt: skip
COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.9), "yellow": (0.9, 0.9, 0.1)}


def scenes(count: int = 3, height: int = 32, width: int = 32) -> Batch:
    """A square in the hole of each smooth ground, its colour in the caption alone; captions of several lengths."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    images, masks, captions = [], [], []
    for k in range(count):
        name, colour = list(COLOURS.items())[k % 4]
        image = torch.stack([0.3 + 0.4 * x, 0.3 + 0.4 * y, 0.5 + 0.1 * (k // 4) * (x - y)])
        mask = torch.zeros(1, height, width)
        top, left = 4 + 3 * (k % 2), 5 + 2 * (k % 3)
        mask[:, top : top + 18, left : left + 16] = 1
        image[:, top + 3 : top + 15, left + 3 : left + 13] = torch.tensor(colour).view(3, 1, 1)
        images.append(image)
        masks.append(mask)
        captions.append(f"a {name} square" if k % 2 else f"a {name} square on the grey ground")
    return Batch(
        id=[f"squares/{k}" for k in range(count)], image=torch.stack(images), mask=torch.stack(masks), caption=captions
    )


def some(batch: Batch, *which: int) -> Batch:
    """Samples of a batch."""
    picked: Any = {
        key: value[list(which)] if isinstance(value, Tensor) else [value[k] for k in which]  # type: ignore[index]
        for key, value in batch.items()
    }
    return Batch(**picked)


def make(**arguments: Any) -> CMA:
    """A tiny CMA with the same random weights each time."""
    seed_everything(0, verbose=False)
    return CMA(**{**TINY, **arguments})


def trainer(**settings: Any) -> Trainer:
    """A trainer that writes and prints nothing."""
    return Trainer(
        **{
            "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1,
            "enable_model_summary": False, "enable_checkpointing": False, "max_steps": 1, **settings,
        }
    )  # fmt: skip


def fit(module: CMA, *batches: Batch, **settings: Any) -> Trainer:
    """Trains on the same batches over and over, a step unless told otherwise."""
    made = trainer(**settings)
    made.fit(module, DataLoader(list(batches) or [scenes()], batch_size=None))  # type: ignore[arg-type]
    return made


def logged(made: Trainer) -> dict[str, float]:
    """What the last step logged."""
    return {name.removeprefix("train/"): float(value) for name, value in made.logged_metrics.items()}


def states(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(module: torch.nn.Module, before: dict[str, Tensor], depth: int = 1) -> set[str]:
    """Names of the parts of which any parameter has changed."""
    return {
        ".".join(name.split(".")[:depth])
        for name, p in module.named_parameters()
        if not torch.equal(p.detach(), before[name])
    }


def arguments_of(preset: str) -> dict[str, Any]:
    """The constructor arguments of a recipe."""
    content: Any = OmegaConf.to_container(OmegaConf.load(resource(f"configs/model/cma/{preset}.yaml")), resolve=True)
    return dict(content["model"]["init_args"])
