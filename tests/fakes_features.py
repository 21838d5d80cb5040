"""Files of weights as the feature networks' publishers lay them out, with numbers by a formula in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.fakes_inception import inception_state, numbers
from zoo.metrics import sources


def _layers(places: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    state = {}
    for k, (name, shape) in enumerate(places.items()):
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.weight"] = numbers(list(shape), seed + k) * (6.0 / fan) ** 0.5
        state[f"{name}.bias"] = 0.1 * numbers([shape[0]], seed + 100 + k)
    return state


def _classifier(shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Layers that no metric uses: one stored number stands for all of a tensor's."""
    weights = {f"classifier.{name}.weight": torch.zeros(1, 1).expand(shape) for name, shape in shapes.items()}
    return weights | {f"classifier.{name}.bias": torch.zeros(1).expand(shape[0]) for name, shape in shapes.items()}


def alexnet_state() -> dict[str, Tensor]:
    """torchvision's AlexNet."""
    shapes = {"0": (64, 3, 11, 11), "3": (192, 64, 5, 5), "6": (384, 192, 3, 3), "8": (256, 384, 3, 3)}
    shapes["10"] = (256, 256, 3, 3)
    head = _classifier({"1": (4096, 9216), "4": (4096, 4096), "6": (1000, 4096)})
    return _layers({f"features.{name}": shape for name, shape in shapes.items()}, 1) | head


def vgg16_state() -> dict[str, Tensor]:
    """torchvision's VGG-16."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    shapes = {f"features.{place}": (widths[k + 1], widths[k], 3, 3) for k, place in enumerate(places)}
    head = _classifier({"0": (4096, 25088), "3": (4096, 4096), "6": (1000, 4096)})
    return _layers(shapes, 31) | head


def inception_weights() -> dict[str, Tensor]:
    """torch-fidelity's Inception."""
    return inception_state() | {"fc.weight": torch.zeros(1, 1).expand(1008, 2048), "fc.bias": torch.zeros(1008)}


def write(folder: Path, *keys: str) -> dict[str, str]:
    """Writes files of feature networks under their published names, and gives their paths by key."""
    states = {"alexnet": alexnet_state, "vgg16": vgg16_state, "inception": inception_weights}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {key: str(folder / sources.PUBLISHED[key].name) for key in keys}
    for key, path in paths.items():
        torch.save(states[key](), path)
    return paths


def accept(monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    """Takes files for the published ones whatever their hash is."""
    for key in keys:
        monkeypatch.setitem(sources.PUBLISHED, key, dataclasses.replace(sources.PUBLISHED[key], sha256=""))


def photographs(batch: int = 3, size: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """Composite, truth and mask: waves of colour, of which the middle is changed. Whole numbers by a formula."""
    i, j, c, n = torch.meshgrid(*(torch.arange(k) for k in (size, size, 3, batch)), indexing="ij")
    truth = (128 + 90 * torch.sin(i / (3.0 + n) + c) * torch.cos(j / (4.0 + c) - n)).permute(3, 2, 0, 1)
    mask = torch.zeros(batch, 1, size, size)
    mask[:, :, size // 4 : size // 2 + 3, size // 3 : -size // 4] = 1
    damaged = (truth * 0.6 + 70 + 12 * torch.sin(5.0 * i + 3.0 * j + n).permute(3, 2, 0, 1)).clamp(0, 255)
    composite = torch.where(mask > 0, damaged, truth)
    return composite.round().to(torch.uint8), truth.round().to(torch.uint8), mask
