"""Hints, latent masks and fills of ECDM."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.ecdm.hints import edge_hint, fill, inpainting_hint, known_image, latent_mask


def scene(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, 3:9, 2:7] = 1
    mask[1, :, 10:, :] = 1
    return image, mask


def test_hints_are_the_known_image_and_a_marked_hole() -> None:
    image, mask = scene()
    hole, blind = mask.expand_as(image) > 0.5, image.masked_fill(mask > 0.5, float("nan"))
    three = inpainting_hint(blind, mask)
    assert torch.equal(three[~hole], image[~hole])
    assert (three[hole] == -1).all()
    for kind, value in (("rgbm", 0.0), ("rgbm_neg1", -1.0)):
        four = inpainting_hint(blind, mask, kind)
        assert torch.equal(four[:, 3:], mask)
        assert torch.equal(four[:, :3][~hole], image[~hole])
        assert (four[:, :3][hole] == value).all()
    with pytest.raises(UsageError, match="rgbm"):
        inpainting_hint(image, mask, "rgb")


def test_without_a_known_pixel_the_hint_is_minus_one_everywhere() -> None:
    image, mask = scene()
    assert (inpainting_hint(image, torch.ones_like(mask)) == -1).all()


def test_the_teachers_hint_has_three_equal_channels() -> None:
    edge = (scene()[0][:, :1] > 0.7).float()
    hint = edge_hint(edge)
    assert hint.shape == (2, 3, 16, 16)
    assert all(torch.equal(hint[:, c : c + 1], edge) for c in range(3))


def test_latent_masks_of_an_asymmetric_hole() -> None:
    mask = torch.zeros(1, 1, 8, 16)
    mask[..., 0, 5] = 1  # one pixel, not the first of its cell
    mask[..., 4:8, 8:12] = 1
    whole = torch.zeros(1, 1, 2, 4)
    whole[..., 1, 2] = 1
    largest, share = whole.clone(), whole.clone()
    largest[..., 0, 1], share[..., 0, 1] = 1, 1 / 16
    assert torch.equal(latent_mask(mask, 4, "max"), largest)
    assert torch.equal(latent_mask(mask, 4, "area"), share)
    assert torch.equal(latent_mask(mask, 4, "nearest"), whole)
    assert torch.equal(latent_mask(mask, 4, "nearest"), torch.nn.functional.interpolate(mask, (2, 4)))
    with pytest.raises(UsageError, match="nearest"):
        latent_mask(mask, 4, "bilinear")


def test_the_known_image_leaks_only_where_asked() -> None:
    image, mask = scene()
    blind = image.masked_fill(mask > 0.5, float("nan"))
    for kind in ("filled", "masked"):
        known = known_image(image, mask, kind)
        assert torch.equal(known, known_image(blind, mask, kind))
        assert torch.equal(known[(mask < 0.5).expand_as(known)], image[(mask < 0.5).expand_as(image)])
    assert (known_image(image, mask, "masked")[(mask > 0.5).expand_as(image)] == 0.5).all()
    assert torch.equal(known_image(image, mask, "gt"), image)
    with pytest.raises(UsageError, match="filled"):
        known_image(image, mask, "truth")


@pytest.mark.parametrize("shape", [(16, 16), (7, 13), (1, 5), (64, 48)])
def test_a_fill_of_one_colour_is_that_colour_at_every_size(shape: tuple[int, int]) -> None:
    mask = (torch.rand(3, 1, *shape, generator=torch.Generator().manual_seed(2)) > 0.3).float()
    mask[:, :, 0, 0], mask[2] = 0, 1
    colour = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 3, *shape).contiguous()
    filled = fill(colour, mask)
    assert torch.allclose(filled[:2], colour[:2], atol=1e-6)
    assert (filled[2] == 0.5).all()  # nothing is known there


def test_a_fill_is_smooth_between_the_known_pixels_and_knows_no_other_image() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    filled = fill(ramp, mask)
    inside = filled[..., 16:48, 16:48]
    assert inside.min() >= ramp[..., 15].min()
    assert inside.max() <= ramp[..., 48].max()
    assert (inside - ramp[..., 16:48, 16:48]).abs().mean() < 0.1
    # No step at the border of the hole is larger than a few of the ramp's own.
    assert (filled[..., 16:48, 15:49].diff(dim=-1).abs().max()) < 6 / 63
    other, hole = scene(size=64)
    assert torch.equal(fill(torch.cat([ramp, other]), torch.cat([mask, hole]))[:1], filled)
    with pytest.raises(UsageError, match="sweeps"):
        fill(ramp, mask, -1)
