"""Published layouts of DeepFill-v2, described here once more and by hand, against the renamer."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.batch import Batch
from zoo.errors import UsageError, WeightsError
from zoo.models.deepfill import DeepFill
from zoo.models.deepfill.convert import LAYOUTS, convert_upstream, module_from_upstream
from zoo.models.deepfill.discriminator import PatchDiscriminator
from zoo.weights import load_weights, read_header

W = 4  # channels after gating; 24 in the published files

# name, kernel, channels in, channels out (before gating), in the TensorFlow layout
TF_TABLE = [
    ("conv1", 5, 5, 2 * W), ("conv2_downsample", 3, W, 4 * W), ("conv3", 3, 2 * W, 4 * W),
    ("conv4_downsample", 3, 2 * W, 8 * W), ("conv5", 3, 4 * W, 8 * W), ("conv6", 3, 4 * W, 8 * W),
    *((f"conv{i}_atrous", 3, 4 * W, 8 * W) for i in (7, 8, 9, 10)),
    ("conv11", 3, 4 * W, 8 * W), ("conv12", 3, 4 * W, 8 * W),
    ("conv13_upsample", 3, 4 * W, 4 * W), ("conv14", 3, 2 * W, 4 * W),
    ("conv15_upsample", 3, 2 * W, 2 * W), ("conv16", 3, W, W), ("conv17", 3, W // 2, 3),
    ("xconv1", 5, 3, 2 * W), ("xconv2_downsample", 3, W, 2 * W), ("xconv3", 3, W, 4 * W),
    ("xconv4_downsample", 3, 2 * W, 4 * W), ("xconv5", 3, 2 * W, 8 * W), ("xconv6", 3, 4 * W, 8 * W),
    *((f"xconv{i}_atrous", 3, 4 * W, 8 * W) for i in (7, 8, 9, 10)),
    ("pmconv1", 5, 3, 2 * W), ("pmconv2_downsample", 3, W, 2 * W), ("pmconv3", 3, W, 4 * W),
    ("pmconv4_downsample", 3, 2 * W, 8 * W), ("pmconv5", 3, 4 * W, 8 * W), ("pmconv6", 3, 4 * W, 8 * W),
    ("pmconv9", 3, 4 * W, 8 * W), ("pmconv10", 3, 4 * W, 8 * W),
    ("allconv11", 3, 8 * W, 8 * W), ("allconv12", 3, 4 * W, 8 * W),
    ("allconv13_upsample", 3, 4 * W, 4 * W), ("allconv14", 3, 2 * W, 4 * W),
    ("allconv15_upsample", 3, 2 * W, 2 * W), ("allconv16", 3, W, W), ("allconv17", 3, W // 2, 3),
]  # fmt: skip
D_BASE = 4
D_CHANNELS = [4, D_BASE, 2 * D_BASE, 4 * D_BASE, 4 * D_BASE, 4 * D_BASE, 4 * D_BASE]

# The second PyTorch layout's names of the same layers, in the same order.
NIPPONJO_TEXT = """
    stage1.conv1 stage1.down_block1.conv1_downsample stage1.down_block1.conv2 stage1.down_block2.conv1_downsample
    stage1.down_block2.conv2 stage1.conv_bn1 stage1.conv_bn2 stage1.conv_bn3 stage1.conv_bn4 stage1.conv_bn5
    stage1.conv_bn6 stage1.conv_bn7 stage1.up_block1.conv1_upsample.conv stage1.up_block1.conv2
    stage1.up_block2.conv1_upsample.conv stage1.up_block2.conv2 stage1.conv_to_rgb
    stage2.conv_conv1 stage2.conv_down_block1.conv1_downsample stage2.conv_down_block1.conv2
    stage2.conv_down_block2.conv1_downsample stage2.conv_down_block2.conv2 stage2.conv_conv_bn1 stage2.conv_conv_bn2
    stage2.conv_conv_bn3 stage2.conv_conv_bn4 stage2.conv_conv_bn5
    stage2.ca_conv1 stage2.ca_down_block1.conv1_downsample stage2.ca_down_block1.conv2
    stage2.ca_down_block2.conv1_downsample stage2.ca_down_block2.conv2 stage2.ca_conv_bn1
    stage2.ca_conv_bn4 stage2.ca_conv_bn5 stage2.conv_bn6 stage2.conv_bn7
    stage2.up_block1.conv1_upsample.conv stage2.up_block1.conv2 stage2.up_block2.conv1_upsample.conv
    stage2.up_block2.conv2 stage2.conv_to_rgb
"""
NIPPONJO_NAMES = NIPPONJO_TEXT.split()

MMAGIC_NAMES = [
    *(f"stage1.encoder.enc{i}" for i in range(1, 7)),
    *(f"stage1.dilation_neck.dilation_convs.{i}" for i in range(4)),
    *(f"stage1.decoder.dec{i}" for i in range(1, 8)),
    *(f"stage2.encoder_conv.enc{i}" for i in range(1, 7)),
    *(f"stage2.dilation_neck.dilation_convs.{i}" for i in range(4)),
    *(f"stage2.encoder_attention.enc{i}" for i in range(1, 7)),
    *(f"stage2.contextual_attention_neck.conv{i}" for i in (1, 2)),
    *(f"stage2.decoder.dec{i}" for i in range(1, 8)),
]


def values(*shape: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers() -> list[tuple[str, Tensor, Tensor]]:
    """TensorFlow's name, weight (out, in, k, k) and bias of every layer of the generator."""
    return [
        (name, values(out, channels, k, k, seed=i), values(out, seed=1000 + i))
        for i, (name, k, channels, out) in enumerate(TF_TABLE)
    ]


def critic_layers() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Weight, bias and singular vector of every layer of the discriminator."""
    pairs = itertools.pairwise(D_CHANNELS)
    return [
        (values(d, c, 5, 5, seed=2000 + i), values(d, seed=3000 + i), values(d, seed=4000 + i))
        for i, (c, d) in enumerate(pairs)
    ]


def tf_content() -> dict[str, Any]:
    content: dict[str, Any] = {"global_step": np.int64(7)}
    for name, weight, bias in layers():
        path = f"inpaint_net/{name}/{name}_conv" if "upsample" in name else f"inpaint_net/{name}"
        content[f"{path}/kernel"] = weight.permute(2, 3, 1, 0).numpy()
        content[f"{path}/bias"] = bias.numpy()
        content[f"{path}/kernel/Adam"] = np.zeros(1, np.float32)
    for i, (weight, bias, u) in enumerate(critic_layers(), 1):
        path = f"discriminator/sn_patch_gan/conv{i}"
        content[f"{path}/kernel"] = weight.permute(2, 3, 1, 0).numpy()
        content[f"{path}/bias"] = bias.numpy()
        content[f"{path}/kernel_sn/u"] = u.view(1, -1).numpy()
    return content


def nipponjo_critic() -> dict[str, Tensor]:
    content = {}
    for i, (weight, bias, u) in enumerate(critic_layers(), 1):
        content |= {f"conv{i}.conv_sn.weight": weight, f"conv{i}.conv_sn.bias": bias}
        content[f"conv{i}.conv_sn.weight_u"] = u.view(-1, 1)
    return content


def nipponjo_tf_content() -> dict[str, Any]:
    generator = {}
    for name, weight, bias in layers():
        path = f"{name}.conv.conv" if "upsample" in name else f"{name}.conv"
        generator |= {f"{path}.weight": weight, f"{path}.bias": bias}
    return {"G": generator, "D": nipponjo_critic(), "G_optim": {"state": {}}, "D_optim": {"state": {}}, "n_iter": 3}


def nipponjo_content() -> dict[str, Any]:
    generator = {"stage2.contextual_attention.fuse_weight": torch.eye(3).view(1, 1, 3, 3)}
    for name, (_, weight, bias) in zip(NIPPONJO_NAMES, layers(), strict=True):
        generator |= {f"{name}.conv.weight": weight, f"{name}.conv.bias": bias}
    return {"G": generator, "D": nipponjo_critic(), "G_optim": {}, "D_optim": {}, "n_iter": 3}


def mmagic_content() -> dict[str, Any]:
    """Its stage 2 sees 5 channels, its decoder is wider by a third, and both last layers are gated."""
    state: dict[str, Tensor] = OrderedDict()
    d = 4 * W // 3 + 3  # any other width
    decoder = [
        (8 * W, 8 * d), (4 * d, 8 * d), (4 * d, 4 * d), (2 * d, 4 * d), (2 * d, 2 * d), (d, d // 2 * 2), (d // 2, 6)
    ]  # fmt: skip
    for name, (old, weight, bias) in zip(MMAGIC_NAMES, layers(), strict=True):
        if old in ("xconv1", "pmconv1"):
            weight = values(2 * W, 5, 5, 5, seed=9)
        if name.startswith("stage2.decoder"):
            channels, out = decoder[int(name[-1]) - 1]
            weight, bias = values(out, channels, 3, 3, seed=out), values(out, seed=out + 1)
        if old == "conv17":
            weight, bias = values(6, W // 2, 3, 3, seed=5), values(6, seed=6)
        state |= {f"generator.{name}.conv.conv.weight": weight, f"generator.{name}.conv.conv.bias": bias}
    for i, (weight, bias, u) in enumerate(critic_layers(), 1):
        stem = f"disc.conv{i}.conv"
        v = values(weight[0].numel(), seed=5000 + i)
        state |= {f"{stem}.weight_orig": weight, f"{stem}.bias": bias, f"{stem}.weight_u": u, f"{stem}.weight_v": v}
    return {"meta": {"iter": 3}, "state_dict": state}


CONTENT: dict[str, Callable[[], dict[str, Any]]] = {
    "tf": tf_content,
    "nipponjo_tf": nipponjo_tf_content,
    "nipponjo": nipponjo_content,
    "mmagic": mmagic_content,
}
ORDER = [
    *(f"coarse.{i}" for i in range(17)),
    *(f"refine.conv_branch.{i}" for i in range(10)),
    *(f"refine.attn_pre.{i}" for i in range(6)),
    *(f"refine.attn_post.{i}" for i in range(2)),
    *(f"refine.decoder.{i}" for i in range(7)),
]


def batch() -> Batch:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 16:40] = 1
    return {"id": ["x/1"], "image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "mask": mask}


def test_every_layout_has_a_test() -> None:
    assert set(LAYOUTS) == set(CONTENT)


@pytest.mark.parametrize("kind", ["tf", "nipponjo_tf", "nipponjo"])
def test_every_tensor_finds_its_layer(kind: str) -> None:
    module = module_from_upstream(CONTENT[kind](), kind)
    state = module.generator.state_dict()
    for ours, (_, weight, bias) in zip(ORDER, layers(), strict=True):
        assert torch.equal(state[f"{ours}.conv.weight"], weight)
        assert torch.equal(state[f"{ours}.conv.bias"], bias)
    assert len(state) == 2 * len(ORDER)
    assert isinstance(module.discriminator, PatchDiscriminator)
    for layer, (weight, bias, u) in zip(module.discriminator.layers, critic_layers(), strict=True):
        parametrization = layer.parametrizations.weight  # type: ignore[union-attr]
        assert torch.equal(parametrization.original, weight)  # type: ignore[union-attr]
        assert torch.equal(parametrization[0]._u, u)  # type: ignore[index, union-attr]
        v = torch.nn.functional.normalize(weight.flatten(1).t() @ u, dim=0)
        torch.testing.assert_close(parametrization[0]._v, v)  # type: ignore[index, union-attr]
        assert torch.equal(layer.bias, bias)  # type: ignore[arg-type]


def test_mmagics_network_is_told_by_its_shapes() -> None:
    content = mmagic_content()
    module = module_from_upstream(content, "mmagic")
    ours, theirs = module.generator.state_dict(), content["state_dict"]
    for name, old in zip(ORDER, MMAGIC_NAMES, strict=True):
        assert torch.equal(ours[f"{name}.conv.weight"], theirs[f"generator.{old}.conv.conv.weight"])
    config = dict(module.hparams)
    expected = {"decoder_width": 4 * W // 3 + 3, "refine_input": "rgb_ones_mask", "gated_output": True, "width": W}
    expected |= {"pad_mode": "reflect", "pre_attention": "elu", "d_base": D_BASE, "ca_masking": "masked"}
    assert {name: config[name] for name in expected} == expected
    assert isinstance(module.discriminator, PatchDiscriminator)
    for i, layer in enumerate(module.discriminator.layers, 1):
        stored = layer.parametrizations.weight[0]  # type: ignore[index, union-attr]
        assert torch.equal(stored._u, theirs[f"disc.conv{i}.conv.weight_u"])
        assert torch.equal(stored._v, theirs[f"disc.conv{i}.conv.weight_v"])


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_a_converted_file_is_a_file_of_this_project(kind: str, tmp_path: Path) -> None:
    source = tmp_path / ("model.npz" if kind == "tf" else "model.pth")
    if kind == "tf":
        np.savez(source, **CONTENT[kind]())
    else:
        torch.save(CONTENT[kind](), source)
    path = convert_upstream(source, kind, tmp_path / "out.safetensors")
    header = read_header(path)
    assert header.licence == ("Apache-2.0" if kind == "mmagic" else "CC-BY-NC-4.0")
    assert header.provenance["converted_from"] == kind
    assert header.provenance["file"] == source.name
    assert len(header.provenance["sha256"]) == 64
    options = LAYOUTS[kind].options
    assert {name: header.config[name] for name in options} == options
    module = load_weights(path, expect="deepfill")
    expected = module_from_upstream(source, kind).complete(batch())
    assert torch.equal(module.complete(batch()).raw, expected.raw)
    assert expected.image.isfinite().all()


def test_compat_flags_change_what_is_computed() -> None:
    defaults = DeepFill(width=4).hparams
    plain = {name: defaults[name] for name in LAYOUTS["tf"].options}
    theirs = module_from_upstream(tf_content(), "tf").complete(batch()).raw
    ours = module_from_upstream(tf_content(), "tf", **plain).complete(batch()).raw
    assert not torch.allclose(theirs, ours)


def test_a_generator_alone_and_its_safetensors(tmp_path: Path) -> None:
    alone = {k: v.contiguous() for k, v in nipponjo_tf_content()["G"].items()}
    save_file(alone, tmp_path / "g.safetensors")
    module = module_from_upstream(tmp_path / "g.safetensors", "nipponjo_tf")
    assert torch.equal(module.generator.state_dict()["coarse.0.conv.weight"], layers()[0][1])
    variables = {f"{k}:0": torch.as_tensor(v).contiguous() for k, v in tf_content().items() if "inpaint" in k}
    save_file(variables, tmp_path / "tf.safetensors")
    module = module_from_upstream(tmp_path / "tf.safetensors", "tf")
    assert torch.equal(module.generator.state_dict()["coarse.0.conv.weight"], layers()[0][1])


def test_a_missing_singular_vector_is_computed() -> None:
    content = {k: v for k, v in tf_content().items() if not k.endswith("/u")}
    module = module_from_upstream(content, "tf")
    assert isinstance(module.discriminator, PatchDiscriminator)
    for layer in module.discriminator.layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)  # type: ignore[operator, union-attr]
        assert largest.item() == pytest.approx(1.0, rel=1e-4)


def test_a_sketch_channel_makes_a_guided_model() -> None:
    content = nipponjo_tf_content()
    content["G"]["conv1.conv.weight"] = values(2 * W, 6, 5, 5, seed=1)
    del content["D"]
    module = module_from_upstream(content, "nipponjo_tf")
    assert module.hparams["guided"]
    assert "edge" in module.needs


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_each_tensor_is_used_exactly_once(kind: str) -> None:
    content = CONTENT[kind]()
    inner = content.get("state_dict", content.get("G", content))
    last = [name for name in inner if name.endswith("bias") and "disc" not in name][-1]
    kept = inner.pop(last)
    with pytest.raises(WeightsError, match="weight or bias of 1 layers is missing"):
        module_from_upstream(content, kind)
    inner[last] = kept
    inner["another.weight"] = kept
    with pytest.raises(WeightsError, match=r"no place: (G\.)?another\.weight"):
        module_from_upstream(content, kind)
    del inner["another.weight"]
    inner[last] = kept[:-1]
    with pytest.raises(WeightsError, match=r"bias is \(\d+,\), not"):
        module_from_upstream(content, kind)


def test_a_tensor_that_comes_twice_is_refused() -> None:
    content = mmagic_content()
    content["state_dict"]["disc.conv1.conv.weight"] = torch.zeros(1)  # beside weight_orig
    with pytest.raises(WeightsError, match="1 tensors have no place"):
        module_from_upstream(content, "mmagic")


def test_other_layouts_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown layout 'jax'"):
        module_from_upstream({}, "jax")
    with pytest.raises(WeightsError, match="no place"):
        module_from_upstream(nipponjo_content(), "nipponjo_tf")
    with pytest.raises(WeightsError, match="no such weights file"):
        module_from_upstream(tmp_path / "none.pth", "tf")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        module_from_upstream(broken, "nipponjo")
    index = tmp_path / "model.ckpt.index"
    index.write_bytes(b"")
    with pytest.raises(WeightsError, match="are not read here"):
        module_from_upstream(index, "tf")


class Evil:
    """Runs code when it is unpickled the ordinary way."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit",))


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"G": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        module_from_upstream(tmp_path / "evil.pth", "nipponjo")
    np.savez(tmp_path / "evil.npz", x=np.array([Evil()], dtype=object))
    with pytest.raises(WeightsError, match="cannot be read"):
        module_from_upstream(tmp_path / "evil.npz", "tf")
