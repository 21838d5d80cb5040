"""Inception-v3 (Szegedy et al. 2016) up to its pooled features, under the names of torchvision, and its weights.

It is the trunk of the published match networks. Weights come from a local file; nothing is fetched, and no code inside
a file is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import WeightsError

URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
REMEDY = (
    f"torchvision's ImageNet weights (104 MB) are at {URL}: name a copy with --model.inception FILE; the preset nano"
    " needs none of them"
)
# The classifiers, and counters that matter only where batch statistics are still gathered.
UNUSED = re.compile(r"(AuxLogits|fc)\..*|.*\.num_batches_tracked")

Kernel = int | tuple[int, int]
Layer = tuple[str, int, Kernel]  # name, channels out, kernel
Step = Sequence[Layer]  # layers side by side, which see the same
Chain = Sequence[Step]


class NormalizedConv(nn.Module):
    """A convolution without bias, batch normalization, ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains of convolutions side by side, and a pooled one; the results are concatenated.

    Args:
        channels_in: C of the input.
        chains: Each a sequence of steps; the layers of a step see the same input.
        pooled: Channels of the convolution `branch_pool` after average pooling; None halves the size: the last layers
            have stride 2, and the pooled branch is the input's maxima.
    """

    def __init__(self, channels_in: int, chains: Sequence[Chain], pooled: int | None = None) -> None:
        super().__init__()
        self.chains = [[[name for name, _, _ in step] for step in chain] for chain in chains]
        self.halves = pooled is None
        for chain in chains:
            c = channels_in
            for i, step in enumerate(chain):
                halve = self.halves and i == len(chain) - 1
                for name, d, kernel in step:
                    self.add_module(
                        name, NormalizedConv(c, d, kernel, 2 if halve else 1, 0 if halve else _keep(kernel))
                    )
                c = sum(d for _, d, _ in step)
        self.branch_pool = None if pooled is None else NormalizedConv(channels_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for chain in self.chains:
            h = x
            for step in chain:
                h = torch.cat([self.get_submodule(name)(h) for name in step], 1)
            results.append(h)
        if self.branch_pool is None:
            return torch.cat([*results, F.max_pool2d(x, 3, 2)], 1)
        return torch.cat([*results, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


def _keep(kernel: Kernel) -> Kernel:
    """The padding that keeps the size."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def _line(*layers: Layer) -> Chain:
    return [[layer] for layer in layers]


def _mixed_35(channels_in: int, pooled: int) -> Mixed:
    double = _line(("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    five = _line(("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5))
    return Mixed(channels_in, [_line(("branch1x1", 64, 1)), five, double], pooled)


def _mixed_17(c: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    seven = _line(("branch7x7_1", c, 1), ("branch7x7_2", c, wide), ("branch7x7_3", 192, high))
    double = _line(
        ("branch7x7dbl_1", c, 1), ("branch7x7dbl_2", c, high), ("branch7x7dbl_3", c, wide),
        ("branch7x7dbl_4", c, high), ("branch7x7dbl_5", 192, wide),
    )  # fmt: skip
    return Mixed(768, [_line(("branch1x1", 192, 1)), seven, double], 192)


def _mixed_8(channels_in: int) -> Mixed:
    wide, high = (1, 3), (3, 1)
    three: Chain = [[("branch3x3_1", 384, 1)], [("branch3x3_2a", 384, wide), ("branch3x3_2b", 384, high)]]
    double: Chain = [
        [("branch3x3dbl_1", 448, 1)], [("branch3x3dbl_2", 384, 3)],
        [("branch3x3dbl_3a", 384, wide), ("branch3x3dbl_3b", 384, high)],
    ]  # fmt: skip
    return Mixed(channels_in, [_line(("branch1x1", 320, 1)), three, double], 192)


def _halving_35() -> Mixed:
    double = _line(("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return Mixed(288, [_line(("branch3x3", 384, 3)), double])


def _halving_17() -> Mixed:
    three = _line(("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3))
    seven = _line(
        ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3),
    )  # fmt: skip
    return Mixed(768, [three, seven])


class Inception(nn.Module):
    """The layers of Inception-v3 before its classifier; 21,785,568 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = NormalizedConv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = NormalizedConv(32, 32, 3)
        self.Conv2d_2b_3x3 = NormalizedConv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = NormalizedConv(64, 80, 1)
        self.Conv2d_4a_3x3 = NormalizedConv(80, 192, 3)
        self.Mixed_5b = _mixed_35(192, 32)
        self.Mixed_5c = _mixed_35(256, 64)
        self.Mixed_5d = _mixed_35(288, 64)
        self.Mixed_6a = _halving_35()
        self.Mixed_6b = _mixed_17(128)
        self.Mixed_6c = _mixed_17(160)
        self.Mixed_6d = _mixed_17(160)
        self.Mixed_6e = _mixed_17(192)
        self.Mixed_7a = _halving_17()
        self.Mixed_7b = _mixed_8(1280)
        self.Mixed_7c = _mixed_8(2048)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of Mixed_6e (B 768 17 17) and the pooled features (B 2048) of images B 3 299 299."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        regions = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        pooled = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(regions))).mean((2, 3))
        return regions, pooled


def load_inception(trunk: Inception, source: str | Path | Mapping[str, Tensor], where: str = "") -> None:
    """Loads weights with torchvision's names; those of its classifiers are left out.

    Args:
        trunk: Its numbers are replaced.
        source: A `.pth` or `.safetensors` file, or the tensors.
        where: What an error calls the place that tensors are from; a file has its own name.

    Raises:
        WeightsError: No such file, it cannot be read, or its tensors do not fit.
    """
    if isinstance(source, Mapping):
        load_exactly(trunk, source, where, REMEDY)
        return
    if not str(source) or not Path(source).is_file():
        where = str(source) or "no file is named"
        raise WeightsError("the match networks need the weights of Inception-v3; there is no such file", where, REMEDY)
    load_exactly(trunk, read_tensors(Path(source), REMEDY), str(source), REMEDY)


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a `.pth`, `.pt` or `.safetensors` file, without the `module.` that parallel training prefixes.

    Raises:
        WeightsError: No such file, or it holds no dict of tensors.
    """
    if not path.is_file():
        raise WeightsError("no such weights file", str(path), remedy)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as any of half a dozen errors; torch's go on for a screen
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"this file cannot be read: {line}", str(path), remedy) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError("this file holds no dict of tensors", str(path), remedy)
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_exactly(module: nn.Module, found: Mapping[str, Tensor], where: str, remedy: str) -> None:
    """Loads tensors, of which every one must have its place and none may lack, but for those that are `UNUSED`.

    Raises:
        WeightsError: Tensors are missing, left over, of another shape or not finite.
    """
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items() if not UNUSED.fullmatch(name)}
    found = {name: tensor for name, tensor in found.items() if not UNUSED.fullmatch(name)}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            problems.append(f"{name} has no place")
        elif tensor.shape != wanted[name]:
            problems.append(f"{name} is {tuple(tensor.shape)}, not {tuple(wanted[name])}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} is not finite")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise WeightsError("these weights do not fit: " + "; ".join(problems[:4]) + more, where, remedy)
    module.load_state_dict(found, strict=False)
