"""Weights files: round trip, and every way in which one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo.weights
from tests.test_module import batch, make
from tests.toys import Coder, Toy
from tests.toys_text import Speller
from zoo.errors import WeightsError
from zoo.models import load
from zoo.weights import check_completes, find_weights, load_weights, read_header, save_weights, sha256, write_atomically


def test_round_trip_keeps_everything_inference_needs(tmp_path: Path) -> None:
    toy = make(noisy=True, lr=0.5)
    with torch.no_grad():
        toy.perceptual.weight.fill_(7.0)
    path = save_weights(toy, tmp_path / "a.safetensors", preset="nano", provenance={"seed": 3})
    names = set(load_file(path))
    assert names == {"generator.weight", "generator.bias"}, "neither the discriminator nor the frozen network"
    header = read_header(path)
    assert (header.class_path, header.method, header.preset) == ("tests.toys.Toy", "tests.toys.Toy", "nano")
    assert header.provenance == {"seed": 3}
    assert header.config == {"size": 16, "lr": 0.5, "noisy": True, "clip_norm": 0.0, "accumulate": 1}
    again = load_weights(path)
    assert torch.equal(again.complete(batch(), seed=1).raw, toy.complete(batch(), seed=1).raw)
    assert not again.training
    assert len(sha256(path)) == 64


def test_the_vocabulary_is_stored_once_and_comes_back(tmp_path: Path) -> None:
    words = ["red", "blue", "star"]
    path = save_weights(Speller(vocabulary=words), tmp_path / "a.safetensors")
    stored = json.loads(_metadata(path))
    assert stored["vocabulary"] == words
    assert stored["config"] == {"size": 32, "lr": 0.1, "stage": ""}
    header = read_header(path)
    assert header.arguments == {**header.config, "vocabulary": words}
    again = load_weights(path)
    assert again.hparams["vocabulary"] == words
    second = save_weights(again, tmp_path / "b.safetensors")
    assert second.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("both", [False, True])
def test_files_with_the_vocabulary_among_the_arguments_are_read(both: bool, tmp_path: Path) -> None:
    words = ["red", "blue", "star"]
    path = save_weights(Speller(vocabulary=words), tmp_path / "a.safetensors")
    stored = json.loads(_metadata(path))
    stored["config"]["vocabulary"] = words
    stored["vocabulary"] = words if both else []
    save_file(load_file(path), tmp_path / "older.safetensors", {"zoo": json.dumps(stored)})
    assert read_header(tmp_path / "older.safetensors") == read_header(path)
    assert load_weights(tmp_path / "older.safetensors").hparams["vocabulary"] == words


def test_a_vocabulary_that_is_no_list_of_words_is_an_argument_like_any_other(tmp_path: Path) -> None:
    path = save_weights(Counted(vocabulary=7), tmp_path / "a.safetensors")
    header = read_header(path)
    assert (header.config["vocabulary"], header.vocabulary) == (7, [])
    assert load_weights(path).hparams["vocabulary"] == 7


class Counted(Toy):
    """A method to whose constructor `vocabulary` is a number."""

    def __init__(self, vocabulary: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    files = {save_weights(make(), tmp_path / f"{i}.safetensors").read_bytes() for i in range(8)}
    assert len(files) == 1


def test_half_is_stored_and_float_is_loaded(tmp_path: Path) -> None:
    toy = make()
    path = save_weights(toy, tmp_path / "a.safetensors", half=True)
    assert load_file(path)["generator.weight"].dtype == torch.float16
    again = load_weights(path)
    assert isinstance(again, Toy)
    assert again.generator.weight.dtype == torch.float32
    assert torch.allclose(again.generator.weight, toy.generator.weight, atol=1e-3)


def test_weights_of_another_method_are_refused(tmp_path: Path) -> None:
    path = save_weights(make(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"of 'tests\.toys\.Toy', not of"):
        load("deepfill", weights=path)


def test_weights_of_a_stage_that_cannot_complete_are_taken_only_where_asked(tmp_path: Path) -> None:
    early = save_weights(Coder(stage="code"), tmp_path / "a.safetensors")
    for refused in (lambda: load_weights(early), lambda: check_completes(read_header(early), early)):
        with pytest.raises(WeightsError, match=r"stage 'code' of tests\.toys\.Coder does not complete") as found:
            refused()
        assert found.value.where == str(early)
        assert "--stage inpaint" in found.value.remedy
    again = load_weights(early, any_stage=True)
    assert again.stage == "code"
    assert set(again.exported_state()) == set(load_file(early)) >= {"discriminator.bias"}
    last = save_weights(Coder(stage="inpaint"), tmp_path / "b.safetensors")
    check_completes(read_header(last), last)
    assert set(load_file(last)) == {"generator.weight", "generator.bias"}
    assert load_weights(last).stage == "inpaint"


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_header(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not one")
    with pytest.raises(WeightsError, match="not a readable"):
        read_header(tmp_path / "bad.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not written by inpainting-zoo"):
        read_header(tmp_path / "foreign.safetensors")
    path = save_weights(make(), tmp_path / "a.safetensors")
    state, metadata = load_file(path), {"zoo": _metadata(path)}
    save_file({"generator.weight": state["generator.weight"]}, tmp_path / "less.safetensors", metadata)
    with pytest.raises(WeightsError, match="1 tensors missing, 0 unexpected"):
        load_weights(tmp_path / "less.safetensors")
    save_file(state | {"other": torch.zeros(1)}, tmp_path / "more.safetensors", metadata)
    with pytest.raises(WeightsError, match="0 tensors missing, 1 unexpected: other"):
        load_weights(tmp_path / "more.safetensors")


def _metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        text: str = file.metadata()["zoo"]
    return text


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    write_atomically(target, b"old")

    def full(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_run_comes_before_a_pull_and_a_pull_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    runs = tmp_path / "runs"
    monkeypatch.setattr(zoo.weights, "shipped", lambda name, preset: Path("shipped"))
    assert find_weights("deepfill", "nano", runs) == Path("shipped")
    pulled = tmp_path / "home" / "weights" / "deepfill-nano.safetensors"
    write_atomically(pulled, b"")
    assert find_weights("deepfill", "nano", runs) == pulled
    run = runs / "deepfill-nano" / "inpaint" / "weights.safetensors"
    write_atomically(run, b"")
    assert find_weights("deepfill", "nano", runs) == run


@pytest.mark.parametrize("name", ["zoo.models.deepfill.DeepFill", "zoo.models.deepfill:DeepFill"])
def test_the_run_of_a_class_is_found_however_its_path_is_written(name: str, tmp_path: Path) -> None:
    run = tmp_path / "zoo.models.deepfill.DeepFill-nano" / "inpaint" / "weights.safetensors"  # as fit writes it
    write_atomically(run, b"")
    assert find_weights(name, "nano", tmp_path) == run
