"""The measures of TDANet's and PICNet's evaluation codes against naive loops and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from zoo.errors import DataError
from zoo.metrics import DEFINITIONS, PROTOCOL_NAMES, per_image, protocols

Image = NDArray[np.float64]


def images(batch: int = 2, height: int = 13, width: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(20, 236, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    change = torch.randint(-20, 21, truth.shape, generator=generator)
    return (truth.long() + change).to(torch.uint8), truth


def grey(image: Tensor) -> Image:
    """H x W in [0, 1] of 3 H W uint8."""
    r, g, b = image.double().numpy() / 255
    return np.asarray(0.2125 * r + 0.7154 * g + 0.0721 * b)


def naive_variation(image: Image) -> float:
    height, width = image.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            down, right = image[(i + 1) % height, j], image[i, (j + 1) % width]
            total += math.sqrt((image[i, j] - down) ** 2 + (image[i, j] - right) ** 2)
    return total / (height * width)


def naive_ssim(x: Image, y: Image, window: tuple[int, int], span: float) -> float:
    """Mean over windows of the SSIM of their pixels, one window after the other."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = []
    for i in range(x.shape[0] - window[0] + 1):
        for j in range(x.shape[1] - window[1] + 1):
            a, b = (v[i : i + window[0], j : j + window[1]].ravel() for v in (x, y))
            covariance = ((a - a.mean()) * (b - b.mean())).sum() / (len(a) - 1)
            top = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
            found.append(top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var(ddof=1) + b.var(ddof=1) + c2)))
    return float(np.mean(found))


def test_tdanet_equals_naive_loops() -> None:
    composite, truth = images()
    values = protocols(composite, truth)
    for n in range(2):
        x, y = grey(composite[n]), grey(truth[n])
        pairs = [(a, b) for a, b in zip(x.ravel(), y.ravel(), strict=True)]
        relative = 100 * sum(abs(a - b) for a, b in pairs) / sum(a + b for a, b in pairs)
        error = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
        assert values["tdanet_l1"][n].item() == pytest.approx(relative, rel=1e-12)
        assert values["tdanet_psnr"][n].item() == pytest.approx(-10 * math.log10(error), rel=1e-12)
        assert values["tdanet_ssim"][n].item() == pytest.approx(100 * naive_ssim(x, y, (7, 1), np.ptp(x)), rel=1e-10)
        assert values["tdanet_tv"][n].item() == pytest.approx(100 * naive_variation(x), rel=1e-12)


def test_picnet_equals_naive_loops() -> None:
    composite, truth = images()
    values = protocols(composite, truth)
    for n in range(2):
        x, y = composite[n].double().numpy(), truth[n].double().numpy()
        ssim = [naive_ssim(a, b, (7, 7), np.ptp(x)) for a, b in zip(x, y, strict=True)]
        assert values["picnet_ssim"][n].item() == pytest.approx(np.mean(ssim), rel=1e-10)
        assert values["picnet_tv"][n].item() == pytest.approx(np.mean([naive_variation(c) for c in x]), rel=1e-12)


def test_equal_to_scikit_image() -> None:
    composite, truth = images(3, 40, 32)
    values = protocols(composite, truth)
    for n in range(3):
        x, y = (v[n].permute(1, 2, 0).double().numpy() for v in (composite, truth))
        a, b = rgb2gray(x / 255), rgb2gray(y / 255)
        # The columns of a grey image taken for channels: what `multichannel=True` made of it.
        columns = structural_similarity(b, a, channel_axis=-1, data_range=np.ptp(a))
        colour = structural_similarity(y, x, channel_axis=-1, data_range=np.ptp(x))
        assert values["tdanet_ssim"][n].item() == pytest.approx(100 * columns, rel=1e-10)
        assert values["tdanet_psnr"][n].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), rel=1e-12)
        assert values["picnet_ssim"][n].item() == pytest.approx(colour, rel=1e-10)
        assert abs(columns - structural_similarity(b, a, data_range=np.ptp(a))) > 1e-3  # it is another measure


def test_what_is_the_same_as_our_own_measures() -> None:
    composite, truth = images()
    values, ours = protocols(composite, truth), per_image(composite, truth, torch.ones(2, 1, 13, 9))
    assert torch.allclose(values["picnet_l1"], 255 * ours["l1"])
    assert torch.allclose(values["picnet_psnr"], ours["psnr"])


def test_identical_and_flat_images() -> None:
    _, truth = images()
    values = protocols(truth, truth)
    assert tuple(values) == PROTOCOL_NAMES
    assert set(PROTOCOL_NAMES) <= set(DEFINITIONS)
    assert values["tdanet_l1"].tolist() == [0.0, 0.0]
    assert values["tdanet_psnr"].tolist() == values["picnet_psnr"].tolist() == [100.0, 100.0]
    assert values["tdanet_ssim"].tolist() == pytest.approx([100.0, 100.0])
    flat = torch.full_like(truth, 80)
    values = protocols(flat, truth)
    assert {name for name, v in values.items() if v.isnan().any()} == {"tdanet_ssim", "picnet_ssim"}
    assert values["picnet_tv"].tolist() == [0.0, 0.0]
    low = protocols(*(x[:, :, :6] for x in images()))
    assert {name for name, v in low.items() if v.isnan().any()} == {"tdanet_ssim", "picnet_ssim"}


def test_an_image_does_not_depend_on_its_batch() -> None:
    composite, truth = images(5)
    together = protocols(composite, truth)
    for n in range(5):
        alone = protocols(composite[n : n + 1], truth[n : n + 1])
        assert all(torch.equal(alone[name], together[name][n : n + 1]) for name in PROTOCOL_NAMES)


def test_wrong_input_is_refused() -> None:
    composite, truth = images()
    with pytest.raises(DataError, match="8-bit images"):
        protocols(composite.float(), truth)
    with pytest.raises(DataError, match="the truth is"):
        protocols(composite, truth[:1])
