"""The torchmetrics form: means over images, however they come in batches and on ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, total_variation

from zoo.metrics import NAMES, ImageMetrics, per_image


def _images(batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    truth = torch.randint(0, 256, (batch, 3, 16, 18), generator=generator, dtype=torch.uint8)
    composite = torch.randint(0, 256, (batch, 3, 16, 18), generator=generator, dtype=torch.uint8)
    mask = (torch.rand(batch, 1, 16, 18, generator=generator) > 0.5).float()
    mask[0] = 0  # one image without a hole
    return composite, truth, mask, composite / 255


def test_means_over_images_and_not_over_batches() -> None:
    images = _images(7)
    metric = ImageMetrics()
    metric.update(*(x[:5] for x in images))
    metric.update(*(x[5:] for x in images))
    expected = {name: v.nanmean().item() for name, v in per_image(*images).items()}
    found = metric.compute()
    assert tuple(found) == NAMES
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, rel=1e-12)
    metric.reset()
    metric.update(*images[:3])
    assert math.isnan(metric.compute()["raw_known_l1"])


def test_ranks_add_up() -> None:
    images = _images(6)
    first, second, whole = ImageMetrics(), ImageMetrics(), ImageMetrics()
    first.update(*(x[:2] for x in images))
    second.update(*(x[2:] for x in images))
    whole.update(*images)
    first.merge_state(second)
    for name, value in whole.compute().items():
        assert first.compute()[name].item() == pytest.approx(value.item(), rel=1e-12)


def test_agrees_with_torchmetrics_where_the_definition_is_the_same() -> None:
    composite, truth, mask, _ = _images(4)
    values = per_image(composite, truth, mask)
    a, b = composite.double(), truth.double()
    assert torch.allclose(values["psnr"], peak_signal_noise_ratio(a, b, 255.0, dim=(1, 2, 3), reduction="none"))
    square = a[..., :16]  # as many pairs either way, so that torchmetrics' sum is a multiple of the mean
    pairs = 3 * 16 * 15 * 255
    tv = per_image(composite[..., :16], truth[..., :16], mask[..., :16])["tv"]
    assert torch.allclose(tv, total_variation(square, reduction="none") / pairs)
