"""SSIM against scikit-image's Wang form, over the image and over regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from zoo.metrics import per_image, regions, ssim_map


def _scikit(a: torch.Tensor, b: torch.Tensor) -> tuple[float, np.ndarray]:  # type: ignore[type-arg]
    value, full = structural_similarity(
        a.permute(1, 2, 0).numpy(),
        b.permute(1, 2, 0).numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        data_range=255,
        full=True,
    )
    return float(value), full


def _pair(kind: str, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height)
    noise = torch.rand(3, height, width, generator=generator)
    ramp = torch.linspace(0, 255, height * width).reshape(1, height, width).expand(3, -1, -1)
    first = {"noise": noise * 255, "smooth": ramp, "black": ramp * 0}[kind]
    second = {"noise": noise.flip(1) * 255, "smooth": ramp + 20 * noise, "black": ramp * 0 + 255}[kind]
    return tuple(x.clamp(0, 255).round().to(torch.uint8) for x in (first, second))  # type: ignore[return-value]


@pytest.mark.parametrize(("height", "width"), [(11, 11), (12, 31), (64, 48)])
@pytest.mark.parametrize("kind", ["noise", "smooth", "black"])
def test_equals_scikit_image(kind: str, height: int, width: int) -> None:
    a, b = _pair(kind, height, width)
    mask = torch.zeros(1, 1, height, width)
    mask[..., 5 : height // 2 + 1, 5 : width // 2 + 1] = 1
    value, full = _scikit(a, b)
    values = per_image(a[None], b[None], mask)
    assert values["ssim"].item() == pytest.approx(value, abs=1e-9)
    assert ssim_map(a, b).permute(1, 2, 0).numpy() == pytest.approx(full[5:-5, 5:-5], abs=1e-9)
    inside = np.zeros((height, width), bool)
    inside[5:-5, 5:-5] = True
    for name, region in zip(("ssim_hole", "ssim_band"), regions(mask)[0, 1:].numpy(), strict=True):
        assert values[name].item() == pytest.approx(full[region & inside].mean(), abs=1e-9), name


def test_valid_windows_differ_from_torchmetrics_at_the_border_alone() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (x[None].double() for x in _pair("smooth", 40, 33))
    _, full = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none", return_full_image=True)
    assert torch.allclose(ssim_map(a, b), full[..., 5:-5, 5:-5], atol=1e-9)
    assert abs(ssim_map(a, b).mean() - full.mean()) > 1e-4


def test_symmetric_and_one_for_identical_images() -> None:
    a, b = _pair("noise", 30, 30)
    assert torch.equal(ssim_map(a, b), ssim_map(b, a))
    assert torch.equal(ssim_map(a, a), torch.ones(3, 20, 20, dtype=torch.float64))
    assert float(ssim_map(a, b).mean()) < 0.5


def test_too_small_an_image_gives_an_empty_map() -> None:
    a = torch.zeros(2, 3, 10, 30, dtype=torch.uint8)
    assert ssim_map(a, a).shape == (2, 3, 0, 20)
