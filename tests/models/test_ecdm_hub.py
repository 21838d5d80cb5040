"""Loading published networks: the true layout from a folder and from the hub's cache, and the one error without."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.fakes_stable_diffusion import IDS, LENGTH, save_control, save_pipeline
from zoo.errors import EXIT_WEIGHTS, UsageError, WeightsError
from zoo.models.ecdm import hub

NETWORKS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_shown", set())
    return tmp_path / "hub"


def into_cache(cache: Path, repository: str, folder: Path) -> Path:
    """Puts a folder where `hf download` would."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    shutil.copytree(folder, root / "snapshots" / "abc")
    return root / "snapshots" / "abc"


def test_every_tensor_comes_from_the_files_under_their_published_names(folder: Path) -> None:
    names = {"unet": "conv_in.weight", "vae": "mid_block.attentions.0.query.weight", "text_encoder": "text_model"}
    for part in NETWORKS:
        file = next((folder / part).glob("*.safetensors"))
        stored = {name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
        assert any(names[part] in name for name in load_file(file))
        network = hub.load(part, str(folder))
        assert not network.training
        loaded = list(network.state_dict().values())
        assert len(loaded) == len(stored)
        sums = sorted(tensor.double().abs().sum().item() for tensor in loaded)
        assert sums == pytest.approx(sorted(tensor.double().abs().sum().item() for tensor in stored.values()))


def test_a_part_alone_is_a_folder_too(folder: Path, tmp_path: Path) -> None:
    assert hub.load("vae", str(folder / "vae")).dtype == torch.float32
    control = hub.load("controlnet", str(save_control(tmp_path / "control")))
    assert type(control).__name__ == "ControlNetModel"
    assert control.dtype == torch.float32


def test_the_hubs_cache_is_found_and_its_licence_said_once(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    into_cache(cache, hub.SD15, folder)
    with caplog.at_level(logging.WARNING):
        for part in NETWORKS:
            hub.load(part, hub.SD15)
        hub.check_here(dict.fromkeys((*NETWORKS, "tokenizer"), hub.SD15))
    said = [record.getMessage() for record in caplog.records if record.name == hub.__name__]
    assert len(said) == 1
    assert "OpenRAIL" in said[0]
    assert set(hub.LICENCES) == {hub.SD15, hub.SD15_INPAINTING, hub.CONTROL_INPAINT, hub.CONTROL_CANNY}


@pytest.mark.parametrize("part", hub.PARTS)
def test_what_is_not_here_is_one_error_that_says_how_to_get_it(part: str, cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        hub.load_tokenizer(hub.SD15) if part == "tokenizer" else hub.load(part, hub.SD15)
    error = caught.value
    assert error.exit_code == EXIT_WEIGHTS
    assert hub.SD15 in error.what
    assert error.where.startswith(str(cache))
    command = error.remedy.split("`")[1]
    files = command.removeprefix(f"hf download {hub.SD15} ").split()
    if part == "controlnet":
        assert files == ["config.json", "diffusion_pytorch_model.safetensors"]
    else:
        pipeline = save_pipeline(cache / "pipeline")
        assert {file.partition("/")[0] for file in files} == {*NETWORKS, "tokenizer"}
        assert all((pipeline / file).is_file() for file in files), "in the layout that diffusers writes"
    assert "nano" in error.remedy
    assert len(str(error).splitlines()) == 3


def test_a_tokenizer_of_another_size_is_refused(folder: Path) -> None:
    assert len(hub.load_tokenizer(str(folder), ids=IDS, length=LENGTH)) == IDS
    with pytest.raises(WeightsError, match=f"has {IDS} ids and captions of {LENGTH}, not 49408 and 77"):
        hub.load_tokenizer(str(folder))


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_tokenizer_without_its_words_is_refused_before_it_loads_with_two(
    folder: Path, tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer" / name).unlink()
    with pytest.raises(WeightsError, match=f"no {name} or tokenizer.json") as caught:
        hub.load_tokenizer(str(copy), ids=IDS, length=LENGTH)
    assert caught.value.where == str(copy / "tokenizer")
    assert "hf download" not in caught.value.remedy


def test_damage_and_missing_tensors_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for part in NETWORKS:
        file = next((copy / part).glob("*.safetensors"))
        tensors = load_file(file)
        lost = sorted(tensors)[-1]
        save_file({name: t for name, t in tensors.items() if name != lost}, file, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match="lacks 1 tensors"):
            hub.load(part, str(copy))
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(WeightsError, match=f"the {part} of .* cannot be read"):
            hub.load(part, str(copy))
        file.unlink()
        with pytest.raises(WeightsError, match="safetensors or "):
            hub.load(part, str(copy))
    (copy / "unet" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        hub.check_here({"unet": str(copy)})


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'unet'"):
        hub.load("unett", hub.SD15)
