"""Map networks, pre-modulation, RGB branch, mean latent and discriminator of MMInvertFill."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import DataError, UsageError
from zoo.models.mminvertfill.branch import RGBBranch, branch_widths
from zoo.models.mminvertfill.discriminator import PatchDiscriminator
from zoo.models.mminvertfill.generator import StyleGenerator
from zoo.models.mminvertfill.maps import MapToVector, map_widths, structure_map
from zoo.models.mminvertfill.mean import MeanLatent
from zoo.models.mminvertfill.premodulation import PreModulation, level, normalize, spread

NANO = {4: 48, 8: 48, 16: 48, 32: 32, 64: 16}
PAPER = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def maps(channels: list[int], sizes: list[int], width: int, kind: str) -> int:
    with torch.device("meta"):
        return count(*(MapToVector(c, n, width, kind) for c, n in zip(channels, sizes, strict=True)))


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_are_the_published_ones() -> None:
    sizes = [32, 64, 128]
    assert maps([256, 128, 64], sizes, 512, "const") == 38_251_008
    assert maps([19] * 3, sizes, 512, "const") == 36_449_280
    assert maps([256, 128, 64], sizes, 512, "grow") == 27_005_504
    assert maps([19] * 3, sizes, 512, "grow") == 19_627_392
    with torch.device("meta"):
        assert count(PreModulation(14)) == 22_055_936
        assert count(RGBBranch(PAPER)) == 2_249_408
        assert count(PatchDiscriminator()) == 2_764_800


def test_sizes_of_the_nano_preset() -> None:
    assert maps([48, 32, 16], [8, 16, 32], 48, "const") == 235_728
    assert maps([9] * 3, [8, 16, 32], 48, "const") == 205_920
    assert count(PreModulation(10, 48)) == 140_640
    assert count(RGBBranch(NANO, {64: 8, 32: 12, 16: 16, 8: 16}, dense=8)) == 29_188
    assert count(PatchDiscriminator(base=16)) == 175_104


# --- map2style and map2structure --------------------------------------------------------------------------------------


def test_widths_of_the_map_networks() -> None:
    assert map_widths(256, 4) == [256, 512, 512, 512]
    assert map_widths(64, 7) == [64, 128, 256, 512, 512, 512, 512]
    assert map_widths(19, 2) == [64, 512]  # it always ends in the vector's
    assert map_widths(256, 3, kind="const") == [512] * 3
    with pytest.raises(UsageError, match="const"):
        map_widths(64, 3, kind="cons")


def test_a_map_becomes_a_vector_as_in_psp() -> None:
    net = MapToVector(5, 8, 12, "const")
    x = torch.randn(2, 5, 8, 8)
    y = x
    for layer in net.layers:
        y = F.leaky_relu(F.conv2d(y, layer.weight, layer.bias, stride=2, padding=1), 0.01)
    assert y.shape == (2, 12, 1, 1)
    expected = y.flatten(1) @ (net.linear.weight.T / 12**0.5) + net.linear.bias
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("shape", [(8, 8), (11, 11), (16, 24), (4, 4)])
def test_maps_of_other_sizes_are_averaged_in_the_end(shape: tuple[int, int]) -> None:
    net, x = MapToVector(5, 8, 12), torch.randn(2, 5, *shape)
    y = x
    for layer in net.layers:
        y = F.leaky_relu(layer(y), 0.01)
    torch.testing.assert_close(net(x), net.linear(y.sum((2, 3)) / (y.shape[2] * y.shape[3])))


def test_what_map2structure_reads() -> None:
    image, edge, classes = torch.rand(2, 3, 4, 4), torch.randn(2, 1, 4, 4), torch.randn(2, 5, 4, 4)
    y = structure_map(image, edge, classes)
    torch.testing.assert_close(y[:, :3], image)
    torch.testing.assert_close(y[:, 3:4], 1 / (1 + (-edge).exp()))
    torch.testing.assert_close(y[:, 4:], classes.exp() / classes.exp().sum(1, keepdim=True))
    assert structure_map(image).shape[1] == 3
    assert structure_map(image, None, classes).shape[1] == 8


# --- pre-modulation ---------------------------------------------------------------------------------------------------


def test_three_styles_are_coarse_and_four_middle() -> None:
    assert [level(l) for l in range(10)] == [1] * 3 + [2] * 4 + [3] * 3  # noqa: E741
    w = torch.arange(3.0).view(1, 3, 1)
    assert spread(w, 14)[0, :, 0].tolist() == [0.0] * 3 + [1.0] * 4 + [2.0] * 7


def test_one_call_is_as_good_as_a_network_for_each_style() -> None:
    torch.manual_seed(0)
    pm = PreModulation(10, 6)
    with torch.no_grad():
        pm.beta.bias.normal_()
    w, S = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    out = pm(w, S)
    for l in range(10):  # noqa: E741
        r = 0 if l < 3 else 1 if l < 7 else 2
        for b in range(2):

            def dense(layer: nn.Module, x: Tensor, l: int = l) -> Tensor:  # noqa: E741
                return x @ layer.weight[l] + layer.bias[l, 0]

            u = dense(pm.second, F.leaky_relu(dense(pm.first, w[b, r]), 0.2))
            û = (u - u.mean()) / (((u - u.mean()) ** 2).mean() + 1e-5).sqrt()
            t = F.leaky_relu(dense(pm.trunk, torch.cat([w[b, r], S[b, r]])), 0.2)
            torch.testing.assert_close(out[b, l], dense(pm.gamma, t) * û + dense(pm.beta, t))


def test_modulated_features_have_mean_0_and_variance_1_whatever_their_scale() -> None:
    u = 3.0 * torch.randn(4, 7, 32) + 5.0
    û = normalize(u)
    torch.testing.assert_close(û.mean(-1), torch.zeros(4, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(û.var(-1, correction=0), torch.ones(4, 7), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalize(7.0 * u - 2.0), û, atol=1e-4, rtol=0)


def test_modulation_begins_at_one_and_zero_and_without_it_nothing_is_left() -> None:
    pm = PreModulation(10, 48)
    assert pm.gamma.bias.eq(1).all()
    assert pm.beta.bias.eq(0).all()
    assert pm.first.weight.abs().max() <= 48**-0.5
    assert pm.trunk.weight.abs().max() <= 96**-0.5
    for parameter in (*pm.gamma.parameters(), *pm.beta.parameters()):
        nn.init.zeros_(parameter)
    assert pm(torch.randn(2, 3, 48), torch.randn(2, 3, 48)).eq(0).all()


def test_modulation_is_float32_under_autocast() -> None:
    pm, (w, S) = PreModulation(10, 16), torch.randn(2, 2, 3, 16).bfloat16()
    expected = pm(w.float(), S.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = pm(w, S)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


# --- RGB branch -------------------------------------------------------------------------------------------------------


def branch(**options: object) -> RGBBranch:
    torch.manual_seed(0)
    return RGBBranch({4: 6, 8: 5, 16: 4}, {16: 4, 8: 6}, dense=3, **options)  # type: ignore[arg-type]


def test_the_branch_begins_by_changing_nothing_and_every_parameter_learns() -> None:
    net, X, M = branch(), torch.randn(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    features = net(X, M)
    assert {n: tuple(f.shape) for n, f in features.items()} == {
        4: (2, 6, 4, 4), 8: (2, 5, 8, 8), 16: (2, 4, 16, 16),
    }  # fmt: skip
    assert all(f.eq(0).all() for f in features.values())
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.1)
    sum(f.square().sum() for f in net(X, M).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_branch_may_replace_the_constant_and_begins_as_it() -> None:
    net, constant = branch(f4="replace"), torch.randn(1, 6, 4, 4)
    net.start(constant)
    f4 = net(torch.randn(2, 3, 16, 16), torch.ones(2, 1, 16, 16))[4]
    torch.testing.assert_close(f4, constant.expand(2, -1, -1, -1), rtol=0, atol=0)
    assert net.constant.requires_grad
    net = branch()
    net.start(constant)
    assert net(torch.zeros(2, 3, 16, 16), torch.ones(2, 1, 16, 16))[4].eq(0).all()


def test_the_branch_goes_down_to_a_dense_map() -> None:
    net, X, M = branch(), torch.randn(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.5).float()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)

    def conv(layer: nn.Module, x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    def active(x: Tensor) -> Tensor:
        return torch.maximum(x, 0.2 * x)

    features = net(X, M)
    x = active(conv(net.stem, torch.cat([X, M], 1)))
    for n in ("16", "8"):
        x = active(conv(net.layers[n], x))
        torch.testing.assert_close(features[int(n)], conv(net.projections[n], x))
        x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    x = active(conv(net.narrow, x))
    x = active(x.flatten(1) @ net.dense.weight.T + net.dense.bias).view(2, 3, 4, 4)
    torch.testing.assert_close(features[4], conv(net.last, x))


@pytest.mark.parametrize("f4", ["add", "replace"])
def test_at_first_the_generator_is_what_its_training_made_it(f4: str) -> None:
    net = branch(f4=f4)
    G = StyleGenerator(16, 8, 1, {4: 6, 8: 5, 16: 4})
    net.start(G.constant)
    w = torch.randn(2, G.styles, 8)
    features = net(torch.randn(2, 3, 16, 16), torch.ones(2, 1, 16, 16))
    guided = G.synthesize(w, G.fixed_noise(), features, replace=f4 == "replace")
    assert torch.equal(guided, G.synthesize(w, G.fixed_noise()))


def test_the_branch_may_do_without_the_mask() -> None:
    X, M = torch.randn(2, 3, 16, 16), torch.randn(2, 1, 16, 16)
    for with_mask in (True, False):
        net = branch(mask_channel=with_mask)
        for parameter in net.parameters():
            nn.init.normal_(parameter, 0.0, 0.1)
        same = all(torch.equal(a, b) for a, b in zip(net(X, M).values(), net(X, 0 * M).values(), strict=True))
        assert same is not with_mask


def test_the_branch_refuses_other_sizes() -> None:
    with pytest.raises(DataError, match="16 x 16 images, got 24 x 16"):
        branch()(torch.zeros(1, 3, 24, 16), torch.zeros(1, 1, 24, 16))
    with pytest.raises(UsageError, match="replace"):
        branch(f4="replaced")
    assert branch_widths(256) == {256: 32, 128: 64, 64: 128, 32: 128, 16: 128, 8: 128}


# --- soft-update mean latent ------------------------------------------------------------------------------------------


class Sampler:
    """Codes that depend on how many means have been drawn, as a caller keys them."""

    def __init__(self, mean: MeanLatent) -> None:
        self.mean, self.calls = mean, [0]

    def __call__(self, n: int) -> Tensor:
        self.calls.append(n)
        return torch.randn(n, 8, generator=torch.Generator().manual_seed(int(self.mean.draws)))


def started(**options: object) -> tuple[MeanLatent, Sampler]:
    mean = MeanLatent(8, first=500, **options)  # type: ignore[arg-type]
    sample = Sampler(mean)
    mean.start(sample)
    return mean, sample


def test_the_means_begin_as_means_of_samples() -> None:
    mean, sample = started(n=4)
    draws = [torch.randn(n, 8, generator=torch.Generator().manual_seed(i)).mean(0) for i, n in enumerate((500, 4))]
    torch.testing.assert_close(mean.online, draws[0])
    torch.testing.assert_close(mean.target, draws[1])
    assert mean.distance.item() == pytest.approx((draws[0] - draws[1]).norm().item(), rel=1e-5)
    assert sample.calls[1:] == [500, 4]


def test_tau_0_stays_and_tau_1_arrives() -> None:
    mean, sample = started(tau=0.0)
    online, target = mean.online.clone(), mean.target.clone()
    mean.step(sample)
    assert torch.equal(mean.online, online)
    mean, sample = started(tau=1.0)
    mean.step(sample)
    assert torch.equal(mean.online, target)  # the same draws
    assert not torch.equal(mean.target, target)


def test_the_distance_shrinks_by_tau_until_a_new_target_is_drawn_after_T_steps() -> None:
    mean, sample = started(tau=0.1)
    T = math.ceil(math.log(0.05) / math.log(0.9))
    assert T == 29
    d = mean.distance.item()
    for t in range(1, T):
        mean.step(sample)
        assert (mean.online - mean.target).norm().item() == pytest.approx(d * 0.9**t, rel=1e-4)
    assert mean.draws == 2
    mean.step(sample)
    assert mean.draws == 3
    assert (mean.online - mean.target).norm().item() == pytest.approx(mean.distance.item())


def test_at_the_default_speed_a_target_lasts_2995_steps() -> None:
    mean, sample = started()
    steps = 0
    while mean.draws == 2:
        mean.step(sample)
        steps += 1
    assert steps == pytest.approx(2995, abs=5)  # rounding of float32


def test_a_checkpoint_goes_on_as_if_it_had_not_stopped() -> None:
    mean, sample = started(tau=0.2)
    for _ in range(9):
        mean.step(sample)
    other = MeanLatent(8, tau=0.2)
    other.load_state_dict(mean.state_dict())
    for _ in range(20):
        mean.step(sample)
        other.step(Sampler(other))
    assert mean.draws == 4
    assert all(torch.equal(a, b) for a, b in zip(mean.buffers(), other.buffers(), strict=True))


def test_without_the_soft_update_the_mean_stays() -> None:
    mean, sample = started(mode="static")
    soft, _ = started()
    assert torch.equal(mean.online, soft.online)
    mean.step(sample)
    assert torch.equal(mean.online, soft.online)
    mean, sample = started(mode="off")
    mean.step(sample)
    assert mean.online.eq(0).all()
    assert sample.calls == [0]


def test_wrong_means_are_refused() -> None:
    with pytest.raises(UsageError, match="static"):
        MeanLatent(mode="statc")
    with pytest.raises(UsageError, match="eps in"):
        MeanLatent(eps=0.0)
    with pytest.raises(UsageError, match="not been started"):
        MeanLatent(8).step(lambda n: torch.zeros(n, 8))


# --- discriminator ----------------------------------------------------------------------------------------------------


def test_the_discriminator_scores_patches_of_image_and_edge() -> None:
    D = PatchDiscriminator(base=4).eval()
    image, edge = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    x = torch.cat([image, edge], 1)
    for i, (layer, stride) in enumerate(zip(D.layers, (2, 2, 2, 1, 1), strict=True)):
        assert layer.bias is None
        x = F.conv2d(x if i == 0 else F.leaky_relu(x, 0.2), layer.weight, None, stride, 1)
    torch.testing.assert_close(D(image, edge), x)
    assert x.shape == (2, 1, 6, 6)
    assert PatchDiscriminator(3, 4)(image).shape == (2, 1, 6, 6)


def test_the_discriminators_weights_are_normalized_and_begin_small() -> None:
    D = PatchDiscriminator(base=16)
    original = D.layers[3].parametrizations.weight.original
    assert original.std().item() == pytest.approx(0.02, rel=0.05)
    for _ in range(50):
        D(torch.randn(1, 3, 24, 24), torch.rand(1, 1, 24, 24))
    for layer in D.layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, rel=0.05)


def test_images_too_small_to_score_are_refused() -> None:
    D = PatchDiscriminator(3, 4)
    assert D(torch.zeros(1, 3, 24, 24)).numel() == 1
    with pytest.raises(UsageError, match="24 pixels"):
        D(torch.zeros(1, 3, 23, 64))
