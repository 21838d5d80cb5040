"""Names of CompVis checkpoints, against diffusers' own converters; and the sizes of the paper's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from torch import Tensor

from tests.fakes_ecdm_nets import DEEP, fill
from zoo.errors import UsageError, WeightsError
from zoo.models.ecdm import ECDM
from zoo.models.ecdm.controlnet import ECDMControlNet
from zoo.models.ecdm.convert import LICENCE, convert_upstream, student_from_upstream, to_upstream
from zoo.models.ecdm.names import Names
from zoo.weights import load_weights, read_header

HINT = (4, 8, 8, 16)  # as many blocks as ControlNet, and narrow
SIZES: dict[str, Any] = {n: DEEP[n] for n in ("in_channels", "block_out_channels", "norm_num_groups",
                                              "cross_attention_dim", "attention_head_dim")}  # fmt: skip
SMALL = {**SIZES, "conditioning_embedding_out_channels": HINT}
OWN = {"acda_channels": (4, 8)}


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> tuple[UNet2DConditionModel, ControlNetModel, ECDMControlNet]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        return unet, ControlNetModel.from_unet(unet), ECDMControlNet.from_unet(unet, acda_double_self_attn=True)


Paper = tuple[UNet2DConditionModel, ControlNetModel, ECDMControlNet]


def renamed(network: torch.nn.Module) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The table of a network, and its tensors under the names there."""
    state = network.state_dict()
    table = Names.of(network).table(state)
    return table, {there: state[here] for there, here in table.items()}


def test_the_tables_are_diffusers_own(paper: Paper) -> None:
    unet, controlnet, _ = paper
    for network, size in ((unet, 686), (controlnet, 340)):
        table, there = renamed(network)
        assert len(table) == len(there) == size
        if network is unet:
            there = {f"model.diffusion_model.{name}": tensor for name, tensor in there.items()}
            found = convert_ldm_unet_checkpoint(there, config=dict(unet.config))
        else:
            found = convert_controlnet_checkpoint(dict(there), config=dict(controlnet.config))
        state = network.state_dict()
        assert set(found) == set(state)
        assert all(tensor is state_tensor_of(there, table, name) for name, tensor in found.items())


def state_tensor_of(there: dict[str, Tensor], table: dict[str, str], here: str) -> Tensor:
    name = next(name for name, ours in table.items() if ours == here)
    return there.get(name, there.get(f"model.diffusion_model.{name}"))  # type: ignore[return-value]


def test_names_of_ecdm_alone(paper: Paper) -> None:
    _, controlnet, student = paper
    table, there = renamed(student)
    assert {name: here for name, here in table.items() if here in controlnet.state_dict()} == renamed(controlnet)[0]
    own = set(table) - set(renamed(controlnet)[0])
    wanted = {f"context_hint_block.{2 * i}.{role}" for i in range(8) for role in ("weight", "bias")}
    for k in (1, 2, 4, 5, 7, 8):
        for attn in ("attn1", "attn2"):
            for part in ("to_ki", "to_vi"):
                wanted.add(f"input_blocks.{k}.1.transformer_blocks.0.{attn}.{part}.weight")
    assert own == wanted
    for k, block in ((1, "0_attentions_0"), (5, "1_attentions_1"), (8, "2_attentions_1")):
        for attn in ("attn1", "attn2"):
            for there_, here in (("to_ki", "k"), ("to_vi", "v")):
                name = f"input_blocks.{k}.1.transformer_blocks.0.{attn}.{there_}.weight"
                assert table[name] == f"acda_kv.down_blocks_{block}_transformer_blocks_0_{attn}.{here}.weight"
    assert there["input_blocks.4.1.transformer_blocks.0.attn2.to_ki.weight"].shape == (640, 768)
    assert there["input_blocks.4.1.transformer_blocks.0.attn1.to_vi.weight"].shape == (640, 640)
    assert there["context_hint_block.14.weight"].shape == (768, 256, 3, 3)
    assert {here: name for name, here in table.items()}.keys() == student.state_dict().keys()


def test_a_name_of_another_network_is_refused() -> None:
    with pytest.raises(UsageError, match="add_embedding"):
        Names().there("add_embedding.linear_1.weight")


def test_the_papers_networks_have_the_papers_sizes(paper: Paper) -> None:
    unet, controlnet, doubled = paper
    assert count(unet) == 859_520_964
    assert count(controlnet) == 361_279_120
    with torch.device("meta"):
        student = ECDMControlNet.from_unet(unet)
    assert student.freq_encoder is not None
    assert count(student.freq_encoder) == 2_119_552
    assert count(student.acda_kv) == 6_881_280
    assert len(student.acda_kv) == 6
    assert count(student) == 361_279_120 + 2_119_552 + 6_881_280
    assert count(doubled) - count(student) == 8_601_600


# --- weights --------------------------------------------------------------------------------------------------------


def published(seed: int = 0, **options: Any) -> ECDMControlNet:
    torch.manual_seed(seed)
    network = ECDMControlNet(**SMALL, **OWN, **options)
    return fill(network, seed).eval()  # type: ignore[return-value]


def outputs(network: ControlNetModel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, c = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 3, 12, generator=generator)
    hint = torch.rand(1, 3, 64, 64, generator=generator)
    hint[:, :, 20:40, 20:40] = -1
    with torch.no_grad():
        down, mid = network(x, 7, c, hint, return_dict=False)
    return [*down, mid]


def test_an_ecdm_checkpoint_round_trips(tmp_path: Path) -> None:
    theirs = published(acda_radius="official", acda_norm_scope="batch", acda_double_self_attn=True)
    content = to_upstream(theirs)
    assert all(name.startswith("inpaint_model.") for name in content)
    content |= {"control_model.conv": torch.ones(1), "model.diffusion_model.out.2.bias": torch.ones(4)}
    source = tmp_path / "last.ckpt"
    torch.save({"state_dict": content, "global_step": 5}, source)
    found = student_from_upstream(source, "ecdm", **SMALL, **OWN)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    for a, b in zip(outputs(found), outputs(theirs), strict=True):
        assert torch.equal(a, b)
    path = convert_upstream(source, "ecdm", tmp_path / "student.safetensors", **SMALL, **OWN)
    again = load_weights(path)
    assert isinstance(again, ECDM)
    assert torch.equal(outputs(again.student)[-1], outputs(theirs)[-1])
    header = read_header(path)
    assert (header.licence, header.preset) == (LICENCE, "ecdm")
    assert header.provenance["converted_from"] == "ecdm"
    assert list(header.provenance["files"]) == ["last.ckpt"]


@pytest.mark.parametrize("layout", ["compvis", "diffusers"])
def test_a_controlnet_is_read_in_both_layouts(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = fill(ControlNetModel(**SMALL)).eval()
    assert isinstance(plain, ControlNetModel)
    if layout == "compvis":
        source = tmp_path / "control_v11p_sd15_inpaint.pth"
        torch.save(to_upstream(ECDMControlNet.from_controlnet(plain, acda=False), "controlnet"), source)
    else:
        plain.save_pretrained(tmp_path)
        source = tmp_path / "diffusion_pytorch_model.safetensors"
    found = student_from_upstream(source, "controlnet", **SMALL, **OWN)
    assert found.config["acda"]
    for a, b in zip(outputs(found), outputs(plain), strict=True):
        assert torch.equal(a, b)
    four = student_from_upstream(source, "controlnet", **SMALL, **OWN, conditioning_channels=4)
    weight = four.state_dict()["controlnet_cond_embedding.conv_in.weight"]
    assert torch.equal(weight[:, :3], plain.state_dict()["controlnet_cond_embedding.conv_in.weight"])
    assert weight[:, 3].abs().max() == 0


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    content = to_upstream(published())
    with pytest.raises(UsageError, match="unknown layout"):
        student_from_upstream(content, "ecmd")
    with pytest.raises(UsageError, match="unknown layout"):
        to_upstream(published(), "ecmd")
    with pytest.raises(WeightsError, match="no such weights file"):
        student_from_upstream(tmp_path / "none.pth", "ecdm")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK not a file")
    with pytest.raises(WeightsError, match="cannot be read"):
        student_from_upstream(damaged, "ecdm")
    torch.save([1], damaged)
    with pytest.raises(WeightsError, match="a list, not a dict"):
        student_from_upstream(damaged, "ecdm")
    other = {"model.diffusion_model.out.2.bias": torch.ones(4)}
    with pytest.raises(WeightsError, match="no tensor 'inpaint_model"):
        student_from_upstream(other, "ecdm")
    with pytest.raises(WeightsError, match=r"(?s)is the teacher.*--kind ecdm"):
        student_from_upstream(content | {"control_model.middle_block_out.0.bias": torch.ones(4)}, "controlnet")
    lacking = {n: t for n, t in content.items() if "to_ki" not in n}
    with pytest.raises(WeightsError, match="lack ACDA"):
        student_from_upstream(lacking, "ecdm", **SMALL, **OWN)
    more = content | {"inpaint_model.surplus": torch.ones(1)}
    with pytest.raises(WeightsError, match="surplus has no place"):
        student_from_upstream(more, "ecdm", **SMALL, **OWN)
    with pytest.raises(WeightsError, match="not"):
        student_from_upstream(content, "ecdm", **SMALL, acda_channels=(4, 6))


def test_a_deep_and_narrow_student_has_an_acda_layer_for_each_attention() -> None:
    assert len(published().acda_kv) == 6
    assert published().precompute(torch.rand(1, 3, 64, 64)).keys() == set(published().acda_kv)
