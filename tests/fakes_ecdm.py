"""ECDM in miniature for its tests: sizes, lively weights, scenes with edges, training on the same batches."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.fakes_cma import WORDS, scenes, trainer
from zoo.batch import Batch
from zoo.models.ecdm import ECDM
from zoo.resources import resource

# Widths all differ where they may. At 32 pixels latents are 8x8, and there are four tokens of frequencies.
TINY: dict[str, Any] = {
    "size": 32, "vocabulary": WORDS, "base": "", "codec": "pca", "codec_factor": 4, "codec_channels": 5,
    "codec_widths": [4, 8, 8], "codec_layers": 1, "codec_groups": 2, "codec_attention": False, "text_width": 12,
    "text_length": 10, "text_layers": 1, "text_heads": 2, "unet_channels": [8, 16], "unet_plain": 0, "unet_layers": 1,
    "unet_heads": 2, "unet_groups": 4, "hint_widths": [4, 6, 8], "acda_channels": [4, 6, 8, 8], "acda_radius": 2,
    "controlnet_init": "warm", "steps": 3, "guidance": 2.0, "clip": 6.0, "unet_lr": 1e-3, "teacher_lr": 1e-3,
    "codec_lr": 1e-3, "lr": 1e-3,
}  # fmt: skip
# The sizes of `tests.fakes_stable_diffusion`, where a base and ControlNets of it are written.
BASED: dict[str, Any] = {
    "size": 32, "codec_factor": 4, "text_width": 16, "unet_channels": [8, 16], "unet_plain": 0, "unet_layers": 1,
    "unet_heads": 2, "unet_groups": 4, "hint_widths": [4, 8, 8], "acda_channels": [4, 6, 8, 8], "acda_radius": 2,
    "steps": 3, "lr": 1e-3,
}  # fmt: skip
NETWORKS = ("codec", "text", "unet", "teacher", "student")


def make(lively: bool = False, **arguments: Any) -> ECDM:
    """A tiny ECDM with the same random weights each time.

    Args:
        lively: No parameter is where it starts: what is zero at first then matters too.
        arguments: What differs from `TINY`.
    """
    seed_everything(0, verbose=False)
    module = ECDM(**{**TINY, **arguments})
    return enliven(module) if lively else module


def enliven(module: ECDM) -> ECDM:
    """Moves every parameter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module


def edged(count: int = 3, height: int = 32, width: int = 32) -> Batch:
    """Scenes with the outline of the square of each as edges."""
    batch = scenes(count, height, width)
    square = (batch["image"][:, :1] - batch["image"][:, 1:2]).abs() > 0.45
    inner = square & square.roll(1, 2) & square.roll(-1, 2) & square.roll(1, 3) & square.roll(-1, 3)
    batch["edge"] = (square & ~inner).float()
    return batch


def fit(module: ECDM, *batches: Batch, **settings: Any) -> Trainer:
    """Trains on the same batches over and over, a step unless told otherwise."""
    made = trainer(**settings)
    made.fit(module, DataLoader(list(batches) or [edged()], batch_size=None))  # type: ignore[arg-type]
    return made


def count(*modules: nn.Module) -> int:
    """How many parameters they have."""
    return sum(p.numel() for module in modules for p in module.parameters())


def gradients(module: nn.Module) -> set[str]:
    """Names of the parameters that have a gradient other than zero."""
    return {n for n, p in module.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def own(module: nn.Module, *names: str) -> set[str]:
    """The parameters of submodules."""
    return {n for n, _ in module.named_parameters() if n.startswith(tuple(f"{name}." for name in names))}


def hole(batch: Batch) -> Tensor:
    """B 3 H W, bool."""
    return (batch["mask"] > 0.5).expand_as(batch["image"])


def arguments_of(preset: str, **changes: Any) -> dict[str, Any]:
    """The constructor arguments of a recipe, with a vocabulary and what is changed."""
    content: Any = OmegaConf.to_container(OmegaConf.load(resource(f"configs/model/ecdm/{preset}.yaml")), resolve=True)
    return {"vocabulary": WORDS, **content["model"]["init_args"], **changes}
