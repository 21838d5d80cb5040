"""NIGDT in miniature for its tests: sizes, lively weights, noise that is known, training on one batch over and over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.fakes_cma import WORDS, scenes, trainer
from tests.spectral import settle
from zoo.batch import Batch
from zoo.keyed import torch_generator
from zoo.models.nigdt import NIGDT
from zoo.resources import resource

# Widths all differ where they may. At 32 pixels v_h is 8x8, v_l and the attention 16x16, the outputs 16 and 32.
TINY: dict[str, Any] = {
    "size": 32, "vocabulary": WORDS, "text_length": 10, "embedding": 7, "words": 6, "dropout": 0.0,
    "encoder": [8, 10, 9], "halvings": 2, "low": 1, "latent": 5, "width": 11, "blocks": 2, "up": [10, 8, 6], "kept": 1,
    "attention_at": 2, "outputs": 2, "critic": [4, 6], "critic_halvings": 2, "critic_attention": 1, "trunk": "small",
    "match_channels": [5, 6], "lr": 1e-3, "critic_lr": 1e-3, "match_lr": 1e-3,
}  # fmt: skip

COMPLETING = {"text", "encoder", "attention", "prior", "generator"}
# What the second stage trains besides discriminators, and the names of the terms that it logs.
NETWORKS = {"encoder", "attention", "prior", "posterior", "generator"}
PATHS = {f"l_{term}_{path}" for term in ("1", "D1", "D2", "T") for path in "gr"}
KEYS = PATHS | {"KL_r", "KL_g", "l_d1", "l_d2"}


def make(lively: bool = False, **arguments: Any) -> NIGDT:
    """A tiny NIGDT with the same random weights each time.

    Args:
        lively: No parameter is where it starts: what is zero at first, or nearly, then matters too.
        arguments: What differs from `TINY`.
    """
    seed_everything(0, verbose=False)
    module = NIGDT(**{**TINY, **arguments})
    return enliven(module) if lively else module


def enliven(module: NIGDT) -> NIGDT:
    """Moves every parameter, and settles spectral normalization, so that a step changes no weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    settle(module)
    return module


def fit(module: NIGDT, *batches: Batch, **settings: Any) -> Trainer:
    """Trains on the same batches over and over, a step unless told otherwise."""
    made = trainer(**settings)
    made.fit(module, DataLoader(list(batches) or [scenes()], batch_size=None))  # type: ignore[arg-type]
    return made


def drawn(call: int, shape: torch.Size) -> Tensor:
    """The noise of a step with `know_noise`: call 0 draws z of the generative path, call 1 of the reconstructive."""
    return torch.stack([torch.randn(*shape[1:], generator=torch_generator(call, k)) for k in range(shape[0])])


def know_noise(monkeypatch: pytest.MonkeyPatch, paths: int = 2) -> None:
    """From now on the noise of training steps, a draw for each path, is that of `drawn`, the same in each step."""
    calls: list[None] = []

    def randn_like(x: Tensor) -> Tensor:
        calls.append(None)
        return drawn((len(calls) - 1) % paths, x.shape)

    monkeypatch.setattr(torch, "randn_like", randn_like)


def count(*modules: nn.Module) -> int:
    """How many parameters they have."""
    return sum(p.numel() for module in modules for p in module.parameters())


def parts(names: set[str]) -> set[str]:
    """The submodules that parameters belong to; of the discriminators which."""
    return {".".join(n.split(".")[: 2 if n.startswith("critics") else 1]) for n in names}


def own(module: NIGDT, *names: str) -> set[str]:
    """The parameters of submodules."""
    return {n for n, _ in module.named_parameters() if n.split(".")[0] in names}


def fed(module: nn.Module) -> list[Tensor]:
    """What a module is given from now on, a tensor per call."""
    given: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, x: given.append(x[0].detach()))
    return given


def arguments_of(preset: str, **changes: Any) -> dict[str, Any]:
    """The constructor arguments of a recipe, with a vocabulary and what is changed."""
    content: Any = OmegaConf.to_container(OmegaConf.load(resource(f"configs/model/nigdt/{preset}.yaml")), resolve=True)
    return {**content["model"]["init_args"], "vocabulary": [f"word{k}" for k in range(2044)], **changes}
