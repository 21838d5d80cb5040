"""Frozen features for the perceptual losses of MMInvertFill: networks, files, strictness."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.errors import UsageError, WeightsError
from zoo.models.mminvertfill.features import VGG16, DilatedResNet50, Features, hrf_features, perc_features
from zoo.models.mminvertfill.losses import L_hrf

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def image(size: int = 32) -> Tensor:
    return 2 * torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size)) - 1


def numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def add(state: dict[str, Tensor], conv: str, norm: str, *shape: int) -> None:
    """A convolution, and a normalization that does something."""
    seed = len(state)
    fan = shape[1] * shape[2] * shape[3]
    state[f"{conv}.weight"] = (2 * numbers(shape, seed) - 1) * (3.0 / fan) ** 0.5
    for i, (name, shift) in enumerate({"weight": 0.5, "bias": -0.5, "running_mean": -0.5, "running_var": 0.5}.items()):
        state[f"{norm}.{name}"] = shift + numbers(shape[:1], seed + 1 + i)


def resnet_state(deep: bool) -> dict[str, Tensor]:
    """As CSAIL's encoder, or as torchvision's ResNet-50, names and shapes written out anew."""
    state: dict[str, Tensor] = {}
    stem = [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)] if deep else [(64, 3, 7, 7)]
    for i, shape in enumerate(stem, start=1):
        add(state, f"conv{i}", f"bn{i}", *shape)
    c = stem[-1][0]
    for k, count in enumerate((3, 4, 6, 3), start=1):
        w = 32 * 2**k
        for i in range(count):
            at = f"layer{k}.{i}"
            add(state, f"{at}.conv1", f"{at}.bn1", w, c, 1, 1)
            add(state, f"{at}.conv2", f"{at}.bn2", w, w, 3, 3)
            add(state, f"{at}.conv3", f"{at}.bn3", 4 * w, w, 1, 1)
            if i == 0:
                add(state, f"{at}.downsample.0", f"{at}.downsample.1", 4 * w, c, 1, 1)
            c = 4 * w
    return state


def resnet(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The dilated network, straight from the names of the file."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = state[f"{conv}.weight"]
        x = F.conv2d(x, kernel, None, stride, dilation * (kernel.shape[-1] // 2), dilation)
        mean, variance, weight, bias = (
            state[f"{norm}.{n}"].view(-1, 1, 1) for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = (x * 0.5 + 0.5 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    for i in (1, 2, 3):
        if f"conv{i}.weight" in state:
            x = layer(x, f"conv{i}", f"bn{i}", stride=2 if i == 1 else 1).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    first, others = {1: 1, 2: 1, 3: 1, 4: 2}, {1: 1, 2: 1, 3: 2, 4: 4}
    for k, count in enumerate((3, 4, 6, 3), start=1):
        for i in range(count):
            at, stride = f"layer{k}.{i}", 2 if (k, i) == (2, 0) else 1
            y = layer(x, f"{at}.conv1", f"{at}.bn1").relu()
            y = layer(y, f"{at}.conv2", f"{at}.bn2", stride, others[k] if i else first[k]).relu()
            y = layer(y, f"{at}.conv3", f"{at}.bn3")
            x = y + (x if i else layer(x, f"{at}.downsample.0", f"{at}.downsample.1", stride))
            x = x.relu()
        stages.append(x)
    return stages


@pytest.mark.parametrize(("kind", "size"), [("ade20k", 23_631_808), ("torchvision_dilated", 23_508_032)])
def test_published_resnets_give_the_features_they_were_trained_for(kind: str, size: int) -> None:
    state = resnet_state(deep=kind == "ade20k")
    φ = hrf_features(kind)
    assert φ is not None
    extra = {"bn1.num_batches_tracked": torch.tensor(3)}
    extra |= {"bn1._tmp_running_mean": torch.zeros(64)} if kind == "ade20k" else {"fc.bias": torch.zeros(1000)}
    φ.load(state | extra)
    assert sum(p.numel() for p in φ.parameters()) == size
    maps, expected = φ(image()), resnet(state, image())
    assert [tuple(m.shape[1:]) for m in maps] == [(256, 8, 8), (512, 4, 4), (1024, 4, 4), (2048, 4, 4)]
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def vgg_state() -> dict[str, Tensor]:
    widths = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
    widths |= {17: (256, 512)}
    state = {f"features.{i}.weight": numbers((d, c, 3, 3), i) - 0.5 for i, (c, d) in widths.items()}
    return state | {f"features.{i}.bias": numbers((d,), 100 + i) for i, (_, d) in widths.items()}


def test_vgg_gives_its_first_three_poolings() -> None:
    φ, state = perc_features("vgg16", None), vgg_state()
    assert φ is not None
    φ.load(state | {"classifier.0.bias": torch.zeros(4096)})
    x, pooled = (image() * 0.5 + 0.5 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1), []
    for stage in ((0, 2), (5, 7), (10, 12, 14)):
        for i in stage:
            x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1).relu()
        x = F.max_pool2d(x, 2)
        pooled.append(x)
    for ours, theirs in zip(φ(image()), pooled, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_files_are_read_in_both_formats(tmp_path: Path) -> None:
    state = vgg_state()
    torch.save(state, tmp_path / "vgg.pth")
    save_file(state, tmp_path / "vgg.safetensors")
    maps = []
    for name in ("vgg.pth", "vgg.safetensors"):
        φ = Features(VGG16(), perc_features("vgg16", None).published)  # type: ignore[union-attr]
        φ.load(tmp_path / name)
        maps.append(φ(image())[2])
    assert torch.equal(*maps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.7.bias"), "features.7.bias is missing"),
        (lambda s: s.update({"features.18.weight": torch.zeros(1)}), "features.18.weight has no place"),
        (lambda s: s.update({"features.0.bias": torch.zeros(3)}), r"features.0.bias is \(3,\), not \(64,\)"),
        (lambda s: s["features.0.bias"].fill_(torch.nan), "features.0.bias is not finite"),
    ],
)
def test_every_tensor_must_have_its_place(change: object, message: str) -> None:
    φ, state = perc_features("vgg16", None), vgg_state()
    change(state)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        φ.load(state)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["ade20k", "torchvision_dilated"])
def test_a_missing_file_is_said_with_its_address(kind: str) -> None:
    with torch.device("meta"):
        φ = hrf_features(kind)
    assert φ is not None
    for source in ("", "/nowhere/encoder.pth"):
        with pytest.raises(WeightsError, match=r"no such file(.|\n)*it is at http(.|\n)*--model\.hrf_file FILE"):
            φ.load(source)
    with pytest.raises(WeightsError, match="the loss needs"):
        φ(image())


def test_random_features_are_always_the_same_and_leave_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a, b = hrf_features("random"), hrf_features("random")
    assert torch.equal(torch.rand(3), expected)
    assert a is not None
    assert b is not None
    a.load("")  # needs none
    assert sum(p.numel() for p in a.parameters()) == 46_512
    maps = a(image())
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (48, 8, 8), (64, 8, 8)]
    assert all(torch.equal(x, y) for x, y in zip(maps, b(image()), strict=True))
    assert all(0.1 < m.square().mean() < 10 for m in maps)


def test_random_weights_are_independent_of_the_seed_of_the_run() -> None:
    sums = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        φ = hrf_features("random")
        assert φ is not None
        sums.append([p.double().sum().item() for p in φ.parameters()])
    assert sums[0] == sums[1]


def test_features_stay_frozen_and_pass_gradients_to_the_image() -> None:
    φ = hrf_features("random")
    assert φ is not None
    assert not φ.train().training
    assert not nn.Sequential(φ).train()[0].network.training
    x, truth = image().requires_grad_(), image(64)[..., :32, :32].contiguous()
    loss = L_hrf(φ(truth), φ(x))
    loss.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in φ.parameters())
    assert L_hrf(φ(truth), φ(truth)) == 0
    with torch.device("meta"):
        net = Features(DilatedResNet50())
    assert not any(m.training for m in net.train().modules())


def test_kinds_of_features() -> None:
    assert hrf_features("none") is None
    φ = hrf_features("random")
    assert perc_features("hrf", φ) is φ
    assert perc_features("none", φ) is None
    for wrong in (lambda: hrf_features("ade20"), lambda: perc_features("vgg", φ)):
        with pytest.raises(UsageError, match="unknown features"):
            wrong()
