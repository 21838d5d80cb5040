"""Published weights, in synthetic files of their layouts, as weights of this method that its training goes on from."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from tests.fakes_cma import changed, states, trainer
from tests.fakes_mminvertfill import MMInvertFill, fit, guided, make
from tests.models.test_mminvertfill_convert_mmt import published as mmt
from tests.models.test_mminvertfill_convert_stylegan import CHANNELS, DEPTH, LAYOUTS, W, nvidia_image
from zoo.cli import weights as command
from zoo.cli.fit import _load_predecessors
from zoo.errors import UsageError, WeightsError
from zoo.models.mminvertfill.convert import KINDS, convert_upstream
from zoo.models.mminvertfill.convert_mmt import OPTIONS
from zoo.models.mminvertfill.convert_stylegan import LICENCES, generator_from_upstream
from zoo.models.mminvertfill.generator import config_f
from zoo.weights import load_weights, read_header, sha256

SIZES: dict[str, Any] = {"w": W, "mapping": DEPTH, "generator_channels": list(CHANNELS.values())}


@pytest.fixture(params=list(LAYOUTS))
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A layout, and a file of it."""
    torch.manual_seed(0)
    path = tmp_path / "published.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in LAYOUTS[request.param]().items()}, path)
    return request.param, path


def test_a_published_generator_becomes_weights_of_the_first_stage(published: tuple[str, Path], tmp_path: Path) -> None:
    kind, source = published
    path = convert_upstream(source, kind, tmp_path / "run" / "generator" / "weights.safetensors")
    header = read_header(path)
    assert (header.method, header.preset, header.licence) == ("mminvertfill", kind, LICENCES[kind])
    assert (header.config["stage"], header.config["size"]) == ("generator", 32)
    assert {name: header.config[name] for name in SIZES} == SIZES
    assert header.provenance == {"converted_from": kind, "files": {source.name: sha256(source)}}
    assert {name.split(".")[0] for name in load_file(path)} == {"generator"}
    module = load_weights(path, any_stage=True)
    assert isinstance(module, MMInvertFill)
    expected = generator_from_upstream(source, kind).generator
    torch.testing.assert_close(module.generator.state_dict(), expected.state_dict(), atol=0.0, rtol=0.0)
    z = torch.randn(2, W)
    image = module.generator(z, module.generator.fixed_noise())
    torch.testing.assert_close(image, expected(z, expected.fixed_noise()), atol=1e-4, rtol=1e-4)
    with pytest.raises(WeightsError, match="stage 'generator' of mminvertfill does not complete images"):
        load_weights(path)


def test_the_second_stage_goes_on_from_a_published_generator(published: tuple[str, Path], tmp_path: Path) -> None:
    kind, source = published
    convert_upstream(source, kind, tmp_path / "generator" / "weights.safetensors")
    module = make(**SIZES)
    _load_predecessors(module, tmp_path, ("generator",))
    expected = generator_from_upstream(source, kind).generator.state_dict()
    torch.testing.assert_close(module.generator.state_dict(), expected, atol=0.0, rtol=0.0)
    mean, before = module.codes(50).mean(0), states(module)
    fit(module)
    assert changed(module, before) == {"inverter", "critic"}
    torch.testing.assert_close(module.mean.online, mean.lerp(module.mean.target, 1e-3))
    other = make(**{**SIZES, "generator_channels": [7, 6, 5, 5]})
    with pytest.raises(WeightsError, match=r"in stage 'generator'[\s\S]*in stage 'inpaint'[\s\S]*same settings"):
        _load_predecessors(other, tmp_path, ("generator",))


def test_its_images_are_those_of_the_published_network(tmp_path: Path) -> None:
    """The published computation, by the published names, is written out beside the converter's own test."""
    torch.manual_seed(0)
    net = LAYOUTS["nvidia"]()
    save_file({name: tensor.contiguous() for name, tensor in net.items()}, tmp_path / "g.safetensors")
    path = convert_upstream(tmp_path / "g.safetensors", "nvidia", tmp_path / "weights.safetensors")
    module, z = load_weights(path, any_stage=True), torch.randn(2, W)
    expected = nvidia_image(net, z)
    image = module.generator(z, module.generator.fixed_noise())
    assert any(e.shape == image.shape and torch.allclose(image, e, atol=1e-3, rtol=1e-3) for e in expected)


def test_the_command_says_what_came_of_it(
    published: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, source = published
    out = tmp_path / "weights.safetensors"
    arguments = Namespace(action="convert", source=str(source), model="mminvertfill", kind=kind, out=str(out))
    assert command.run(arguments) == 0
    said = capsys.readouterr().out
    assert f"mminvertfill {kind}" in said
    assert LICENCES[kind] in said
    assert sha256(out) in said


def test_full_width_is_left_unsaid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that the settings are those of the paper's recipe."""
    monkeypatch.setattr("zoo.models.mminvertfill.convert.config_f", lambda size: CHANNELS)
    monkeypatch.setattr("zoo.models.mminvertfill.generator.config_f", lambda size: CHANNELS)
    assert config_f(256) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}
    torch.manual_seed(0)
    save_file({n: t.contiguous() for n, t in LAYOUTS["nvidia"]().items()}, tmp_path / "g.safetensors")
    path = convert_upstream(tmp_path / "g.safetensors", "nvidia", tmp_path / "weights.safetensors")
    assert read_header(path).config["generator_channels"] == read_header(path).config["style_critic_channels"] == []


def test_only_safetensors_are_read_and_nothing_is_left_over(published: tuple[str, Path], tmp_path: Path) -> None:
    kind, source = published
    out = tmp_path / "out" / "weights.safetensors"
    pickled = tmp_path / "generator.pkl"
    torch.save(load_file(source), pickled)
    with pytest.raises(WeightsError, match=r"safetensors alone, for a pickle can run code[\s\S]*save_file"):
        convert_upstream(pickled, kind, out)
    with pytest.raises(WeightsError, match="no such weights file"):
        convert_upstream(tmp_path / "none.safetensors", kind, out)
    tensors = load_file(source)
    name = next(n for n in tensors if n.endswith(("conv1.bias", "convs.1.activate.bias")))
    for wrong in (
        {**tensors, "decoder.more" if kind == "psp" else "more": torch.ones(1)},
        {n: t for n, t in tensors.items() if n != name},
    ):
        save_file(wrong, source)
        with pytest.raises(WeightsError, match=r"has no place|is missing"):
            convert_upstream(source, kind, out)
    assert not out.exists()


def test_other_layouts_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown layout 'tensorflow'[\s\S]*nvidia, psp, rosinality"):
        convert_upstream(tmp_path / "g.safetensors", "tensorflow", tmp_path / "out")
    assert set(KINDS) == {*LAYOUTS, "mmt"}


# --- MMT's encoder, which a training reads itself ---------------------------------------------------------------------

MMT: dict[str, Any] = {
    "classes": 3, "widths": [4, 6, 8], "auxiliary": [5, 5, 3], "n_blocks": 2, "rates": [1, 2, 3, 4], "patches": [2, 4],
    **{name: value for name, value in OPTIONS.items() if name != "segmentation"},
}  # fmt: skip


def test_mmts_encoder_is_no_whole_method_and_the_error_says_how_to_use_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training reads them as they are") as caught:
        convert_upstream(tmp_path / "mmt.safetensors", "mmt", tmp_path / "out.safetensors")
    remedy = caught.value.remedy
    assert f"--model.mmt_file {tmp_path / 'mmt.safetensors'}" in remedy
    words = remedy.split()
    said = {words[k].removeprefix("--model."): words[k + 1] for k in range(4, len(words), 2)}
    assert said.pop("mmt_file")
    assert said == {name: value for name, value in OPTIONS.items() if name not in ("segmentation", "gma_gate")}


def test_a_training_starts_from_mmts_encoder_and_a_resumed_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "mmt.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in mmt().items()}, path)
    module = make(**MMT, mmt_file=str(path), lr=0.0)
    before = states(module)
    made = fit(module, guided(2))
    assert changed(module, before) == {"inverter", "critic"}
    theirs = load_file(path)
    for there, here in (
        ("enc_1.0.weight", "backbone.e3.conv.weight"),
        ("bottleneck_2.W", "bottleneck.1.W"),
        ("att_3.query_embedding.weight", "decoder.fusions.0.gma.attention.query.weight"),
    ):
        assert torch.equal(module.inverter.encoder.state_dict()[here], theirs[f"MMTModule.{there}"])
    assert changed(module.inverter, {n.removeprefix("inverter."): t for n, t in before.items() if "inverter" in n}) == {
        "encoder"
    }
    made.save_checkpoint(tmp_path / "last.ckpt")
    path.unlink()
    resumed = make(**MMT, mmt_file=str(path))
    loader: Any = DataLoader([guided(2)], batch_size=None)  # type: ignore[arg-type]
    trainer(max_steps=2).fit(resumed, loader, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    with pytest.raises(WeightsError, match="no such weights file"):
        fit(make(**MMT, mmt_file=str(path)))


def test_an_encoder_that_is_built_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mmt.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in mmt().items()}, path)
    with pytest.raises(WeightsError, match="do not fit an encoder with other acb_variant"):
        fit(make(**{**MMT, "acb_variant": "paper"}, mmt_file=str(path)))
