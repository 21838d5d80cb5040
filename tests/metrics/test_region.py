"""The hole and the band along its edge."""

from __future__ import annotations

import pytest
import torch

from zoo.metrics import band_width, regions


def _naive_band(hole: torch.Tensor, reach: int) -> torch.Tensor:
    height, width = hole.shape
    band = torch.zeros_like(hole)
    for i in range(height):
        for j in range(width):
            near = hole[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
            band[i, j] = bool(near.any()) and not bool(near.all())
    return band


@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 30), (96, 100), (1, 5)])
def test_band_equals_a_naive_search(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height)
    mask = (torch.rand(4, 1, height, width, generator=generator) > 0.98).float()
    mask[1] = 1 - mask[1]
    mask[2, :, : height // 2] = 1
    found = regions(mask)
    assert found.dtype == torch.bool
    assert bool(found[:, 0].all())
    assert torch.equal(found[:, 1:2], mask > 0)
    for n in range(4):
        assert torch.equal(found[n, 2], _naive_band(mask[n, 0] > 0, band_width(height, width)))


def test_band_reaches_equally_far_to_both_sides() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    assert regions(mask)[0, 2].nonzero()[:, 1].unique().tolist() == [30, 31, 32, 33]
    assert torch.equal(regions(mask)[:, 2], regions(1 - mask)[:, 2])


def test_the_border_of_the_image_is_no_edge() -> None:
    for fill in (0.0, 1.0):
        assert not regions(torch.full((1, 1, 20, 20), fill))[:, 2].any()


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(8, 8, 2), (64, 64, 2), (80, 96, 3), (256, 256, 8), (512, 1024, 16)]
)
def test_width_follows_the_shorter_side(height: int, width: int, expected: int) -> None:
    assert band_width(height, width) == expected == band_width(width, height)
