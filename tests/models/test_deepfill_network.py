"""The generator, the discriminator and the critics of DeepFill: sizes, gates, padding, ablations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import DataError, UsageError
from zoo.models.deepfill.attention import ContextualAttention
from zoo.models.deepfill.discriminator import Critic, Critics, PatchDiscriminator, crop_hole
from zoo.models.deepfill.layers import GatedConv, Layer
from zoo.models.deepfill.network import Generator, GeneratorOptions


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


def picture(size: int = 64, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Images with a hole each that leaves known patches to attend to."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(batch, 1, size, size)
    for i in range(batch):
        mask[i, :, 8 + i : 20, 4 : 18 + 2 * i] = 1
    return torch.rand(batch, 3, size, size, generator=generator) * 2 - 1, mask


def lively(**options: Any) -> Generator:
    """A tiny generator whose signal survives its depth: as initialised, seventeen gates leave next to nothing."""
    torch.manual_seed(0)
    generator = Generator(GeneratorOptions(**{"width": 4, "dilations": (1, 2), **options}))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(2.0)
    return generator


def test_sizes_are_the_papers() -> None:
    generator = Generator()
    assert (count(generator.coarse), count(generator.refine), count(generator)) == (1_631_151, 2_421_327, 4_052_478)
    assert count(Generator(GeneratorOptions(guided=True))) == 4_053_678
    v1 = Generator(GeneratorOptions(width=32, gated="plain", refine_input="rgb_ones_mask"))
    assert (count(v1.coarse), count(v1.refine), count(v1)) == (1_448_227, 2_153_315, 3_601_542)
    assert (count(PatchDiscriminator(4)), count(PatchDiscriminator(5))) == (5_946_816, 5_948_416)
    critics = Critics("both", 64, 256, 128)
    assert (count(critics.whole), count(critics.crop)) == (2_733_441, 4_339_329)


def test_sizes_of_the_nano_presets() -> None:
    assert count(Generator(GeneratorOptions(width=12, dilations=(1, 2, 4, 8)))) == 1_017_954
    assert count(PatchDiscriminator(4, 24, 4)) == 377_064
    v1 = GeneratorOptions(width=16, dilations=(1, 2, 4, 8), gated="plain", refine_input="rgb_ones_mask")
    assert count(Generator(v1)) == 904_518
    critics = Critics("both", 16, 64, 32)
    assert (count(critics.whole), count(critics.crop)) == (168_801, 270_753)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gate_closes_and_opens(layout: torch.memory_format) -> None:
    layer = GatedConv(3, Layer(5), "on", "symmetric").to(memory_format=layout)  # type: ignore[call-overload]
    assert layer.conv.bias is not None
    x = picture()[0]
    with torch.no_grad():
        layer.conv.weight[5:] = 0
        for bias, expected in ((-1e4, 0.0), (1e4, F.elu(F.conv2d(x, layer.conv.weight[:5], padding=1)))):
            layer.conv.bias[5:] = bias
            torch.testing.assert_close(layer(x)[0], torch.as_tensor(expected).expand(2, 5, 64, 64))


@pytest.mark.parametrize(
    "changes",
    [
        {"gated": "plain"},
        {"gated": "partial"},
        {"pad_mode": "tf_same"},
        {"pad_mode": "reflect"},
        {"pre_attention": "elu"},
        {"attention_branch": False},
        {"coarse": False},
        {"coarse": False, "gated": "partial"},
        {"coarse": False, "guided": True},
        {"refine_input": "rgb_ones_mask"},
        {"refine_input": "rgb_ones_mask", "guided": True},
        {"output": "clamp"},
        {"gated_output": True},
        {"decoder_width": 6},
        {"guided": True},
    ],
    ids=str,
)
def test_every_option_runs_and_trains_all_of_its_parameters(changes: dict[str, Any]) -> None:
    generator = lively(**changes)
    image, mask = picture()
    sketch = (image[:, :1] > 0).float()
    made = generator(image, mask, sketch)
    assert made.refined.shape == image.shape
    assert made.refined.abs().max() <= 1
    assert (made.coarse is None) == (changes.get("coarse") is False)
    sum(x.square().sum() for x in made if x is not None).backward()
    missing = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []
    with torch.no_grad():
        moved = generator(torch.where(mask > 0.5, torch.nan, image), mask, sketch)
    torch.testing.assert_close(moved.refined, made.refined)  # nothing in the hole is looked at


def test_parts_that_are_switched_off_are_not_there() -> None:
    names = {name.split(".")[0] for name, _ in Generator(GeneratorOptions(coarse=False)).named_parameters()}
    assert names == {"refine"}
    refine = Generator(GeneratorOptions(attention_branch=False)).refine
    assert not any(isinstance(m, ContextualAttention) for m in refine.modules())
    assert {name.split(".")[0] for name, _ in refine.named_parameters()} == {"conv_branch", "decoder"}
    with pytest.raises(UsageError, match="no coarse network"):
        Generator(GeneratorOptions(coarse=False)).rough(*picture())


def test_a_detached_coarse_result_has_no_gradient_from_the_refinement() -> None:
    for detach in (False, True):
        generator = lively(detach_coarse=detach)
        generator(*picture()).refined.sum().backward()
        assert generator.coarse is not None
        assert all((p.grad is None) == detach for p in generator.coarse.parameters())


def test_the_sketch_counts_inside_the_hole_only() -> None:
    generator = lively(guided=True)
    image, mask = picture()
    drawn = torch.ones_like(mask)
    with torch.no_grad():
        nothing, inside = generator(image, mask), generator(image, mask, drawn * mask)
        torch.testing.assert_close(generator(image, mask, drawn).refined, inside.refined)
        torch.testing.assert_close(generator(image, mask, drawn * (1 - mask)).refined, nothing.refined)
        assert not torch.allclose(nothing.refined, inside.refined)


def test_the_coarse_network_is_equivariant_inside() -> None:
    """Moved by 4 pixels (its stride) the result moves too, out of the zero padding's reach."""
    coarse = lively(dilations=(1, 1, 1, 1)).coarse
    assert coarse is not None
    x = torch.randn(1, 5, 160, 160)
    with torch.no_grad():
        moved, still = coarse(x.roll(4, 3))[0], coarse(x)[0].roll(4, 3)
    torch.testing.assert_close(moved[..., 72:88, 72:88], still[..., 72:88, 72:88])


@pytest.mark.parametrize(("kernel", "padding"), [(3, (0, 1)), (5, (1, 2))])
def test_same_padding_is_uneven_at_stride_2(kernel: int, padding: tuple[int, int]) -> None:
    layer = GatedConv(2, Layer(3, kernel, 2), "plain", "tf_same")
    x = torch.randn(1, 2, 16, 16)
    expected = F.elu(F.conv2d(F.pad(x, padding * 2), layer.conv.weight, stride=2))
    torch.testing.assert_close(layer(x)[0], expected)


def test_reflection_falls_back_where_the_map_is_too_small() -> None:
    layer = GatedConv(2, Layer(3, dilation=4), "on", "reflect")
    assert layer(torch.randn(1, 2, 4, 4))[0].shape == (1, 3, 4, 4)
    x = torch.randn(1, 2, 8, 8)
    features, gate = F.conv2d(F.pad(x, [4] * 4, "reflect"), layer.conv.weight, dilation=4).chunk(2, 1)
    torch.testing.assert_close(layer(x)[0], F.elu(features) * gate.sigmoid())


def test_partial_convolution_is_renormalised_by_what_is_known() -> None:
    layer = GatedConv(1, Layer(1, activation="none"), "partial", "symmetric")
    nn.init.constant_(layer.conv.weight, 1 / 9)
    known = torch.zeros(1, 1, 8, 8)
    known[..., :4] = 1
    y, seen = layer(torch.full((1, 1, 8, 8), 3.0) + 100 * (1 - known), known)
    assert seen is not None
    torch.testing.assert_close(seen[0, 0, 0], torch.tensor([1.0] * 5 + [0.0] * 3))
    torch.testing.assert_close(y, 3.0 * seen)  # a mean over known pixels alone; nothing where none is


def test_attention_features_are_not_negative() -> None:
    refine = lively().refine
    with torch.no_grad():
        features, _ = refine.attn_pre(torch.randn(1, 3, 32, 32))
    assert features.min() == 0
    assert features.max() > 0


def test_spectral_norm_converges_to_one() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(4, 8, 3)
    x = torch.randn(1, 4, 16, 16)
    for _ in range(50):
        discriminator(x)
    discriminator.eval()
    for layer in discriminator.layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)  # type: ignore[operator, union-attr]
        assert largest.item() == pytest.approx(1.0, rel=0.05)


def test_spectral_norm_iterates_in_float32_under_autocast() -> None:
    results = []
    for precision in (None, torch.bfloat16):
        torch.manual_seed(0)
        discriminator = PatchDiscriminator(4, 8, 3)
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            discriminator(torch.randn(1, 4, 16, 16))
        results.append({k: v for k, v in discriminator.state_dict().items() if k.endswith(("_u", "_v"))})
    assert len(results[0]) == 6
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=0.0, rtol=0.0)


def test_the_discriminators_last_layer_is_rectified() -> None:
    torch.manual_seed(0)
    scores = PatchDiscriminator(4, 8, 3)(torch.randn(4, 4, 32, 32))
    assert scores.shape == (4, 32, 4, 4)
    assert 0 < -scores.min() < 0.5 * scores.max()  # a leak of 0.2


def test_crops_are_centred_on_the_hole_and_lie_inside() -> None:
    index = torch.arange(16.0).view(1, 1, 1, 16).expand(4, 1, 16, 16)
    mask = torch.zeros(4, 1, 16, 16)
    mask[0, :, 6:10, 6:8] = 1
    mask[1, :, 0:2, 0:2] = 1
    mask[2, :, 2:4, 15] = 1
    crops = crop_hole(torch.cat([index, index.mT], 1), mask, 8)
    assert crops.shape == (4, 2, 8, 8)
    assert crops[:, 0, 0, 0].tolist() == [3, 0, 8, 4]  # the last has no hole: the middle
    assert crops[:, 1, 0, 0].tolist() == [4, 0, 0, 4]


@pytest.mark.parametrize(("which", "names"), [("both", {"whole", "crop"}), ("global", {"whole"}), ("local", {"crop"})])
@pytest.mark.parametrize("with_mask", [False, True])
def test_critics_score_each_image(which: str, names: set[str], with_mask: bool) -> None:
    critics = Critics(which, 4, 64, 32, with_mask)
    scores = critics(*picture())
    assert set(scores) == names == {name.split(".")[0] for name, _ in critics.named_parameters()}
    assert all(score.shape == (2,) for score in scores.values())


def test_a_critic_refuses_images_of_another_size() -> None:
    with pytest.raises(DataError, match="built for 32 x 32"):
        Critic(3, [4, 4], 32)(torch.zeros(1, 3, 64, 64))
