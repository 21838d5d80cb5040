"""Frozen features of images, for the perceptual losses: dilated ResNet-50, VGG-16, or a network of random weights.

Weights come from a local file; nothing is fetched, and no code inside a file is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import WeightsError, unknown_name
from zoo.models.nigdt.inception import load_exactly, read_tensors

HRF = ("ade20k", "torchvision_dilated", "random", "none")
PERC = ("vgg16", "hrf", "none")
BLOCKS = (3, 4, 6, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
SEED = 1209  # of the random features, which no file holds


class Published(NamedTuple):
    """A file of weights: what it is, where it is, which of its tensors are not wanted, which option names a copy."""

    title: str
    url: str
    unused: str
    option: str

    @property
    def remedy(self) -> str:
        """What to do without it."""
        without = "--model.hrf random" if self.option == "hrf_file" else "--model.perc none"
        return f"it is at {self.url}: name a copy with --model.{self.option} FILE; {without} needs no file"


ADE20K = Published(
    "the ResNet-50 that CSAIL trained on ADE20K (95 MB; for research without commerce)",
    "http://sceneparsing.csail.mit.edu/model/pytorch/ade20k-resnet50dilated-ppm_deepsup/encoder_epoch_20.pth",
    # counters and sums of its batch normalization over several processors
    r".*\.(num_batches_tracked|_?tmp_running_(mean|var)|_running_iter)",
    "hrf_file",
)
RESNET = Published(
    "torchvision's ResNet-50 of ImageNet (98 MB)",
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    r"fc\..*|.*\.num_batches_tracked",
    "hrf_file",
)
VGG = Published(
    "torchvision's VGG-16 of ImageNet (528 MB)",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    r"classifier\..*|features\.(17|19|21|24|26|28)\..*",
    "perc_file",
)


class Bottleneck(nn.Module):
    """A residual block of ResNet-50; the stride is that of its 3x3 convolution."""

    def __init__(self, channels_in: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        d = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, d, 1, bias=False), nn.BatchNorm2d(d)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels_in != d:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, d, 1, stride, bias=False), nn.BatchNorm2d(d))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class DilatedResNet50(nn.Module):
    """ResNet-50 whose last two stages keep the size: dilation 2 and 4 take the place of their strides.

    The first block of such a stage has half its dilation.

    Args:
        deep_stem: Three 3x3 convolutions as in CSAIL's; otherwise the 7x7 of torchvision.
    """

    def __init__(self, deep_stem: bool = True) -> None:
        super().__init__()
        stem = [(3, 64, 3, 2), (64, 64, 3, 1), (64, 128, 3, 1)] if deep_stem else [(3, 64, 7, 2)]
        self.stem = len(stem)
        for i, (c, d, kernel, stride) in enumerate(stem, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(c, d, kernel, stride, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(d))
        c = stem[-1][1]
        for k, (count, stride, dilation) in enumerate(zip(BLOCKS, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            width, blocks = 64 * 2**k, []
            for i in range(count):
                blocks.append(Bottleneck(c, width, 1 if i else stride, dilation if i else max(1, dilation // 2)))
                c = 4 * width
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four stages, 256 channels at 1/4 of the size and 512, 1024, 2048 at 1/8, of normalized images B 3 H W."""
        for i in range(1, self.stem + 1):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        stages = []
        for k in range(1, 5):
            x = self.get_submodule(f"layer{k}")(x)
            stages.append(x)
        return stages


class VGG16(nn.Module):
    """VGG-16 up to its third pooling, under the names of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
        places = ("0", "2", "5", "7", "10", "12", "14")
        self.features = nn.ModuleDict(
            {p: nn.Conv2d(c, d, 3, padding=1) for p, (c, d) in zip(places, widths, strict=True)}
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """What the three poolings leave, 64, 128 and 256 channels at 1/2, 1/4 and 1/8, of normalized images B 3 H W."""
        pooled = []
        for name, layer in self.features.items():
            x = F.relu(layer(x))
            if name in ("2", "7", "14"):
                x = F.max_pool2d(x, 2)
                pooled.append(x)
        return pooled


class RandomStages(nn.Module):
    """Four layers like the stages of a dilated network, with weights that are always the same; 46,512 numbers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        table = [(3, 16, 2, 1), (16, 32, 2, 1), (32, 48, 1, 2), (48, 64, 1, 4)]
        with torch.random.fork_rng(devices=[]):  # constructors draw from the generator of all, which is not theirs
            self.layers = nn.ModuleList(
                nn.Conv2d(c, d, 3, stride, dilation, dilation, bias=False) for c, d, stride, dilation in table
            )
        for layer in self.layers:
            weight: Tensor = layer.weight  # type: ignore[assignment]
            with torch.no_grad():
                weight.normal_(0.0, (2.0 / weight[0].numel()) ** 0.5, generator=generator)

    def forward(self, x: Tensor) -> list[Tensor]:
        """16 channels at half the size, and 32, 48, 64 at a quarter, of normalized images B 3 H W."""
        stages = []
        for layer in self.layers:
            x = F.relu(layer(x))
            stages.append(x)
        return stages


class Features(nn.Module):
    """A frozen network in evaluation mode for ever. Gradients pass through it to the image.

    Args:
        network: Takes normalized images, gives maps.
        published: Where its weights are from; None where it has them already.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, published: Published | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.published, self.loaded = published, published is None
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> Features:
        """Stays in evaluation mode."""
        return super().train(False)

    def load(self, source: str | Path | Mapping[str, Tensor], where: str = "") -> None:
        """Loads published weights; every tensor must have its place, but for those known to be of no use.

        Args:
            source: A `.pth` or `.safetensors` file, or its tensors; nothing is read where no file is needed.
            where: What an error calls the place that tensors are from.

        Raises:
            WeightsError: No such file, it cannot be read, or its tensors do not fit.
        """
        if self.published is None:
            return
        remedy = self.published.remedy
        if not isinstance(source, Mapping):
            where = str(source) or "no file is named"
            if not str(source) or not Path(source).is_file():
                raise WeightsError(f"the loss needs {self.published.title}; there is no such file", where, remedy)
            source = read_tensors(Path(source), remedy)
        unused = re.compile(self.published.unused)
        found = {name: tensor for name, tensor in source.items() if not unused.fullmatch(name)}
        load_exactly(self.network, found, where, remedy)
        self.loaded = True

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps, fine to coarse, of images B 3 H W in [-1, 1].

        Raises:
            WeightsError: Before `load`, where weights come from a file.
        """
        if self.published is not None and not self.loaded:
            raise WeightsError(f"the loss needs {self.published.title}", "no file is named", self.published.remedy)
        maps: list[Tensor] = self.network((0.5 * image + 0.5 - self.mean) / self.std)
        return maps


def hrf_features(kind: str) -> Features | None:
    """φ of L_hrf, not yet loaded: `ade20k`, `torchvision_dilated`, `random` (which needs no file), or `none`.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in HRF:
        raise unknown_name("features of L_hrf", kind, list(HRF))
    if kind == "none":
        return None
    if kind == "random":
        return Features(RandomStages())
    deep = kind == "ade20k"
    return Features(DilatedResNet50(deep), ADE20K if deep else RESNET)


def perc_features(kind: str, hrf: Features | None) -> Features | None:
    """φ of the perceptual terms, not yet loaded: `vgg16`; `hrf`, those of L_hrf; or `none`.

    Raises:
        UsageError: An unknown kind.
    """
    if kind not in PERC:
        raise unknown_name("features of the perceptual terms", kind, list(PERC))
    return Features(VGG16(), VGG) if kind == "vgg16" else hrf if kind == "hrf" else None
