"""Published MMT weights, their layout and the network's computation written here by hand, against the converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import WeightsError
from zoo.models.mminvertfill.convert_mmt import LICENCE, OPTIONS, load_mmt, read_mmt
from zoo.models.mminvertfill.encoder import Encoder, EncoderOptions

K, BLOCKS, SIZE = 3, 2, 32
WIDTHS, AUXILIARY = (4, 6, 8), (5, 5, 3)
A, B, C = WIDTHS
Net = dict[str, Tensor]


# --- the published layout -------------------------------------------------------------------------------------------


class Writer:
    """Fills a state dict with numbers that no two layers share."""

    def __init__(self) -> None:
        self.net: Net = {}
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def conv(
        self, name: str, out: int, channels: int, kernel: int, bias: bool = True, transposed: bool = False
    ) -> None:
        shape = (channels, out, kernel, kernel) if transposed else (out, channels, kernel, kernel)
        self.net[f"{name}.weight"] = self.draw(*shape) / (channels * kernel**2) ** 0.5
        if bias:
            self.net[f"{name}.bias"] = 0.3 * self.draw(out)

    def norm(self, name: str, channels: int) -> None:
        self.net |= {f"{name}.{role}": 1 + 0.3 * self.draw(channels) for role in ("weight", "bias", "running_mean")}
        self.net[f"{name}.running_var"] = 1 + self.draw(channels).square()
        self.net[f"{name}.num_batches_tracked"] = torch.tensor(7)


def published(heads: bool = False) -> Net:
    """What MMT's file holds under `generator`, in the order of its parts."""
    w, m = Writer(), "MMTModule."
    for name in ("conv1", "conv2", "conv21", "conv22"):
        w.conv(f"{name}.conv", A, 3, 7, bias=False)
        w.conv(f"{name}.gate", A, 3, 7, bias=False)
    for name in ("bn1", "bn20", "bn2", "bn3"):
        w.norm(name, A)
    for k, (out, channels) in enumerate(((B, A), (C, B)), start=1):
        w.conv(f"{m}enc_{k}.0", out, channels, 3)
        w.norm(f"{m}enc_{k}.1", out)
    w.conv(f"{m}enc_3.conv", C, C, 3, bias=False)
    w.conv(f"{m}enc_3.gate", C, C, 3, bias=False)
    w.norm(f"{m}enc_3.post.0", C)
    for i in range(1, BLOCKS + 1):
        block = f"{m}bottleneck_{i}"
        for r in range(4):
            w.conv(f"{block}.block0{r}.1", C, C, 3)
        w.conv(f"{block}.fuse.0", C, 3 * C, 3)
        w.net[f"{block}.W"] = w.draw(C, 4)
        w.conv(f"{block}.gate.0", C, C, 3)
        w.norm(f"{block}.post.0", C)
    stage(w, 3, C, AUXILIARY[0], (2 * C, 2 * C), heads)
    stage(w, 2, B, AUXILIARY[1], (2 * C, AUXILIARY[0] + 2 * C), heads)
    stage(w, 1, A, AUXILIARY[2], (2 * B, AUXILIARY[1] + 2 * B), heads)
    for name in ("Tconv", "tail1", "out.0", "edge_projector.out", "seg_projector.gatedConv.gate", "tail2.conv1"):
        w.conv(name, 3, A, 3)
    w.norm("tail2.bn1", A)
    return w.net


def stage(w: Writer, k: int, x: int, aux: int, read: tuple[int, int], heads: bool) -> None:
    kernel, up, m = (3, False, "MMTModule.") if k == 3 else (4, True, "MMTModule.")
    w.conv(f"{m}dec_{k}.0", x, read[0], kernel, transposed=up)
    w.norm(f"{m}dec_{k}.1", x)
    for name, out in (("edge", 1), ("seg", K)):
        w.conv(f"{m}{name}_dec_{k}.conv_block.0", aux, read[1], kernel, transposed=up)
        if heads:
            w.conv(f"{m}{name}_dec_{k}.auxiliary_head", out, aux, 3)
    for name in ("query", "key", "value"):
        w.conv(f"{m}att_{k}.{name}_embedding", x, x, 1)
    for n in (1, 2):
        for name, channels in (("embed", 2 * aux), ("scale", x), ("bias", 2 * x)):
            w.conv(f"{m}att_{k}.denorm_{n}.{name}.0", x, channels, 1)
    for name in ("scale.0", "bias.0", "bias.2"):
        w.conv(f"{m}att_{k}.{name}", x, x, 3)


# --- what that network computes, from e2's features on -------------------------------------------------------------


class Published:
    """MMT's encoder and decoder, evaluated by the published names alone."""

    def __init__(self, net: Net) -> None:
        self.net = {name.removeprefix("MMTModule."): tensor for name, tensor in net.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None, dilation: int = 1) -> Tensor:
        weight = self.net[f"{name}.weight"]
        padding = weight.shape[-1] // 2 * dilation if padding is None else padding
        return F.conv2d(x, weight, self.net.get(f"{name}.bias"), stride, padding, dilation)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self.net[f"{name}.{role}"] for role in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def up(self, name: str, x: Tensor, first: bool) -> Tensor:
        if first:
            return self.conv(name, x)
        return F.conv_transpose2d(x, self.net[f"{name}.weight"], self.net[f"{name}.bias"], 2, 1)

    def block(self, name: str, f: Tensor, g_prev: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.conv(f"{name}.gate.0", f)
        u = self.conv(f"{name}.fuse.0", torch.cat([f, raw, g_prev], 1)).mean((2, 3))
        w = (u @ self.net[f"{name}.W"]).tanh().softmax(1)[..., None, None, None]
        mixed = 0
        for r in range(4):
            mode = "reflect" if r + 1 < min(f.shape[-2:]) else "replicate"
            mirrored = F.pad(f, [r + 1] * 4, mode=mode)
            mixed = mixed + w[:, r] * self.conv(f"{name}.block0{r}.1", mirrored, padding=0, dilation=r + 1).relu()
        g = raw.sigmoid()
        return F.leaky_relu(self.norm(f"{name}.post.0", f * (1 - g) + g * mixed), 0.2), g

    def denorm(self, name: str, x: Tensor, a: Tensor) -> Tensor:
        u = self.conv(f"{name}.embed.0", a)
        normal = F.layer_norm(x, x.shape[1:])
        return self.conv(f"{name}.scale.0", u) * normal + self.conv(f"{name}.bias.0", torch.cat([x, u], 1))

    def attention(self, name: str, x: Tensor, a: Tensor) -> Tensor:
        q, k, v = (
            self.denorm(f"{name}.denorm_1", self.conv(f"{name}.{part}_embedding", x), a)
            for part in ("query", "key", "value")
        )
        heads = []
        for p, head in ((2, 0), (4, 1)):
            tq, tk, tv = (F.unfold(t.chunk(2, 1)[head], p, stride=p).mT for t in (q, k, v))
            y = (tq @ tk.mT / tq.shape[-1] ** 0.5).softmax(-1) @ tv
            heads.append(F.fold(y.mT, x.shape[-2:], p, stride=p))
        y = x + torch.cat(heads, 1)
        z = self.denorm(f"{name}.denorm_2", y, a)
        hidden = F.gelu(self.conv(f"{name}.bias.0", z, dilation=2))
        return y * self.conv(f"{name}.scale.0", z).tanh() + self.conv(f"{name}.bias.2", hidden)

    def __call__(self, x: Tensor) -> list[Tensor]:
        h1 = self.norm("enc_1.1", self.conv("enc_1.0", x, 2)).relu()
        h2 = self.norm("enc_2.1", self.conv("enc_2.0", h1, 2)).relu()
        g = self.conv("enc_3.gate", h2).sigmoid()
        h3 = f = F.leaky_relu(self.norm("enc_3.post.0", self.conv("enc_3.conv", h2) * g), 0.2)
        for i in range(1, BLOCKS + 1):
            f, g = self.block(f"bottleneck_{i}", f, g)
        x = e = s = f
        features = []
        for k, h in ((3, h3), (2, h2), (1, h1)):
            read = [h] if k == 3 else [x, h]
            e, s = (
                F.leaky_relu(self.up(f"{name}_dec_{k}.conv_block.0", torch.cat([m, *read], 1), k == 3), 0.2)
                for name, m in (("edge", e), ("seg", s))
            )
            x = F.leaky_relu(self.norm(f"dec_{k}.1", self.up(f"dec_{k}.0", torch.cat([x, h], 1), k == 3)), 0.2)
            x = self.attention(f"att_{k}", x, torch.cat([e, s], 1))
            features.append(x)
        return features


# --- tests ----------------------------------------------------------------------------------------------------------


def make(**changes: Any) -> Encoder:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"segmentation": K, "widths": WIDTHS, "auxiliary": AUXILIARY, "n_blocks": BLOCKS}
    return Encoder(EncoderOptions(**(OPTIONS | sizes | changes))).eval()


def compare(encoder: Encoder, net: Net) -> None:
    torch.manual_seed(2)
    x, M = torch.randn(2, encoder.options.channels_in, SIZE, SIZE), torch.zeros(2, 1, SIZE, SIZE)
    with torch.no_grad():
        ours = encoder(x, M).features
        theirs = Published(net)(encoder.backbone.e2(encoder.backbone.e1(x)))
    for mine, published_one in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, published_one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_encoder_computes_what_the_published_network_does(prefix: str, tmp_path: Path) -> None:
    net, encoder = published(), make()
    path = tmp_path / "mmt.safetensors"
    save_file({prefix + name: tensor for name, tensor in net.items()}, path)
    load_mmt(encoder, path)
    compare(encoder, net)


def test_what_stays_new_is_named_and_untouched() -> None:
    encoder, before = make(gma_gate="attention"), make(gma_gate="attention").state_dict()
    new = load_mmt(encoder, published())
    parts = {".".join(name.split(".")[:2]) for name in new}
    assert parts == {
        "backbone.e1",
        "backbone.e2",
        "backbone.attention",
        "decoder.fusions",
        "decoder.auxiliary",
        "decoder.heads",
    }
    assert all(".attention.gate." in name for name in new if "fusions" in name)
    assert all(".heads." in name for name in new if "auxiliary" in name)
    after = encoder.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} <= set(new)
    assert all(torch.equal(after[name], before[name]) for name in new)


def test_heads_are_read_where_the_file_has_them() -> None:
    net, encoder = published(heads=True), make()
    new = load_mmt(encoder, net)
    assert not [name for name in new if "auxiliary" in name]
    head = encoder.decoder.auxiliary["segmentation"].heads[0]
    assert torch.equal(head.weight, net["MMTModule.seg_dec_3.auxiliary_head.weight"])


def test_biases_that_only_one_side_has_change_nothing() -> None:
    """The file's convolutions before a norm may have none; others may lack theirs."""
    net = published()
    for name in ("MMTModule.enc_1.0.bias", "MMTModule.dec_3.0.bias", "MMTModule.att_2.query_embedding.bias"):
        del net[name]
    encoder = make()
    load_mmt(encoder, net)
    compare(encoder, net)
    assert not encoder.decoder.fusions[1].gma.attention.query.bias.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda net: net.pop("MMTModule.att_1.denorm_2.bias.0.weight"), "1 tensors of MMT are missing: att_1.denorm_2"),
        (lambda net: net.pop("MMTModule.bottleneck_2.W"), "missing: bottleneck_2.W"),
        (lambda net: net.pop("MMTModule.dec_3.1.running_mean"), "missing: dec_3.1.running_mean"),
        (
            lambda net: net.update({"MMTModule.more.weight": torch.ones(1)}),
            "1 tensors of MMT have no place: more.weight",
        ),
        (lambda net: net.update({"MMTModule.enc_3.conv.bias": torch.ones(C)}), "have no place: enc_3.conv.bias"),
        (lambda net: net.update({"MMTModule.bottleneck_1.W": torch.ones(C, 3)}), r"bottleneck.0.W is \(8, 3\), not"),
        (lambda net: net["MMTModule.dec_2.0.weight"].fill_(torch.nan), "decoder.layers.1.weight is not finite"),
    ],
)
def test_every_tensor_must_fit(change: Any, said: str) -> None:
    net, encoder = published(), make()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    change(net)
    with pytest.raises(WeightsError, match=said):
        load_mmt(encoder, net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"acb_variant": "paper"}, "other acb_variant"),
        ({"ff_variant": "gated", "dec_up": "nearest_conv"}, "other ff_variant, dec_up"),
        ({"norm": "gn"}, "other norm"),
        ({"fusion": "concat"}, "other fusion"),
        ({"edge": False}, "have no place: .*edge_dec"),
        ({"segmentation": 0}, "have no place: .*seg_dec"),
    ],
)
def test_the_encoder_must_be_of_mmts_kind(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        load_mmt(make(**changes), published())


def test_only_safetensors_are_opened(tmp_path: Path) -> None:
    pickle, damaged = tmp_path / "mmt.pth", tmp_path / "mmt.safetensors"
    torch.save(published(), pickle)
    damaged.write_bytes(b"nothing")
    for path, said in ((pickle, "safetensors only"), (damaged, "cannot be read"), (tmp_path / "no", "no such")):
        with pytest.raises(WeightsError, match=said):
            read_mmt(path)
    assert "Apache-2.0" in LICENCE


def test_sync_batch_norm_reads_them_too() -> None:
    net, encoder = published(), make(norm="syncbn")
    load_mmt(encoder, net)
    compare(encoder, net)
