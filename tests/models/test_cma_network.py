"""The generator, the discriminators and the local crop of CMA: sizes, readings of the paper, squares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.layers.residual import Residual
from zoo.models.cma.crop import crop, hole_squares
from zoo.models.cma.network import (
    DOWN_INPUTS,
    PRIOR_SKIPS,
    Discriminator,
    DownSampling,
    Generator,
    GeneratorOptions,
    doubles,
    halvings,
)

SIZES: dict[str, Any] = {"prior": 6, "patch": 8, "down": (4, 5, 6, 7, 8), "up": (9, 8, 7, 6, 5)}


def make(**changes: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorOptions(**{**SIZES, **changes}))


def inputs(height: int = 32, width: int = 48, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A corrupted image, its mask, and visual priors."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(batch, 1, height, width)
    mask[..., 4:13, 10:20] = 1
    image = (torch.rand(batch, 3, height, width, generator=generator) * 2 - 1) * (1 - mask)
    return image, mask, torch.randn(batch, height // 8 * (width // 8), 6, generator=generator)


def shapes(generator: nn.Module, names: list[str], *given: Tensor) -> dict[str, tuple[int, ...]]:
    """C H W that submodules put out."""
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        generator.get_submodule(name).register_forward_hook(
            lambda _, __, y, name=name: seen.update({name: tuple(y.shape[1:])})
        )
    generator(*given)
    return seen


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- the generator ----------------------------------------------------------------------------------------------------


def test_five_layers_halve_to_the_grid_and_five_double_back() -> None:
    generator = make(patch=32)
    x, M, V = torch.zeros(1, 3, 128, 64), torch.zeros(1, 1, 128, 64), torch.zeros(1, 8, 6)
    seen = shapes(generator, [f"{part}.{k}" for part in ("down", "up") for k in range(5)], x, M, V)
    assert [seen[f"down.{k}"] for k in range(5)] == [(4, 64, 32), (5, 32, 16), (6, 16, 8), (7, 8, 4), (8, 4, 2)]
    assert [seen[f"up.{k}"] for k in range(5)] == [(9, 8, 4), (8, 16, 8), (7, 32, 16), (6, 64, 32), (5, 128, 64)]


def test_with_smaller_patches_the_layers_at_the_grid_keep_the_size() -> None:
    seen = shapes(make(), [f"{part}.{k}" for part in ("down", "up") for k in range(5)], *inputs(64, 64))
    assert [seen[f"down.{k}"][1] for k in range(5)] == [32, 16, 8, 8, 8]
    assert [seen[f"up.{k}"][1] for k in range(5)] == [8, 8, 16, 32, 64]


def test_layers_that_keep_the_size_can_lie_between_those_that_double_it() -> None:
    seen = shapes(make(kept="between"), [f"up.{k}" for k in range(5)], *inputs(64, 64))
    assert [seen[f"up.{k}"][1] for k in range(5)] == [16, 16, 32, 32, 64]
    D, S = True, False
    assert doubles(5, 3, "first") == [S, S, D, D, D]
    assert doubles(5, 3, "between") == [D, S, D, S, D]
    assert doubles(5, 4, "between") == [D, S, D, D, D]
    assert doubles(5, 2, "between") == [S, S, D, S, D]
    assert doubles(5, 1, "between") == doubles(5, 1, "first")
    assert doubles(5, 5, "between") == [D] * 5


def test_eq_3_and_4_are_down_skip_up_and_head() -> None:
    generator = make().eval()
    x, M, V = inputs()
    made = generator(x, M, V)
    grid = torch.stack([V[:, k].view(2, 6, 1) for k in range(24)], 2).view(2, 6, 4, 6)  # row by row
    v = generator.down(torch.cat([x, M], 1))
    features = torch.cat([v, generator.skip(grid)], 1)
    for layer in generator.up:
        features = layer(features)
    torch.testing.assert_close(made, generator.head(features))
    assert made.shape == x.shape
    assert made.abs().max() <= 1


def test_priors_enter_every_layer_where_they_are_asked_to() -> None:
    generator = make(prior_skip="all").eval()
    x, M, V = inputs()
    grid = V.transpose(1, 2).view(2, 6, 4, 6)
    features = torch.cat([generator.down(torch.cat([x, M], 1)), generator.skip(grid)], 1)
    for skip, layer in zip(generator.skips, generator.up, strict=True):
        features = layer(features + F.interpolate(skip(grid), features.shape[-2:], mode="bilinear"))
    torch.testing.assert_close(generator(x, M, V), generator.head(features))
    assert len(generator.skips) == 5
    assert len(make().skips) == 0


@pytest.mark.parametrize("down_input", DOWN_INPUTS)
@pytest.mark.parametrize("prior_skip", PRIOR_SKIPS)
@pytest.mark.parametrize("mask_channel", [True, False])
def test_every_reading_trains_all_of_its_parameters(down_input: str, prior_skip: str, mask_channel: bool) -> None:
    generator = make(down_input=down_input, prior_skip=prior_skip, mask_channel=mask_channel)
    x, M, V = (given.requires_grad_(True) for given in inputs())
    made = generator(x, M, V)
    assert made.shape == x.shape
    made.square().sum().backward()
    unused = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unused == []
    reads = {name: given.grad is not None for name, given in (("x", x), ("M", M), ("V", V))}
    assert reads == {
        "x": down_input in ("pixels", "both"), "M": mask_channel and down_input != "tokens", "V": True,
    }  # fmt: skip


@pytest.mark.parametrize(("down_input", "channels"), [("pixels", 3), ("prior_image", 3), ("both", 6), ("tokens", 6)])
def test_what_is_down_sampled(down_input: str, channels: int) -> None:
    fed: list[Tensor] = []
    generator = make(down_input=down_input).eval()
    generator.down.register_forward_pre_hook(lambda _, given: fed.append(given[0].detach()))
    x, M, V = inputs()
    generator(x, M, V)
    assert fed[0].shape[1] == channels + (down_input != "tokens")
    if down_input == "tokens":
        assert torch.equal(fed[0], V.transpose(1, 2).view(2, 6, 4, 6))
        return
    assert torch.equal(fed[0][:, -1:], M)
    if down_input in ("pixels", "both"):
        assert torch.equal(fed[0][:, :3], x)
    if down_input != "pixels":  # a patch of the image is made of its own prior
        made, linear = fed[0][:, -4:-1], generator.to_image
        assert linear is not None
        expected = linear(V[:, 13]).view(2, 3, 8, 8)  # row 2, column 1
        torch.testing.assert_close(made[..., 16:24, 8:16], expected)


def test_a_literal_reading_has_three_channels() -> None:
    fed: list[Tensor] = []
    generator = make(mask_channel=False).eval()
    generator.down.register_forward_pre_hook(lambda _, given: fed.append(given[0]))
    x, M, V = inputs()
    generator(x, M, V)
    assert torch.equal(fed[0], x)


def test_every_convolution_is_spectrally_normalized() -> None:
    for module in (make(prior_skip="all"), Discriminator((4, 4, 4, 4, 4))):
        layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(layers) >= 15
        assert all(hasattr(m, "parametrizations") for m in layers)


@pytest.mark.parametrize(("change", "text"), [({"down_input": "pixel"}, "'pixel'"), ({"prior_skip": "none"}, "'none'")])
def test_other_readings_are_refused_by_name(change: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        make(**change)
    choices = DOWN_INPUTS if "down_input" in change else PRIOR_SKIPS
    assert all(choice in str(caught.value) for choice in choices)


@pytest.mark.parametrize("patch", [12, 1, 64, 31, 33])
def test_patches_must_be_halved_by_the_layers(patch: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        make(patch=patch)


def test_halvings_are_the_logarithm() -> None:
    assert [halvings(2**k, 5) for k in range(1, 6)] == [1, 2, 3, 4, 5]


def test_sizes_of_the_nano_preset() -> None:
    options = GeneratorOptions(prior=96, patch=8, down=(16, 32, 64, 96, 96), up=(96, 64, 48, 32, 16))
    assert 0.8e6 < count(Generator(options)) < 1e6
    critics = [Discriminator((16, 32, 64, 64, 64), halve) for halve in (4, 3)]
    assert all(0.15e6 < count(critic) < 0.25e6 for critic in critics)


# --- the discriminators -----------------------------------------------------------------------------------------------


def test_a_discriminator_scores_the_mean_over_places() -> None:
    torch.manual_seed(0)
    D = Discriminator((4, 5, 6, 7, 8), 3).eval()
    x = torch.randn(3, 3, 32, 48)
    features = D.layers(x)
    assert features.shape == (3, 8, 4, 6)
    features = torch.where(features > 0, features, 0.1 * features).flatten(2).mean(2)
    torch.testing.assert_close(D(x), (features @ D.score.weight.T + D.score.bias)[:, 0])
    assert D(x).shape == (3,)


def test_five_layers_of_which_some_halve() -> None:
    for halve in range(1, 6):
        layers = DownSampling(3, (4, 4, 4, 4, 4), halve)
        assert len(layers) == 5
        assert all(isinstance(layer, Residual) for layer in layers)
        assert layers(torch.zeros(1, 3, 64, 32)).shape[-2:] == (64 >> halve, 32 >> halve)


def test_one_discriminator_serves_images_and_crops_of_any_size() -> None:
    D = Discriminator((4, 4, 4, 4, 4))
    for size in (32, 64, 96):
        assert D(torch.randn(2, 3, size, size)).shape == (2,)


# --- the local crop ---------------------------------------------------------------------------------------------------


def box(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Tensor:
    """A mask with a rectangular hole; the ends lie outside it."""
    mask = torch.zeros(1, 1, *size)
    mask[..., top:bottom, left:right] = 1
    return mask


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_c10_the_crop_of_the_centre_mask_is_the_exact_slice() -> None:
    mask, image = box((256, 256), 64, 64, 192, 192), picture(256, 256)
    squares = hole_squares(mask, 32)
    assert squares.tolist() == [[64, 64, 128]]
    assert torch.equal(crop(image, squares, 128), image[..., 64:192, 64:192])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crop(image, squares, 128), image[..., 64:192, 64:192])


@pytest.mark.parametrize(
    ("hole", "expected"),
    [
        ((10, 20, 30, 40), (10, 20, 20)),  # a square
        ((10, 20, 14, 40), (2, 20, 20)),  # wide: grown up and down
        ((10, 20, 40, 30), (10, 10, 30)),  # high: grown left and right
        ((0, 0, 3, 3), (0, 0, 8)),  # the smallest side, moved inside
        ((45, 76, 48, 80), (40, 72, 8)),
        ((20, 30, 21, 31), (16, 26, 8)),  # a pixel
        ((5, 0, 10, 80), (0, 16, 48)),  # wider than the image is high
        ((0, 0, 48, 80), (0, 16, 48)),  # all of it
    ],
)
def test_the_square_is_the_smallest_around_the_hole_that_lies_inside(
    hole: tuple[int, int, int, int], expected: tuple[int, int, int]
) -> None:
    assert tuple(hole_squares(box((48, 80), *hole), 8)[0].tolist()) == expected


def test_squares_hold_scattered_holes_and_are_of_each_sample_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(6, 1, 40, 40, generator=generator) > 0.995).float()
    together = hole_squares(masks, 4)
    assert torch.equal(together, torch.cat([hole_squares(mask[None], 4) for mask in masks]))
    for mask, (top, left, side) in zip(masks, together.tolist(), strict=True):
        assert mask.sum() > 1
        assert mask[:, top : top + side, left : left + side].sum() == mask.sum()
        rows, columns = (mask[0].amax(axis).nonzero() for axis in (1, 0))
        assert side == max(rows.max() - rows.min(), columns.max() - columns.min()) + 1


def test_c10_without_a_hole_there_still_is_a_square() -> None:
    squares = hole_squares(torch.cat([torch.zeros(1, 1, 32, 32), box((32, 32), 4, 4, 20, 20)]), 8)
    top, left, side = squares[0].tolist()
    assert side == 8
    assert 0 <= top <= 24
    assert 0 <= left <= 24
    assert crop(picture(32, 32, 2), squares, 16).isfinite().all()


@pytest.mark.parametrize(("side", "size"), [(40, 16), (16, 40), (33, 16), (48, 16), (17, 16)])
def test_other_squares_are_resized_with_antialias(side: int, size: int) -> None:
    image = picture(56, 64)
    made = crop(image, torch.tensor([[5, 9, side]]), size)
    expected = F.interpolate(
        image[..., 5 : 5 + side, 9 : 9 + side], (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("side", [16, 40, 64, 9])
def test_a_constant_stays_and_the_mean_is_kept(side: int) -> None:
    squares = torch.tensor([[0, 0, side]])
    torch.testing.assert_close(crop(torch.full((1, 3, 64, 64), 0.7), squares, 16), torch.full((1, 3, 16, 16), 0.7))
    image = picture(64, 64)
    assert crop(image, squares, 16).mean().item() == pytest.approx(image[..., :side, :side].mean().item(), abs=0.02)


def test_a_chessboard_becomes_grey() -> None:
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    made = crop(board, torch.tensor([[0, 0, 64]]), 16)
    torch.testing.assert_close(made, torch.full_like(made, 0.5), atol=0.05, rtol=0.0)


def test_c10_the_same_square_is_cut_out_of_real_and_fake() -> None:
    masks = torch.cat([box((32, 32), 2, 3, 12, 9), box((32, 32), 20, 8, 28, 30)])
    squares, real, fake = hole_squares(masks, 8), picture(32, 32, 2), picture(32, 32, 2) ** 2
    together = crop(torch.cat([real, fake]), squares.repeat(2, 1), 16)
    assert torch.equal(together, torch.cat([crop(real, squares, 16), crop(fake, squares, 16)]))
    assert not torch.equal(together[0], together[2])


def test_the_crop_has_a_gradient_at_every_pixel_of_the_square_and_nowhere_else() -> None:
    image = picture(32, 48).requires_grad_(True)
    crop(image, torch.tensor([[4, 11, 21]]), 8).sum().backward()
    assert image.grad is not None
    inside = torch.zeros(32, 48, dtype=torch.bool)
    inside[4:25, 11:32] = True
    assert torch.equal(image.grad[0, 0] > 0, inside)
    assert image.grad.sum().item() == pytest.approx(3 * 64, rel=1e-5)  # each target pixel is a mean


def test_every_layer_of_the_decoder_may_be_shown_the_mask() -> None:
    torch.manual_seed(0)
    generator = make(mask_channel=False, mask_skip=True).eval()
    seen = [[] for _ in range(len(generator.up) + 1)]  # type: ignore[var-annotated]
    for k, layer in enumerate([*generator.up, generator.head]):
        layer.register_forward_pre_hook(lambda _, inputs, k=k: seen[k].append(inputs[0]))
    P, e = generator.options.patch, generator.options.prior
    V, M = torch.randn(1, 16, e), torch.zeros(1, 1, 4 * P, 4 * P)
    M[..., P : 2 * P, P : 2 * P] = 1.0
    with torch.no_grad():
        for mask in (torch.zeros_like(M), M):
            generator(torch.zeros(1, 3, 4 * P, 4 * P), mask, V)
    assert all(not torch.equal(without, shown) for without, shown in seen)
    first = generator.masks[0]
    cells = torch.zeros(1, 1, 4, 4)
    cells[..., 1, 1] = 1.0
    expected = torch.nn.functional.conv2d(cells, first.weight, padding=1)
    torch.testing.assert_close(seen[0][1] - seen[0][0], expected)
