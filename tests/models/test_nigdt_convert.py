"""Published TDANet weights, their layout described here by hand, against the converter."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.batch import Batch
from zoo.errors import UsageError, WeightsError
from zoo.models.nigdt.convert import BLOCKS, KINDS, OPTIONS, convert_upstream, find, module_from_upstream
from zoo.models.nigdt.module import NIGDT
from zoo.models.nigdt.projection import join
from zoo.weights import load_weights, read_header

WORDS = ["bird", "red", "a"]
E, H = 7, 3  # widths of the embeddings, and of the states of a direction
STAGES = [4, 6, 8, 8, 10]
READ = STAGES[-1] + 2 * 2 * H  # the channels of h: v_h, t_sent, t_e
Z, R = 5, 7  # channels of z and of r
UP = [9, 8, 6, 5, 4]
CRITIC = [4, 5, 8, 8, 6, 6]
Net = dict[str, Tensor]


# --- the published layout -----------------------------------------------------------------------------------------


def convolution(net: Net, name: str, out: int, channels: int, kernel: int, transposed: bool = False) -> None:
    """A weight under their spectral norm: rows are dimension 0, in transposed convolutions too."""
    generator = torch.Generator().manual_seed(len(net))
    shape = (channels, out, kernel, kernel) if transposed else (out, channels, kernel, kernel)
    weight = torch.randn(shape, generator=generator)
    matrix = weight.flatten(1)
    u = F.normalize(torch.randn(len(matrix), generator=generator), dim=0)
    for _ in range(3):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    net |= {f"{name}.module.weight_bar": weight, f"{name}.module.weight_u": u, f"{name}.module.weight_v": v}
    net[f"{name}.module.bias"] = torch.randn(out, generator=generator)


def block(net: Net, name: str, channels: int, out: int, hidden: int | None = None, up: bool = False) -> None:
    convolution(net, f"{name}.conv1", hidden or out, channels, 3)
    convolution(net, f"{name}.conv2", out, hidden or out, 3, up)
    convolution(net, f"{name}.bypass", out, channels, 3 if up else 1, up)
    if up:
        for place, width in ((0, channels), (3, out)):
            net |= {
                f"{name}.model.{place}.weight": torch.rand(width) + 0.5,
                f"{name}.model.{place}.bias": torch.rand(width),
            }
    for there, again in (("conv1", "model.1"), ("conv2", "model.4"), ("bypass", "shortcut.0")):  # stored twice
        net |= {n.replace(there, again): t for n, t in list(net.items()) if n.startswith(f"{name}.{there}")}


def attention(net: Net, name: str, channels: int) -> None:
    net[f"{name}.gamma"], net[f"{name}.alpha"] = torch.tensor([0.7]), torch.tensor([0.4])
    net[f"{name}.query_conv.weight"] = 0.3 * torch.randn(channels // 4, channels, 1, 1)
    net[f"{name}.query_conv.bias"] = torch.randn(channels // 4)
    block(net, f"{name}.model", 2 * channels, channels)


def published_encoder() -> Net:
    net: Net = {}
    block(net, "block0", 3, STAGES[0])
    for k in range(4):
        block(net, f"encoder{k}", STAGES[k], STAGES[k + 1], hidden=STAGES[k])
    net["word_attention.conv_image.weight"] = torch.randn(2 * H, STAGES[-1], 1, 1)
    for k in range(6):
        block(net, f"infer_prior{k}", STAGES[-1], STAGES[-1])
    block(net, "prior", READ, 2 * Z)
    block(net, "posterior", READ, 2 * Z)
    return net


def published_generator() -> Net:
    net: Net = {}
    block(net, "generator", Z, R)
    block(net, "f_transformer", READ, R)
    for k, channels in enumerate([R, UP[0], UP[1] + 3, UP[2] + 3, UP[3] + 3]):
        block(net, f"decoder{k}", channels, UP[k], up=True)
    for k in range(1, 5):
        convolution(net, f"out{k}.conv1", 3, UP[k], 3)
        net |= {n.replace("conv1", "model.2"): t for n, t in list(net.items()) if n.startswith(f"out{k}.")}
    attention(net, "attn1", UP[1])
    return net


def published_critic() -> Net:
    net: Net = {}
    block(net, "block0", 3, CRITIC[0])
    for k in range(4):
        block(net, f"encoder{k}", CRITIC[k], CRITIC[k + 1], hidden=CRITIC[k])
    attention(net, "attn2", CRITIC[2])
    block(net, "block1", CRITIC[4], CRITIC[5])
    convolution(net, "conv", 1, CRITIC[5], 3)
    return net


def published_text() -> Net:
    net = {"encoder.weight": torch.randn(len(WORDS) + 1, E)}
    for direction in ("", "_reverse"):
        net |= {
            f"rnn.weight_ih_l0{direction}": torch.randn(4 * H, E),
            f"rnn.weight_hh_l0{direction}": torch.randn(4 * H, H),
        }
        net |= {f"rnn.bias_{part}_l0{direction}": torch.randn(4 * H) for part in ("ih", "hh")}
    return net


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    torch.manual_seed(0)
    nets: dict[str, Any] = {"net_E": published_encoder(), "net_G": published_generator(), "text": published_text()}
    nets |= {"net_D": published_critic(), "words": WORDS}
    nets["net_D_rec"] = {name: tensor + 0.01 for name, tensor in nets["net_D"].items()}
    return nets


@pytest.fixture(scope="module")
def module(published: dict[str, Any]) -> NIGDT:
    return module_from_upstream(published, "tdanet")


@pytest.fixture
def content(published: dict[str, Any]) -> dict[str, Any]:
    """What a test may damage."""
    return {name: dict(part) if isinstance(part, dict) else part for name, part in published.items()}


def write(content: dict[str, Any], folder: Path, prefix: str = "latest") -> Path:
    folder.mkdir(exist_ok=True)
    for net in BLOCKS:
        if net in content:
            parallel = {f"module.{name}": tensor for name, tensor in content[net].items()}
            torch.save(parallel, folder / f"{prefix}_{net}.pth")
    torch.save(content["text"], folder / "text_encoder200.pth")
    by_index = dict(enumerate(["<end>", *content["words"]]))
    captions = [[[1]], [[2]], by_index, {word: index for index, word in by_index.items()}]
    (folder / "captions.pickle").write_bytes(pickle.dumps(captions, protocol=2))
    return folder


def batch(size: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, 10:45, 20:50], mask[1, :, 30:60, 3:40] = 1, 1
    image = torch.rand(2, 3, size, size, generator=generator)
    return {"id": ["x/1", "x/2"], "image": image, "mask": mask, "caption": ["a red bird", "bird"]}


# --- what the published networks compute ----------------------------------------------------------------------------


def normalized(net: Net, name: str) -> Tensor:
    weight = net[f"{name}.module.weight_bar"]
    return weight / (net[f"{name}.module.weight_u"] @ weight.flatten(1) @ net[f"{name}.module.weight_v"])


def conv(net: Net, name: str, x: Tensor, padding: int = 1) -> Tensor:
    return F.conv2d(x, normalized(net, name), net[f"{name}.module.bias"], padding=padding)


def enlarge(net: Net, name: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, normalized(net, name), net[f"{name}.module.bias"], 2, 1, 1)


def same(net: Net, name: str, x: Tensor, slope: float = 0.1) -> Tensor:
    hidden = conv(net, f"{name}.conv1", F.leaky_relu(x, slope))
    return conv(net, f"{name}.conv2", F.leaky_relu(hidden, slope)) + conv(net, f"{name}.bypass", x, 0)


def first(net: Net, x: Tensor) -> Tensor:
    main = conv(net, "block0.conv2", F.leaky_relu(conv(net, "block0.conv1", x), 0.1))
    return F.avg_pool2d(main, 2) + conv(net, "block0.bypass", F.avg_pool2d(x, 2), 0)


def up(net: Net, name: str, x: Tensor) -> Tensor:
    def normalize(y: Tensor, place: int) -> Tensor:
        scale, shift = net[f"{name}.model.{place}.weight"], net[f"{name}.model.{place}.bias"]
        return F.leaky_relu(F.instance_norm(y, weight=scale, bias=shift), 0.1)

    main = enlarge(net, f"{name}.conv2", normalize(conv(net, f"{name}.conv1", normalize(x, 0)), 3))
    return main + enlarge(net, f"{name}.bypass", x)


def weights_of_attention(net: Net, name: str, x: Tensor) -> Tensor:
    q = F.conv2d(x, net[f"{name}.query_conv.weight"], net[f"{name}.query_conv.bias"]).flatten(2)
    return (q.transpose(1, 2) @ q).softmax(-1)


def generate(net: Net, h: Tensor, z: Tensor, v_l: Tensor, hole: Tensor) -> list[Tensor]:
    x = same(net, "f_transformer", h) + same(net, "generator", z)
    x = up(net, "decoder1", up(net, "decoder0", x))
    A = weights_of_attention(net, "attn1", x).transpose(1, 2)
    short = net["attn1.gamma"] * (x.flatten(2) @ A).view_as(x) + x
    long = net["attn1.alpha"] * hole * (v_l.flatten(2) @ A).view_as(v_l) + (1 - hole) * v_l
    x = same(net, "attn1.model", torch.cat([short, long], 1), 0.01)
    images: list[Tensor] = []
    for k in range(1, 5):
        x = up(net, f"decoder{k}", torch.cat([x, images[-1]], 1)) if images else x
        images.append(torch.tanh(conv(net, f"out{k}.conv1", F.pad(F.leaky_relu(x, 0.1), (1, 1, 1, 1), "reflect"), 0)))
    return images


def encode(net: Net, x: Tensor) -> list[Tensor]:
    features = [first(net, x)]
    for k in range(4):
        features.append(F.avg_pool2d(same(net, f"encoder{k}", features[-1]), 2))
    return features


@torch.no_grad()
def test_the_networks_compute_what_theirs_do(published: dict[str, Any], module: NIGDT) -> None:
    """With their order of h, which is another one, and their rows of transposed convolutions."""
    content = published
    image, mask = batch()["image"] * 2 - 1, batch()["mask"]
    theirs = encode(content["net_E"], image)
    v_l, v_h = module.encoder(image)
    torch.testing.assert_close(v_l, theirs[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(v_h, theirs[4], atol=1e-5, rtol=1e-4)
    t_e, t_sent, z = torch.randn(2, 2 * H, 2, 2), torch.randn(2, 2 * H), torch.randn(2, Z, 2, 2)
    ours, sentence = join(v_h, t_e, t_sent), t_sent[:, :, None, None].expand_as(t_e)
    inferred = v_h
    for k in range(6):
        inferred = same(content["net_E"], f"infer_prior{k}", inferred)
    for name, seen in (("prior", inferred), ("posterior", v_h)):
        raw = same(content["net_E"], name, torch.cat([seen, sentence, t_e], 1))
        found = getattr(module, name)(ours)
        torch.testing.assert_close(found.mean, raw[:, :Z], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.deviation, F.softplus(raw[:, Z:]) + 1e-5, atol=1e-5, rtol=1e-4)
    hole = F.max_pool2d(mask, 8)
    images = generate(content["net_G"], torch.cat([v_h, sentence, t_e], 1), z, v_l, hole)
    for given, wanted in zip(module.generator(ours, z, v_l, mask), images, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_discriminators_compute_what_theirs_do(published: dict[str, Any], module: NIGDT) -> None:
    image = torch.randn(2, 3, 128, 128)
    for ours, name in (("d1", "net_D_rec"), ("d2", "net_D")):
        net = published[name]
        x = first(net, image)
        for k in range(4):
            if k == 2:
                A = weights_of_attention(net, "attn2", x).transpose(1, 2)
                x = net["attn2.gamma"] * (x.flatten(2) @ A).view_as(x) + x
            x = F.avg_pool2d(same(net, f"encoder{k}", x), 2)
        wanted = conv(net, "conv", F.leaky_relu(same(net, "block1", x), 0.1), 0)
        torch.testing.assert_close(module.critics[ours](image), wanted, atol=1e-4, rtol=1e-3)


def test_the_text_encoder_and_the_attention_are_theirs(published: dict[str, Any], module: NIGDT) -> None:
    assert torch.equal(module.text.embedding.weight[4:], published["text"]["encoder.weight"][1:])
    assert torch.equal(module.text.rnn.weight_hh_l0, published["text"]["rnn.weight_hh_l0"])
    assert module.attention.query is not None
    assert torch.equal(module.attention.query.weight, published["net_E"]["word_attention.conv_image.weight"])


def test_the_shapes_tell_the_sizes_and_the_layout_the_options(published: dict[str, Any], module: NIGDT) -> None:
    config = dict(module.hparams)
    sizes = {"encoder": STAGES, "embedding": E, "words": 2 * H, "latent": Z, "width": R, "up": UP, "critic": CRITIC}
    assert {name: config[name] for name in sizes} == sizes
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    assert config["vocabulary"] == WORDS
    changed = module_from_upstream(published, "tdanet", cell_rule="majority")
    assert changed.hparams["cell_rule"] == "majority"


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_converted_file_is_a_file_of_this_project(content: dict[str, Any], module: NIGDT, tmp_path: Path) -> None:
    folder = write(content, tmp_path / "tdanet")
    path = convert_upstream(folder, "tdanet", tmp_path / "out.safetensors")
    header = read_header(path)
    assert header.preset == header.provenance["converted_from"] == "tdanet"
    assert "research" in header.licence
    assert sorted(header.provenance["files"]) == sorted(p.name for p in folder.iterdir())
    assert {len(digest) for digest in header.provenance["files"].values()} == {64}
    assert header.vocabulary == WORDS
    loaded = load_weights(path)
    assert isinstance(loaded, NIGDT)
    assert torch.equal(loaded.complete(batch()).raw, module.complete(batch()).raw)
    assert loaded.complete(batch()).raw.isfinite().all()


def test_one_of_several_iterations_can_be_named(content: dict[str, Any], tmp_path: Path) -> None:
    folder = write(content, tmp_path / "tdanet", prefix="100")
    write(content, folder, prefix="latest")
    with pytest.raises(WeightsError, match="several"):
        find(folder)
    named = find(folder / "latest_net_E.pth")
    assert [path.name for path in named.values()] == [
        "latest_net_E.pth", "latest_net_G.pth", "latest_net_D_rec.pth", "latest_net_D.pth", "text_encoder200.pth",
        "captions.pickle",
    ]  # fmt: skip


def test_discriminators_may_be_absent(content: dict[str, Any], module: NIGDT, tmp_path: Path) -> None:
    del content["net_D"], content["net_D_rec"]
    without = module_from_upstream(write(content, tmp_path / "tdanet"), "tdanet", critic=CRITIC)
    assert torch.equal(without.complete(batch()).raw, module.complete(batch()).raw)
    assert set(without.critics) == {"d1", "d2"}


@pytest.mark.parametrize("name", ["latest_net_E.pth", "latest_net_G.pth", "text_encoder200.pth", "captions.pickle"])
def test_a_file_that_is_missing_is_named(content: dict[str, Any], tmp_path: Path, name: str) -> None:
    folder = write(content, tmp_path / "tdanet")
    (folder / name).unlink()
    pattern = {"text_encoder200.pth": "text_encoder", "captions.pickle": "captions"}.get(name, name[-9:-4])
    with pytest.raises(WeightsError, match=rf"there is no .*{pattern}"):
        convert_upstream(folder, "tdanet", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def lose(net: Net) -> str:
    del net["block0.conv1.module.bias" if "block0.conv1.module.bias" in net else "decoder2.model.3.bias"]
    return r"1 tensors of net_\w+ are missing: (block0\.conv1\.module\.bias|decoder2\.model\.3\.bias)"


def add(net: Net) -> str:
    net["another.weight"] = torch.zeros(1)
    return r"1 tensors of net_\w+ have no place: another\.weight"


def cut(net: Net) -> str:
    name = next(name for name in net if name.endswith("conv2.module.bias"))
    net[name] = net[name][:-1]
    return r"bias is \(\d+,\), not \(\d+,\)"


def spoil(net: Net) -> str:
    name = next(name for name in net if name.endswith("conv2.module.bias"))
    net[name] = net[name] / 0.0
    return "not finite"


@pytest.mark.parametrize(
    ("damage", "net"),
    [*((damage, net) for damage in (lose, add) for net in BLOCKS), (cut, "net_G"), (cut, "net_D"), (spoil, "net_E")],
)
def test_each_tensor_is_used_exactly_once(content: dict[str, Any], net: str, damage: Callable[[Net], str]) -> None:
    said = damage(content[net])
    with pytest.raises(WeightsError, match=said):
        module_from_upstream(content, "tdanet")


def test_what_discriminators_never_use_is_refused_elsewhere(content: dict[str, Any]) -> None:
    content["net_G"]["attn2.alpha"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"no place: attn2\.alpha"):
        module_from_upstream(content, "tdanet")


def test_texts_and_layouts_that_do_not_fit_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="unknown layout 'picnet'"):
        module_from_upstream(content, "picnet")
    assert KINDS == ("tdanet",)
    with pytest.raises(WeightsError, match="4 rows"):
        module_from_upstream({**content, "words": [*WORDS, "wing"]}, "tdanet")
    text = {"encoder.weight": torch.zeros(4, E)}
    for direction in ("", "_reverse"):
        text |= {f"rnn.weight_ih_l0{direction}": torch.zeros(16, E), f"rnn.weight_hh_l0{direction}": torch.zeros(16, 4)}
        text |= {f"rnn.bias_{part}_l0{direction}": torch.zeros(16) for part in ("ih", "hh")}
    with pytest.raises(WeightsError, match="read 22 channels"):
        module_from_upstream({**content, "text": text}, "tdanet")
    with pytest.raises(WeightsError, match="lack net_G"):
        module_from_upstream({name: part for name, part in content.items() if name != "net_G"}, "tdanet")


class Evil:
    """Runs code when it is unpickled the ordinary way."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit",))


def test_no_code_in_a_file_is_run(content: dict[str, Any], tmp_path: Path) -> None:
    folder = write(content, tmp_path / "tdanet")
    torch.save({"module.block0.conv1.module.bias": Evil()}, folder / "latest_net_E.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        module_from_upstream(folder, "tdanet")
