"""The image encoder, projections, generator and discriminators of NIGDT: sizes, order of layers, options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.nigdt.discriminator import Discriminator
from zoo.models.nigdt.network import Generator, ImageEncoder, downwards, hole_cells
from zoo.models.nigdt.projection import LEAST_DEVIATION, Gaussian, Projection, join

SIZES: dict[str, Any] = {"h": 9, "latent": 3, "width": 8, "up": (8, 8, 6, 5, 4), "low": 8}  # five layers, as at 256
NANO: dict[str, Any] = {
    "h": 144, "latent": 16, "width": 48, "up": (48, 48, 32, 24, 16), "low": 32, "attention_at": 3, "outputs": 3,
    "kept": 2,
}  # fmt: skip


def make(lively: bool = True, **changes: Any) -> Generator:
    """A small generator; `lively`: no parameter is where it starts, so that none can be forgotten unseen."""
    torch.manual_seed(0)
    generator = Generator(**{**SIZES, **changes}).eval()
    return enliven(generator) if lively else generator


def enliven(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module


def inputs(height: int = 2, width: int = 3, step: int = 32, low: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h, z, v_l and a mask."""
    generator = torch.Generator().manual_seed(1)
    h, z, v_l = (
        torch.randn(2, c, k * height, k * width, generator=generator) for c, k in ((9, 1), (3, 1), (8, low))
    )  # fmt: skip
    mask = torch.zeros(2, 1, step * height, step * width)
    mask[0, :, 5:40, 20:57], mask[1, :, 30:31, 7:90] = 1, 1
    return h, z, v_l, mask


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def receiving(module: nn.Module, loss: Tensor) -> set[str]:
    """The parameters that a loss moves."""
    module.zero_grad()
    loss.backward()
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def unnormalized(module: nn.Module) -> list[str]:
    """The convolutions without spectral normalization."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [n for n, m in module.named_modules() if isinstance(m, kinds) and not hasattr(m, "parametrizations")]


# --- the image encoder ------------------------------------------------------------------------------------------------


def test_the_papers_encoder_halves_five_times_and_has_seven_layers() -> None:
    encoder = ImageEncoder()
    v_l, v_h = encoder(torch.zeros(1, 3, 64, 96))
    assert (v_l.shape, v_h.shape) == ((1, 256, 8, 12), (1, 256, 2, 3))
    assert len(encoder.stages) == 7


def test_features_come_after_the_layers_they_should() -> None:
    torch.manual_seed(0)
    encoder, image = enliven(ImageEncoder((4, 5, 6, 7), halvings=3, low=2)).eval(), torch.randn(2, 3, 32, 16)
    after = [image]
    for stage in encoder.stages:
        after.append(stage(after[-1]))
    assert [tuple(x.shape[1:]) for x in after[1:]] == [(4, 16, 8), (5, 8, 4), (6, 4, 2), (7, 4, 2)]
    for given, wanted in zip(encoder(image), (after[2], after[4]), strict=True):
        assert torch.equal(given, wanted)


def test_an_image_is_encoded_alike_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    encoder, image = ImageEncoder((4, 5, 6, 7), halvings=3, low=2).eval(), torch.randn(3, 3, 16, 16)
    for together, alone in zip(encoder(image), encoder(image[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "sizes", [{"halvings": 0}, {"halvings": 8}, {"low": 0}, {"low": 8}], ids=lambda sizes: str(sizes)
)
def test_an_encoder_that_cannot_be_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="7"):
        ImageEncoder(**sizes)


# --- the projections --------------------------------------------------------------------------------------------------


def test_h_is_image_words_and_sentence_in_the_papers_order() -> None:
    v_h, t_e, t_sent = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5), torch.randn(2, 7)
    h = join(v_h, t_e, t_sent)
    assert h.shape == (2, 16, 4, 5)
    assert torch.equal(h[:, :3], v_h)
    assert torch.equal(h[:, 3:9], t_e)
    assert all(torch.equal(h[:, 9:, y, x], t_sent) for y in range(4) for x in range(5))


def test_a_sample_is_the_mean_and_k_deviations_of_noise() -> None:
    mean, deviation, noise = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    gaussian = Gaussian(mean, deviation)
    assert torch.equal(gaussian.draw(noise, k=0.0), mean)
    torch.testing.assert_close(gaussian.draw(noise), mean + deviation * noise)
    torch.testing.assert_close(gaussian.draw(noise, k=2.5), mean + 2.5 * deviation * noise)


def test_half_of_a_projections_channels_are_means_the_others_deviations() -> None:
    torch.manual_seed(0)
    projection, h = enliven(Projection(9, latent=3, width=5, blocks=4)).eval(), torch.randn(2, 9, 4, 6)
    gaussian, x = projection(h), h
    assert len(projection.blocks) == 4
    for block in projection.blocks:
        x = block(x)
    assert torch.equal(gaussian.mean, x[:, :3])
    torch.testing.assert_close(gaussian.deviation, torch.log1p(x[:, 3:].exp()) + 1e-5)


@pytest.mark.parametrize(
    ("blocks", "widths"),
    [(1, [(9, 6, 6)]), (2, [(9, 5, 5), (5, 5, 6)]), (4, [(9, 5, 5), (5, 5, 5), (5, 5, 5), (5, 5, 6)])],
)
def test_the_widths_of_a_projections_layers(blocks: int, widths: list[tuple[int, int, int]]) -> None:
    """Channels in, between and out: where there is one layer, it is as wide inside as at its end."""
    found = []
    for block in Projection(9, latent=3, width=5, blocks=blocks).blocks:
        a, b = (m for m in block.main if isinstance(m, nn.Conv2d))
        assert a.out_channels == b.in_channels
        found.append((a.in_channels, a.out_channels, b.out_channels))
    assert found == widths


def test_layers_before_see_the_image_alone() -> None:
    torch.manual_seed(0)
    projection, h = (
        enliven(Projection(9, latent=3, width=5, blocks=1, before=2, visual=4)).eval(),
        torch.randn(2, 9, 4, 4),
    )
    v = projection.before[1](projection.before[0](h[:, :4]))
    wanted = projection.blocks(torch.cat([v, h[:, 4:]], 1))
    assert torch.equal(projection(h).mean, wanted[:, :3])
    assert not torch.equal(projection(h).mean, projection.blocks(h)[:, :3])


def test_a_deviation_stays_above_zero_and_in_float32() -> None:
    torch.manual_seed(0)
    projection, h = Projection(9, latent=3, width=5), torch.randn(2, 9, 4, 4)
    with torch.no_grad():
        projection.blocks[-1].shortcut[0].bias[3:] = -1e4
    with torch.autocast("cpu", torch.bfloat16):
        gaussian = projection(h)
    assert gaussian.mean.dtype == gaussian.deviation.dtype == torch.float32
    torch.testing.assert_close(gaussian.deviation, torch.full((2, 3, 4, 4), LEAST_DEVIATION))
    assert gaussian.deviation.log().isfinite().all()


@pytest.mark.parametrize("sizes", [{"blocks": 0}, {"before": 1}, {"before": 1, "visual": 10}], ids=str)
def test_a_projection_that_cannot_be_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Projection(9, latent=3, width=5, **sizes)


# --- the generator ----------------------------------------------------------------------------------------------------


def test_four_images_each_twice_as_large_as_the_one_before() -> None:
    images = make()(*inputs())
    assert [tuple(image.shape) for image in images] == [(2, 3, k * 2, k * 3) for k in (4, 8, 16, 32)]
    assert all(image.abs().max() <= 1 for image in images)


def test_the_generator_is_what_its_layers_say() -> None:
    """Combination, two layers, attention, a head; three times the next layer with the image before it, and a head."""
    g, (h, z, v_l, mask) = make(), inputs()
    x = g.layers[1](g.layers[0](g.project_h(h) + g.project_z(z)))
    hole = mask.view(2, 1, 8, 8, 12, 8).amax((3, 5))
    x = g.attention(x, v_l, hole)
    wanted = [g.heads[0](x)]
    for layer, head in zip(g.layers[2:], g.heads[1:], strict=True):
        x = layer(torch.cat([x, wanted[-1]], 1))
        wanted.append(head(x))
    for given, image in zip(g(h, z, v_l, mask), wanted, strict=True):
        torch.testing.assert_close(given, image, atol=1e-6, rtol=1e-5)


def test_one_output_shows_no_image_to_a_layer() -> None:
    g, given = make(outputs=1), inputs()
    (image,) = g(*given)
    assert image.shape == (2, 3, 64, 96)
    assert [layer.shortcut[0].in_channels for layer in g.layers] == [8, 8, 8, 6, 5]
    assert [layer.shortcut[0].in_channels for layer in make().layers] == [8, 8, 11, 9, 8]


def test_kept_layers_keep_the_size() -> None:
    g = make(kept=2, attention_at=3, up=(8, 8, 8, 5, 4), outputs=3)
    images = g(*inputs(4, 6, step=8, low=2))
    assert [tuple(image.shape) for image in images] == [(2, 3, k * 4, k * 6) for k in (2, 4, 8)]
    kinds = [any(isinstance(m, nn.ConvTranspose2d) for m in layer.modules()) for layer in g.layers]
    assert kinds == [False, False, True, True, True]


def test_a_place_is_hole_where_any_of_its_pixels_is() -> None:
    mask = torch.zeros(1, 1, 16, 24)
    mask[0, 0, 7, 8] = 1
    cells = hole_cells(mask, torch.zeros(1, 5, 4, 6))
    assert cells.shape == (1, 1, 4, 6)
    assert cells.nonzero().tolist() == [[0, 0, 1, 2]]


def test_features_of_the_known_image_reach_the_output_from_the_start() -> None:
    """α starts at zero: at first nothing of v_l is read in the hole."""
    g, (h, z, v_l, mask) = make(lively=False), inputs()
    v_l.requires_grad_()
    g(h, z, v_l, mask)[-1].square().sum().backward()
    assert v_l.grad is not None
    moved, hole = v_l.grad.abs().amax(1, keepdim=True) > 0, hole_cells(mask, v_l) > 0.5
    assert torch.equal(moved, ~hole)


@pytest.mark.parametrize(
    "changes", [{}, {"mask_skip": True}, {"outputs": 1}, {"mixed": True}, {"spectral": False}, {"dim": 0}], ids=str
)
def test_every_parameter_takes_part(changes: dict[str, Any]) -> None:
    """Distributed training stumbles over parameters without gradient."""
    g = make(**changes)
    images = g(*inputs())
    weights = [torch.randn(image.shape) for image in images]
    loss = torch.stack([(image * w).sum() for image, w in zip(images, weights, strict=True)]).sum()
    assert receiving(g, loss) == {name for name, _ in g.named_parameters()}


def test_the_last_image_needs_the_coarser_ones() -> None:
    g = make()
    received = receiving(g, g(*inputs())[-1].square().sum())
    assert {name for name, _ in g.named_parameters()} == received


def test_samples_do_not_mix() -> None:
    """In double precision: in single, sums of another order differ by as much as some processors make of it."""
    g, given = make(mask_skip=True).double(), [x.double() for x in inputs()]
    for together, alone in zip(g(*given), g(*(x[1:] for x in given)), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-12, rtol=1e-10)


def test_the_mask_is_told_to_every_layer_and_head_as_the_share_of_hole() -> None:
    g, (h, z, v_l, mask) = make(mask_skip=True), inputs()
    told: list[Tensor] = []
    for conv in g.mask_skips:
        conv.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    g(h, z, v_l, mask)
    assert [conv.out_channels for conv in g.mask_skips] == [8, 8, 8, 6, 5, 4]
    for share, size in zip(told, (2, 4, 8, 16, 32, 64), strict=True):
        block = 64 // size
        wanted = mask.view(2, 1, size, block, size * 3 // 2, block).mean((3, 5))
        torch.testing.assert_close(share, wanted)


def test_the_mask_enters_before_the_layers_and_the_heads() -> None:
    g, (h, z, v_l, mask) = make(mask_skip=True), inputs()
    skips = [lambda x, s=s: x + s(F.avg_pool2d(mask, 64 // x.shape[2])) for s in g.mask_skips]
    x = skips[1](g.layers[0](skips[0](g.project_h(h) + g.project_z(z))))
    x = skips[2](g.attention(g.layers[1](x), v_l, hole_cells(mask, v_l)))
    wanted = [g.heads[0](x)]
    for layer, skip, head in zip(g.layers[2:], skips[3:], g.heads[1:], strict=True):
        x = skip(layer(torch.cat([x, wanted[-1]], 1)))
        wanted.append(head(x))
    for given, image in zip(g(h, z, v_l, mask), wanted, strict=True):
        torch.testing.assert_close(given, image, atol=1e-6, rtol=1e-5)


def test_without_a_hole_telling_the_mask_changes_nothing_at_first() -> None:
    plain, told = make(lively=False), make(lively=False, mask_skip=True)
    told.load_state_dict({**told.state_dict(), **plain.state_dict()})
    h, z, v_l, mask = inputs()
    nothing = torch.zeros_like(mask)
    assert torch.equal(told(h, z, v_l, nothing)[-1], plain(h, z, v_l, nothing)[-1])
    assert not torch.equal(told(h, z, v_l, mask)[-1], plain(h, z, v_l, mask)[-1])


def test_the_generator_is_normalized_but_for_the_query_and_the_masks() -> None:
    assert unnormalized(make()) == ["attention.query"]
    assert unnormalized(make(mask_skip=True)) == ["attention.query", *(f"mask_skips.{k}" for k in range(6))]
    assert not any("parametrizations" in name for name, _ in make(spectral=False).named_parameters())


@pytest.mark.parametrize("dim", [0, 1])
def test_the_rows_of_transposed_convolutions_can_be_their_inputs(dim: int) -> None:
    g: Any = make(dim=dim)
    for layer in g.layers:
        conv = layer.shortcut[0]
        vector = conv.parametrizations.weight[0]._u
        assert len(vector) == (conv.in_channels, conv.out_channels)[dim]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": 7}, "v_l"),
        ({"attention_at": 0}, "attention_at"),
        ({"attention_at": 6}, "attention_at"),
        ({"outputs": 0}, "outputs"),
        ({"outputs": 6}, "outputs"),
        ({"kept": 2, "outputs": 4}, "outputs"),
        ({"kept": 5}, "kept"),
        ({"kept": -1}, "kept"),
    ],
    ids=str,
)
def test_a_generator_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**changes)


def test_features_of_another_size_and_tiny_images_are_refused() -> None:
    g, (h, z, v_l, mask) = make(), inputs()
    with pytest.raises(UsageError, match="v_l is 4x6, and the generator attends at 8x12"):
        g(h, z, v_l[..., ::2, ::2], mask)
    with pytest.raises(UsageError, match="at least 64 pixels"):
        g(h[..., :1, :1], z[..., :1, :1], v_l[..., :4, :4], mask[..., :32, :32])


# --- the discriminators -----------------------------------------------------------------------------------------------


def test_scores_are_a_map_of_six_by_six() -> None:
    with torch.no_grad():
        assert Discriminator()(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 6, 6)
        small = Discriminator((16, 32, 48, 48), halvings=3, attention_after=0)
        assert small(torch.zeros(2, 3, 64, 64)).shape == (2, 1, 6, 6)


def test_scores_are_linear_in_the_features() -> None:
    torch.manual_seed(0)
    critic, image = enliven(Discriminator((4, 8, 6), halvings=2, attention_after=2)).eval(), torch.randn(2, 3, 32, 48)
    x = image
    for layer in critic.layers:
        x = layer(x)
    features = torch.where(x > 0, x, 0.1 * x)
    torch.testing.assert_close(critic.features(image), features)
    torch.testing.assert_close(critic(image), F.conv2d(features, critic.score.weight, critic.score.bias))


def test_attention_stands_where_it_should_and_is_short_term() -> None:
    critic = Discriminator((4, 8, 8, 6), halvings=2, attention_after=3)
    kinds = [type(layer).__name__ for layer in critic.layers]
    assert kinds == ["Residual", "Residual", "Residual", "ShortLongAttention", "Residual"]
    assert [name for name, _ in critic.layers[3].named_children()] == ["query"]
    assert unnormalized(critic) == ["layers.3.query"]


@pytest.mark.parametrize("attention", [0, 2])
def test_every_parameter_of_a_discriminator_takes_part(attention: int) -> None:
    torch.manual_seed(0)
    critic = enliven(Discriminator((4, 8, 6), halvings=2, attention_after=attention))
    received = receiving(critic, critic(torch.randn(2, 3, 32, 32)).square().sum())
    assert received == {name for name, _ in critic.named_parameters()}


@pytest.mark.parametrize("sizes", [{"attention_after": 7}, {"attention_after": -1}, {"halvings": 7}], ids=str)
def test_a_discriminator_that_cannot_be_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="6"):
        Discriminator(**sizes)


def test_the_first_blocks_halve_the_size_and_the_others_keep_it() -> None:
    halving = [any(isinstance(m, nn.AvgPool2d) for m in block.modules()) for block in downwards((4, 5, 6, 7), 2)]
    assert halving == [True, True, False, False]


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_parameters_of_the_papers_networks() -> None:
    assert count(ImageEncoder()) == 5_520_320
    assert count(Projection()) == 8_196_352
    assert count(Generator()) == 10_257_696


def test_parameters_of_the_published_networks() -> None:
    """Specified: 23.16 M, 10.26 M and 1.58 M; of the last, 475,521 are an unused block and an unused number."""
    encoder = ImageEncoder((32, 128, 256, 256, 256))
    posterior, prior = Projection(blocks=1), Projection(blocks=1, before=6, visual=256)
    query = 256 * 256
    assert count(encoder) == 3_028_416
    assert count(encoder) + count(posterior) + count(prior) + query == 23_155_648
    assert count(Generator(dim=0)) == 10_257_696
    assert count(Discriminator()) + 475_521 == 1_575_075


def test_parameters_of_the_nano_networks() -> None:
    """Specified: 0.73 M with the query of the attention, 0.30 M, and 0.08 M."""
    encoder = ImageEncoder((16, 32, 48, 48, 48, 48, 48), halvings=3, low=2)
    assert count(encoder) + 2 * count(Projection(144, 16, 48)) + 48 * 48 == 728_960
    assert count(Generator(**NANO)) == 306_239
    assert count(Discriminator((16, 32, 48, 48), halvings=3, attention_after=0)) == 79_393


def test_discriminators_say_how_large_images_must_be() -> None:
    with pytest.raises(UsageError, match="at least 24 pixels"):
        Discriminator((4, 4, 4, 4), 3, 0)(torch.zeros(1, 3, 16, 16))
