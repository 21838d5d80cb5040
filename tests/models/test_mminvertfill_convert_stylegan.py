"""Published StyleGAN2 generators, their layouts and computation described here by hand, against the converter."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import UsageError, WeightsError
from zoo.models.mminvertfill.convert_stylegan import KINDS, LICENCES, generator_from_upstream

Net = dict[str, Tensor]
CHANNELS = {4: 7, 8: 6, 16: 5, 32: 4}
W, DEPTH, L = 9, 3, 8


# --- the published layouts ------------------------------------------------------------------------------------------


def fir() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def nvidia() -> Net:
    net = {"mapping.w_avg": torch.randn(W), "synthesis.b4.const": torch.randn(CHANNELS[4], 4, 4)}
    for k in range(DEPTH):
        net |= {f"mapping.fc{k}.weight": 100 * torch.randn(W, W), f"mapping.fc{k}.bias": 30 * torch.randn(W)}

    def affine(name: str, channels: int) -> Net:
        return {
            f"{name}.affine.weight": torch.randn(channels, W),
            f"{name}.affine.bias": 1 + 0.3 * torch.randn(channels),
        }

    for n, c in CHANNELS.items():
        net[f"synthesis.b{n}.resample_filter"] = fir()
        for conv, inputs in (("conv0", CHANNELS.get(n // 2)), ("conv1", c)):
            if inputs is not None:
                name = f"synthesis.b{n}.{conv}"
                net |= affine(name, inputs) | {f"{name}.resample_filter": fir()}
                net |= {f"{name}.weight": torch.randn(c, inputs, 3, 3), f"{name}.bias": torch.randn(c)}
                net |= {f"{name}.noise_strength": torch.randn(()), f"{name}.noise_const": torch.randn(n, n)}
        name = f"synthesis.b{n}.torgb"
        net |= affine(name, c) | {f"{name}.weight": torch.randn(3, c, 1, 1), f"{name}.bias": torch.randn(3)}
    return net


def rosinality() -> Net:
    net = {"input.input": torch.randn(1, CHANNELS[4], 4, 4), "latent_avg": torch.randn(W)}
    for k in range(1, DEPTH + 1):
        net |= {f"style.{k}.weight": 100 * torch.randn(W, W), f"style.{k}.bias": 30 * torch.randn(W)}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        net[f"{name}.conv.weight"] = torch.randn(1, outputs, inputs, kernel, kernel)
        net[f"{name}.conv.modulation.weight"] = torch.randn(inputs, W)
        net[f"{name}.conv.modulation.bias"] = 1 + 0.3 * torch.randn(inputs)
        if kernel == 3:
            net[f"{name}.noise.weight"] = torch.randn(1)
            net[f"{name}.activate.bias"] = torch.randn(outputs)
        else:
            net[f"{name}.bias"] = torch.randn(1, 3, 1, 1)

    convolution("conv1", CHANNELS[4], CHANNELS[4], 3)
    convolution("to_rgb1", CHANNELS[4], 3, 1)
    net["noises.noise_0"] = torch.randn(1, 1, 4, 4)
    for i, (n, c) in enumerate(list(CHANNELS.items())[1:]):
        convolution(f"convs.{2 * i}", CHANNELS[n // 2], c, 3)
        net[f"convs.{2 * i}.conv.blur.kernel"] = 4 * fir()
        convolution(f"convs.{2 * i + 1}", c, c, 3)
        convolution(f"to_rgbs.{i}", c, 3, 1)
        net[f"to_rgbs.{i}.upsample.kernel"] = 4 * fir()
        net |= {f"noises.noise_{k}": torch.randn(1, 1, n, n) for k in (2 * i + 1, 2 * i + 2)}
    return net


def psp() -> Net:
    net = rosinality()
    mean = net.pop("latent_avg").repeat(L, 1)
    net = {f"decoder.{name}": tensor for name, tensor in net.items()}
    return net | {"latent_avg": mean, "encoder.input_layer.0.weight": torch.randn(4, 3, 3, 3)}


LAYOUTS: dict[str, Callable[[], Net]] = {"nvidia": nvidia, "rosinality": rosinality, "psp": psp}


@pytest.fixture(params=KINDS)
def published(request: pytest.FixtureRequest) -> tuple[str, Net]:
    torch.manual_seed(0)
    return request.param, LAYOUTS[request.param]()


# --- what the published generators compute, in their names ----------------------------------------------------------


def upfirdn(x: Tensor, up: int, pad: tuple[int, int], gain: float) -> Tensor:
    stuffed = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    stuffed[..., ::up, ::up] = x
    stuffed = F.pad(stuffed, (*pad, *pad))
    return F.conv2d(stuffed.flatten(0, 1)[:, None], gain * fir()[None, None])[:, 0].unflatten(0, x.shape[:2])


def modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool = False) -> Tensor:
    """With each sample's own weights, as groups."""
    b, _, h, _ = x.shape
    weights = weight[None] * style[:, None, :, None, None]
    if demodulate:
        weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    grouped = x.reshape(1, -1, h, h)
    if up:
        y = F.conv_transpose2d(grouped, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=b)
        return upfirdn(y.view(b, -1, 2 * h + 1, 2 * h + 1), 1, (1, 1), 4.0)
    return F.conv2d(grouped, weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=b).view(b, -1, h, h)


def linear(x: Tensor, weight: Tensor, bias: Tensor, lr: float = 1.0) -> Tensor:
    return x @ (weight * lr / math.sqrt(weight.shape[1])).T + bias * lr


def activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def normalized(z: Tensor) -> Tensor:
    return z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()


def nvidia_image(net: Net, z: Tensor) -> tuple[Tensor, Tensor]:
    w = normalized(z)
    for k in range(DEPTH):
        w = activated(linear(w, net[f"mapping.fc{k}.weight"], net[f"mapping.fc{k}.bias"], 0.01))
    x, image = net["synthesis.b4.const"].repeat(len(z), 1, 1, 1), None
    for n in CHANNELS:
        for conv in ("conv0", "conv1")[n == 4 :]:
            name = f"synthesis.b{n}.{conv}"
            style = linear(w, net[f"{name}.affine.weight"], net[f"{name}.affine.bias"])
            x = modulated(x, net[f"{name}.weight"], style, True, conv == "conv0")
            x = x + net[f"{name}.noise_strength"] * net[f"{name}.noise_const"]
            x = activated(x + net[f"{name}.bias"][:, None, None])
        name = f"synthesis.b{n}.torgb"
        style = linear(w, net[f"{name}.affine.weight"], net[f"{name}.affine.bias"]) / math.sqrt(CHANNELS[n])
        y = modulated(x, net[f"{name}.weight"], style, False) + net[f"{name}.bias"][:, None, None]
        image = y if image is None else y + upfirdn(image, 2, (2, 1), 4.0)
    assert image is not None
    return w, image


def rosinality_image(net: Net, z: Tensor) -> tuple[Tensor, Tensor]:
    w = normalized(z)
    for k in range(1, DEPTH + 1):
        w = activated(linear(w, net[f"style.{k}.weight"], net[f"style.{k}.bias"], 0.01))

    def convolution(name: str, x: Tensor, up: bool = False) -> Tensor:
        weight = net[f"{name}.conv.weight"][0]
        style = linear(w, net[f"{name}.conv.modulation.weight"], net[f"{name}.conv.modulation.bias"])
        scaled = weight / math.sqrt(weight[0].numel())
        return modulated(x, scaled, style, weight.shape[-1] == 3, up)

    def styled(name: str, x: Tensor, noise: int, up: bool = False) -> Tensor:
        y = convolution(name, x, up) + net[f"{name}.noise.weight"] * net[f"noises.noise_{noise}"]
        return activated(y + net[f"{name}.activate.bias"][:, None, None])

    x = styled("conv1", net["input.input"].repeat(len(z), 1, 1, 1), 0)
    image = convolution("to_rgb1", x) + net["to_rgb1.bias"]
    for i in range(len(CHANNELS) - 1):
        x = styled(f"convs.{2 * i}", x, 2 * i + 1, up=True)
        x = styled(f"convs.{2 * i + 1}", x, 2 * i + 2)
        image = upfirdn(image, 2, (2, 1), 4.0) + convolution(f"to_rgbs.{i}", x) + net[f"to_rgbs.{i}.bias"]
    return w, image


def published_image(kind: str, net: Net, z: Tensor) -> tuple[Tensor, Tensor]:
    if kind == "nvidia":
        return nvidia_image(net, z)
    return rosinality_image({name.removeprefix("decoder."): tensor for name, tensor in net.items()}, z)


# --- the converter --------------------------------------------------------------------------------------------------


def test_the_converted_generator_makes_the_same_images(published: tuple[str, Net], tmp_path: Path) -> None:
    kind, net = published
    path = tmp_path / "published.safetensors"
    save_file(net, path)
    generator, mean, licence = generator_from_upstream(path, kind)
    assert (generator.size, generator.w, generator.styles, generator.channels) == (32, W, L, CHANNELS)
    assert not generator.training
    z = torch.randn(3, W)
    w, image = published_image(kind, net, z)
    torch.testing.assert_close(generator.map(z), w, atol=1e-4, rtol=1e-4)
    found = generator(z, generator.fixed_noise())
    assert image.std() > 1
    assert (found - image).abs().max() < 1e-4 * image.abs().max()
    theirs = net["mapping.w_avg" if kind == "nvidia" else "latent_avg"]
    torch.testing.assert_close(mean, theirs[0] if kind == "psp" else theirs)
    assert licence == LICENCES[kind]
    assert "non-commercial" in licence


def test_every_tensor_matters(published: tuple[str, Net]) -> None:
    """A change of any of them changes what is converted, or is refused: none is passed over."""
    kind, net = published
    before = generator_from_upstream(net, kind)
    for name in net:
        if name.startswith("encoder."):
            continue
        changed = dict(net)
        changed[name] = net[name] + torch.randn(net[name].shape[-1:]) if net[name].ndim else net[name] + 1
        try:
            after = generator_from_upstream(changed, kind)
        except WeightsError:
            assert name.endswith(("kernel", "filter"))
            continue
        old, new = before.generator.state_dict(), after.generator.state_dict()
        changes = sum(not torch.equal(old[n], new[n]) for n in old)
        assert before.mean is not None
        assert after.mean is not None
        assert changes + (not torch.equal(before.mean, after.mean)) == 1, name


def test_each_missing_tensor_is_named(published: tuple[str, Net]) -> None:
    kind, net = published
    for name in net:
        rest = {n: t for n, t in net.items() if n != name}
        if name.startswith("encoder.") or name.endswith(("kernel", "filter")):
            generator_from_upstream(rest, kind)
        elif name in ("mapping.w_avg", "latent_avg"):
            assert generator_from_upstream(rest, kind).mean is None
        else:
            with pytest.raises(WeightsError, match=r"missing|no place|no weights of the layout"):
                generator_from_upstream(rest, kind)


def test_what_does_not_fit_is_refused(published: tuple[str, Net]) -> None:
    kind, net = published
    bias = "synthesis.b8.conv0.bias" if kind == "nvidia" else "convs.0.activate.bias"
    prefix = "decoder." if kind == "psp" else ""
    bias = prefix + bias
    for change, said in (
        ({bias: net[bias][:-1]}, "is .5,., not .6,."),
        ({bias: torch.full_like(net[bias], math.nan)}, "not finite"),
        ({f"{prefix}another": net[bias]}, "another has no place"),
        ({f"{prefix}extra.conv.blur.kernel": torch.ones(4, 4)}, "another filter"),
        ({"mapping.w_avg" if kind == "nvidia" else "latent_avg": torch.ones(W + 1)}, f"not .{W},."),
    ):
        with pytest.raises(WeightsError, match=said):
            generator_from_upstream(net | change, kind)


def test_the_wrong_layout_is_refused(published: tuple[str, Net]) -> None:
    kind, net = published
    for other in KINDS:
        if other != kind:
            with pytest.raises(WeightsError, match=r"layout|does not begin|no place"):
                generator_from_upstream(net, other)
    with pytest.raises(UsageError, match="unknown layout 'nvidea'"):
        generator_from_upstream(net, "nvidea")


def test_rosinality_tensors_may_keep_the_name_of_their_network() -> None:
    net = rosinality()
    mean = net.pop("latent_avg")
    named = {f"g_ema.{name}": tensor for name, tensor in net.items()} | {"latent_avg": mean}
    plain, kept = (generator_from_upstream(n, "rosinality") for n in (net | {"latent_avg": mean}, named))
    states = plain.generator.state_dict(), kept.generator.state_dict()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    with pytest.raises(WeightsError, match="does not begin with g_ema"):
        generator_from_upstream(named | {"g.conv1.bias": mean}, "rosinality")


def test_a_mean_that_differs_by_style_is_no_mean() -> None:
    net = psp()
    net["latent_avg"][2] += 1
    with pytest.raises(WeightsError, match="in every row"):
        generator_from_upstream(net, "psp")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    torch.save(rosinality(), path)
    with pytest.raises(WeightsError, match="safetensors alone"):
        generator_from_upstream(path, "rosinality")
    with pytest.raises(WeightsError, match="no such weights file"):
        generator_from_upstream(tmp_path / "absent.safetensors", "rosinality")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no header")
    with pytest.raises(WeightsError, match="cannot be read"):
        generator_from_upstream(damaged, "rosinality")
