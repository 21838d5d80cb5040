"""MMInvertFill in miniature for its tests: sizes, lively weights, guided scenes, training on the same batches."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.fakes_cma import scenes, trainer
from tests.spectral import settle
from zoo.batch import UNKNOWN_CLASS, Batch
from zoo.models.mminvertfill import MMInvertFill
from zoo.models.mminvertfill import module as implementation
from zoo.resources import resource

# Widths all differ where they may. At 32 pixels the scales are 4x4, 8x8 and 16x16, and there are 8 styles.
TINY: dict[str, Any] = {
    "size": 32, "classes": 4, "w": 10, "mapping": 2, "generator_channels": [9, 8, 7, 5],
    "style_critic_channels": [8, 7, 6, 5], "widths": [6, 8, 10], "auxiliary": [7, 5, 3], "n_blocks": 2, "rates": [1, 2],
    "patches": [1, 2], "mean_samples": 3, "mean_first": 50, "branch_widths": [6, 4, 3], "branch_dense": 2, "critic": 4,
    "hrf": "random", "perc": "none", "lr": 1e-3, "critic_lr": 1e-3,
}  # fmt: skip
TERMS = {"l_d", "l_hrf", "l_adv", "l_msr_rec", "l_msr_edge", "l_msr_seg", "l_fid"}  # what a step logs
BUILT = {"generator", "inverter", "mean", "critic", "phi"}


def make(lively: bool = False, **arguments: Any) -> MMInvertFill:
    """A tiny MMInvertFill with the same random weights each time.

    Args:
        lively: No parameter is where it starts, and the mean latent is drawn: what is zero at first then matters too.
        arguments: What differs from `TINY`.
    """
    seed_everything(0, verbose=False)
    module = MMInvertFill(**{**TINY, **arguments})
    return enliven(module) if lively else module


def enliven(module: MMInvertFill) -> MMInvertFill:
    """Moves every parameter, and settles spectral normalization, so that a step changes no weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    settle(module)
    if module.stage == "inpaint":
        module.mean.start(module.codes)
    return module


def guided(count: int = 3, height: int = 32, width: int = 32) -> Batch:
    """Scenes with the outline of each square as edges and its colour as class; the upper rows have no class."""
    batch = scenes(count, height, width)
    square = torch.zeros(count, height, width, dtype=torch.bool)
    for k in range(count):
        top, left = 7 + 3 * (k % 2), 8 + 2 * (k % 3)
        square[k, top : top + 12, left : left + 10] = True
    number = torch.tensor([1 + k % 3 for k in range(count)])
    batch["segmentation"] = torch.where(square, number[:, None, None], 0)
    batch["segmentation"][:, : height // 8] = UNKNOWN_CLASS
    inner = square & square.roll(1, 1) & square.roll(-1, 1) & square.roll(1, 2) & square.roll(-1, 2)
    batch["edge"] = (square & ~inner)[:, None].float()
    return batch


def without(batch: Batch, *keys: str) -> Batch:
    """A batch without some of its guidance."""
    return Batch(**{key: value for key, value in batch.items() if key not in keys})  # type: ignore[typeddict-item]


def fit(module: MMInvertFill, *batches: Batch, **settings: Any) -> Trainer:
    """Trains on the same batches over and over, a step unless told otherwise."""
    made = trainer(**settings)
    made.fit(module, DataLoader(list(batches) or [guided()], batch_size=None))  # type: ignore[arg-type]
    return made


class Seeded(MMInvertFill):
    """The noise of a step depends on its number alone, so that a training can be repeated from its middle."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(self.iteration)
        super().training_step(batch, batch_idx)


def withhold(monkeypatch: Any, **masks: Tensor | float) -> None:
    """From now on training withholds this of each modality, 1 = missing, whatever would have been drawn."""

    def mask(M: Tensor, ids: list[str], modality: str, *_: Any) -> Tensor:
        value = masks.get(modality, 0.0)
        return value if isinstance(value, Tensor) else torch.full_like(M, value)

    monkeypatch.setattr(implementation, "guidance_mask", mask)


def count(*modules: nn.Module) -> int:
    """How many parameters they have."""
    return sum(p.numel() for module in modules for p in module.parameters())


def own(module: nn.Module, *names: str) -> set[str]:
    """The parameters of submodules."""
    return {n for n, _ in module.named_parameters() if n.startswith(tuple(f"{name}." for name in names))}


def fed(module: nn.Module) -> list[tuple[Any, ...]]:
    """What a module is given from now on, the arguments of a call each."""
    given: list[tuple[Any, ...]] = []
    module.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    return given


def arguments_of(preset: str, **changes: Any) -> dict[str, Any]:
    """The constructor arguments of a recipe, with what is changed."""
    path = resource(f"configs/model/mminvertfill/{preset}.yaml")
    content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return {**content["model"]["init_args"], **changes}


def named(value: object) -> str:
    """The name of a parameter of a test; sets are sorted, since their order differs from process to process."""
    return "+".join(sorted(map(str, value))) if isinstance(value, set | frozenset) else str(value)
