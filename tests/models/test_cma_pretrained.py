"""Pretrained ViLT weights: every published layout gives the same numbers; what does not fit is refused and named."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertTokenizer, ViltConfig, ViltForImagesAndTextClassification, ViltForMaskedLM, ViltModel

from tests.fakes_hub import SHA, Hub, serve
from zoo.errors import EXIT_WEIGHTS, WeightsError
from zoo.models.cma.pretrained import PUBLISHED, from_original, load_vilt, locate, word_pieces
from zoo.models.cma.tokenizer import WordPieceTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "bird", "##s", "\u2028", "\x85"]
LAYERS = 2


def config(**changes: Any) -> ViltConfig:
    sizes = {
        "vocab_size": len(PIECES), "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "intermediate_size": 24, "image_size": 32, "patch_size": 8, "max_position_embeddings": 12,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return ViltConfig(**{**sizes, **changes})


def randomized(model: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


def empty(**changes: Any) -> ViltModel:
    torch.manual_seed(2)
    return ViltModel(config(**changes), add_pooling_layer=False).eval()


def outputs(vilt: ViltModel) -> Tensor:
    """What it computes on a fixed caption and fixed patches."""
    ids = torch.tensor([[2, 5, 6, 7, 3, 0]])
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(1, 3, 32, 32, generator=generator)
    parts = vilt.embeddings
    patches = parts.patch_embeddings.projection(pixels).flatten(2).transpose(1, 2)
    image = torch.cat([parts.cls_token, patches], 1) + parts.position_embeddings
    seen = torch.ones(image.shape[:2], dtype=torch.long)
    with torch.no_grad():
        found = vilt(input_ids=ids, attention_mask=(ids > 0).long(), image_embeds=image, pixel_mask=seen)
    return found.last_hidden_state


@pytest.fixture(scope="module")
def published() -> ViltForMaskedLM:
    return randomized(ViltForMaskedLM(config()))


@pytest.fixture
def folder(published: ViltForMaskedLM, tmp_path: Path) -> Path:
    path = tmp_path / "published"
    published.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


def original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `ViltModel` as the original code names them, written by hand."""
    theirs = {
        "text_embeddings.position_ids": torch.arange(12)[None],
        "pooler.dense.weight": torch.ones(16, 16),
        "mlm_score.transform.LayerNorm.weight": torch.ones(16),
        "itm_score.fc.weight": torch.ones(2, 16),
        "transformer.cls_token": state["embeddings.cls_token"],
        "transformer.pos_embed": state["embeddings.position_embeddings"],
        "token_type_embeddings.weight": state["embeddings.token_type_embeddings.weight"],
    }
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        theirs[f"text_embeddings.{name}.weight"] = state[f"embeddings.text_embeddings.{name}.weight"]
    for role in ("weight", "bias"):
        theirs[f"text_embeddings.LayerNorm.{role}"] = state[f"embeddings.text_embeddings.LayerNorm.{role}"]
        theirs[f"transformer.patch_embed.proj.{role}"] = state[f"embeddings.patch_embeddings.projection.{role}"]
        theirs[f"transformer.norm.{role}"] = state[f"layernorm.{role}"]
        for i in range(LAYERS):
            a, b = f"transformer.blocks.{i}", f"encoder.layer.{i}"
            fused = [state[f"{b}.attention.attention.{part}.{role}"] for part in ("query", "key", "value")]
            theirs[f"{a}.attn.qkv.{role}"] = torch.cat(fused)
            theirs[f"{a}.attn.proj.{role}"] = state[f"{b}.attention.output.dense.{role}"]
            theirs[f"{a}.norm1.{role}"] = state[f"{b}.layernorm_before.{role}"]
            theirs[f"{a}.norm2.{role}"] = state[f"{b}.layernorm_after.{role}"]
            theirs[f"{a}.mlp.fc1.{role}"] = state[f"{b}.intermediate.dense.{role}"]
            theirs[f"{a}.mlp.fc2.{role}"] = state[f"{b}.output.dense.{role}"]
    return theirs


# --- layouts -------------------------------------------------------------------------------------------------------


def test_a_folder_of_transformers(published: ViltForMaskedLM, folder: Path) -> None:
    assert any(name.startswith("mlm_score") for name in load_file(folder / "model.safetensors"))
    vilt = empty()
    before = outputs(vilt)
    load_vilt(vilt, str(folder))
    assert torch.equal(outputs(vilt), outputs(published.vilt))
    assert not torch.allclose(outputs(vilt), before, atol=0.1)


def test_a_folder_of_the_bare_model(published: ViltForMaskedLM, tmp_path: Path) -> None:
    published.vilt.save_pretrained(tmp_path)
    assert not any(name.startswith("vilt.") for name in load_file(tmp_path / "model.safetensors"))
    vilt = empty()
    load_vilt(vilt, tmp_path)
    assert torch.equal(outputs(vilt), outputs(published.vilt))


def test_an_old_folder_with_a_bin_file(published: ViltForMaskedLM, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    state = {**published.state_dict(), "vilt.embeddings.text_embeddings.position_ids": torch.arange(12)[None]}
    assert {"vilt.pooler.dense.weight", "mlm_score.decoder.bias"} < set(state)
    torch.save(state, folder / "pytorch_model.bin")
    vilt = empty()
    load_vilt(vilt, folder)
    assert torch.equal(outputs(vilt), outputs(published.vilt))


def test_a_lone_file_in_half_precision(published: ViltForMaskedLM, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in published.vilt.state_dict().items()}
    save_file(state, tmp_path / "vilt.safetensors")
    vilt = empty()
    load_vilt(vilt, tmp_path / "vilt.safetensors")
    assert {tensor.dtype for tensor in vilt.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(outputs(vilt), outputs(published.vilt), atol=0.02, rtol=0.02)


def test_the_pooler_is_loaded_where_there_is_one(tmp_path: Path) -> None:
    whole = randomized(ViltModel(config(), add_pooling_layer=True))
    whole.save_pretrained(tmp_path)
    vilt = ViltModel(config(), add_pooling_layer=True)
    load_vilt(vilt, tmp_path)
    assert torch.equal(vilt.pooler.dense.weight, whole.pooler.dense.weight)


def test_an_original_checkpoint_computes_the_same(published: ViltForMaskedLM, tmp_path: Path) -> None:
    path = tmp_path / "vilt_200k_mlm_itm.ckpt"
    torch.save({"epoch": 1, "state_dict": original(published.vilt.state_dict())}, path)
    vilt = empty()
    load_vilt(vilt, path)
    assert torch.equal(outputs(vilt), outputs(published.vilt))


def test_names_of_the_original_one_by_one(published: ViltForMaskedLM) -> None:
    state = {name: tensor for name, tensor in published.vilt.state_dict().items() if name in empty().state_dict()}
    renamed = from_original(original(state))
    assert set(renamed) - set(state) == {
        "embeddings.text_embeddings.position_ids", "pooler.dense.weight",
        "mlm_score.transform.LayerNorm.weight", "itm_score.fc.weight",
    }  # fmt: skip
    assert all(torch.equal(renamed[name], tensor) for name, tensor in state.items())


def test_the_second_image_of_nlvr2_is_left_out(tmp_path: Path) -> None:
    model = randomized(ViltForImagesAndTextClassification(config(modality_type_vocab_size=3, num_images=2)))
    model.save_pretrained(tmp_path)
    vilt = empty()
    load_vilt(vilt, tmp_path)
    assert torch.equal(
        vilt.embeddings.token_type_embeddings.weight, model.vilt.embeddings.token_type_embeddings.weight[:2]
    )
    assert torch.equal(outputs(vilt), outputs(model.vilt))


# --- files that hold code ------------------------------------------------------------------------------------------


class Callback:
    """As a checkpoint of an old training holds them."""

    best = 1.0


class Evil:
    """Pickled as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_what_a_checkpoint_names_is_neither_imported_nor_run(published: ViltForMaskedLM, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "old.ckpt"
    extra = {
        "callbacks": {Callback: Callback(), "more": [Callback]},
        "hyper_parameters": Evil(exec, f"open({str(mark)!r}, 'w')"),
    }
    torch.save({"state_dict": original(published.vilt.state_dict()), **extra}, path)
    vilt = empty()
    load_vilt(vilt, path)
    assert not mark.exists()
    assert torch.equal(outputs(vilt), outputs(published.vilt))
    torch.load(path, weights_only=False)
    assert mark.exists()  # the file would have run it


def test_a_file_that_torch_refuses(published: ViltForMaskedLM, tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.ckpt", tmp_path / "mark"
    torch.save({"state_dict": original(published.vilt.state_dict()), "x": Evil(os.system, f"touch {mark}")}, path)
    with pytest.raises(WeightsError, match="torch does not read this file: Trying to load unsupported") as caught:
        load_vilt(empty(), path)
    assert "weights_only" not in str(caught.value)  # no advice to run it
    assert "torch.save(checkpoint['state_dict']" in caught.value.remedy
    assert not mark.exists()


# --- what does not fit ---------------------------------------------------------------------------------------------


def refused(state: Mapping[str, Tensor], tmp_path: Path, vilt: ViltModel | None = None) -> str:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "x.safetensors")
    vilt = vilt or empty()
    before = outputs(vilt)
    with pytest.raises(WeightsError) as caught:
        load_vilt(vilt, tmp_path / "x.safetensors")
    assert torch.equal(outputs(vilt), before)  # nothing was loaded
    assert caught.value.where == str(tmp_path / "x.safetensors")
    return caught.value.what


def test_tensors_missing_left_over_and_not_finite(published: ViltForMaskedLM, tmp_path: Path) -> None:
    state = dict(published.vilt.state_dict())
    del state["encoder.layer.1.layernorm_after.bias"]
    state["encoder.layer.2.layernorm_after.bias"] = torch.ones(16)
    state["layernorm.bias"] = torch.full((16,), float("nan"))
    state["layernorm.weight"] = torch.ones(15)
    said = refused(state, tmp_path)
    assert "encoder.layer.1.layernorm_after.bias is missing" in said
    assert "encoder.layer.2.layernorm_after.bias has no place" in said
    assert "layernorm.bias is not finite" in said
    assert "layernorm.weight is (15,), not (16,)" in said


def test_many_problems_are_counted(tmp_path: Path) -> None:
    said = refused({"conv.weight": torch.ones(3)}, tmp_path)
    assert said.count("is missing") == 6
    assert f"and {len(empty().state_dict()) + 1 - 6} more" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 30}, "the word table has 11 rows, the vocabulary 30 pieces"),
        ({"max_position_embeddings": 40}, "there are 12 text positions, not 40"),
        ({"image_size": 64}, "the position table has 17 rows, not 65"),
        ({"num_hidden_layers": 1}, "encoder.layer.1.attention.attention.query.weight has no place"),
        ({"hidden_size": 32}, r"embeddings.cls_token is \(1, 1, 16\), not \(1, 1, 32\)"),
        ({"num_attention_heads": 4}, "num_attention_heads 2, not 4"),
        ({"hidden_act": "relu"}, "hidden_act gelu, not relu"),
    ],
)
def test_other_sizes(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_vilt(ViltModel(config(**changes), add_pooling_layer=False), folder)


def test_what_an_original_checkpoint_must_not_hold(published: ViltForMaskedLM, tmp_path: Path) -> None:
    state = original(published.vilt.state_dict())
    names = ["transformer.blocks.0.ls1.gamma", "transformer.blocks.1.attn.norm.weight"]  # of other transformers
    said = refused(state | {name: torch.ones(16) for name in names}, tmp_path)
    assert all(f"{name} has no place" in said for name in names)
    with pytest.raises(WeightsError, match=r"blocks.0.attn.qkv.bias is \(47,\)"):
        from_original(state | {"transformer.blocks.0.attn.qkv.bias": torch.ones(47)})


# --- damaged files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.bin"])
@pytest.mark.parametrize("how", ["cut", "garbage", "empty"])
def test_damaged_files(published: ViltForMaskedLM, tmp_path: Path, name: str, how: str) -> None:
    path = tmp_path / name
    state = published.vilt.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"garbage" * 99, "empty": b""}[how])
    with pytest.raises(WeightsError, match=r"damaged|torch does not read") as caught:
        load_vilt(empty(), path)
    assert "fetch it again" in caught.value.remedy
    assert len(caught.value.what) < 300


def test_what_git_leaves_in_the_place_of_a_large_file(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer, encoding="utf-8")
    with pytest.raises(WeightsError) as caught:
        load_vilt(empty(), folder)
    assert "git lfs pull" in caught.value.remedy


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {"a": 1}}, {"epoch": 3}])
def test_files_without_tensors(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no dict of tensors"):
        load_vilt(empty(), tmp_path / "x.pt")


def test_other_files_and_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"'\.npz' files are not read"):
        load_vilt(empty(), tmp_path / "x.npz")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors or pytorch_model\.bin\n"):
        load_vilt(empty(), folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged") as caught:
        load_vilt(empty(), folder)
    assert caught.value.where.endswith("config.json")


# --- word pieces ---------------------------------------------------------------------------------------------------


def test_word_pieces_of_vocab_txt(folder: Path) -> None:
    assert word_pieces(str(folder)) == PIECES  # two of them are line ends to str.splitlines
    assert word_pieces(folder / "model.safetensors") == PIECES
    (folder / "vocab.txt").write_bytes("\r\n".join(PIECES).encode())
    assert word_pieces(folder) == PIECES
    assert len(WordPieceTokenizer(word_pieces(folder), 10)) == len(PIECES)


def test_word_pieces_of_tokenizer_json(folder: Path) -> None:
    plain = PIECES[:-2]  # transformers takes the two for empty lines
    (folder / "vocab.txt").write_text("\n".join(plain), encoding="utf-8")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    assert word_pieces(folder) == plain
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["bird"] = 99
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(WeightsError, match="not 0, 1, 2"):
        word_pieces(folder)
    for text in ("{", "[]", '{"model": {}}', '{"model": {"vocab": {"a": "b"}}}'):
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match="cannot be read"):
            word_pieces(folder)


def test_a_lone_file_needs_its_vocabulary_beside_it(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match="no vocabulary beside") as caught:
        word_pieces(folder / "model.safetensors")
    assert "put bert-base-uncased's vocab.txt beside the weights" in caught.value.remedy
    assert caught.value.where == str(folder)


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    return path


def fill(cache: Path, folder: Path, *left_out: str) -> Path:
    """A repository in the cache as the hub's client lays it out; returns the snapshot."""
    repository = cache / f"models--{PUBLISHED.replace('/', '--')}"
    snapshot = repository / "snapshots" / SHA
    for path in (snapshot, repository / "refs", repository / "blobs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA, encoding="utf-8")
    for file in folder.iterdir():
        if file.name not in left_out:
            blob = repository / "blobs" / f"blob-{file.name}"
            blob.write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_repository_in_the_cache(published: ViltForMaskedLM, folder: Path, cache: Path) -> None:
    snapshot = fill(cache, folder)
    assert locate(PUBLISHED) == snapshot
    assert word_pieces(PUBLISHED) == PIECES
    vilt = empty()
    load_vilt(vilt, PUBLISHED)
    assert torch.equal(outputs(vilt), outputs(published.vilt))


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "ZOO_OFFLINE"])
def test_offline_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(switch, "1")
    said: list[str] = []
    with pytest.raises(WeightsError, match="downloads are forbidden") as caught:
        locate(PUBLISHED, said.append)
    assert said == []
    assert caught.value.exit_code == EXIT_WEIGHTS
    text = str(caught.value)
    for part in (
        f"'{PUBLISHED}'", str(cache / "models--dandelin--vilt-b32-mlm"), f"`hf download {PUBLISHED}`",
        "--model.pretrained PATH", "--preset nano", "0.5 GB", "Apache-2.0",
    ):  # fmt: skip
        assert part in text


def test_a_cache_without_the_vocabulary(folder: Path, cache: Path) -> None:
    snapshot = fill(cache, folder, "vocab.txt")
    with pytest.raises(WeightsError, match=r"without vocab\.txt or tokenizer\.json") as caught:
        locate(PUBLISHED)
    assert caught.value.where == str(snapshot)


@pytest.mark.parametrize("source", ["", "vilt", "missing/vilt.ckpt", "a/b/c", "./vilt", "a b/c", "x/" + "y" * 99])
def test_what_is_neither_a_path_nor_an_id(
    cache: Path, source: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(WeightsError, match=r"no such file or folder") as caught:
        locate(source)
    assert "--model.pretrained PATH" in caught.value.remedy


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {file.name: file.read_bytes() for file in folder.iterdir()} | {
        "pytorch_model.bin": b"old",
        "README.md": b"",
    }
    with serve(files) as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        yield server


def test_a_download_is_announced_and_takes_what_is_needed(
    published: Any, hub: Hub, cache: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    found = locate(PUBLISHED, lambda text: said.append(f"{text} {hub.fetched}"))
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "vocab.txt"]  # one kind of weights
    size = sum(len(hub.files[name]) for name in hub.fetched) / 1e6
    assert len(said) == 1
    assert said[0].endswith(" []")  # before anything came
    for part in (PUBLISHED, "model.safetensors", f"{size:.1f} MB", "apache-2.0", constants.ENDPOINT, str(cache)):
        assert part in said[0]
    assert locate(PUBLISHED) == found
    assert len(hub.fetched) == 3  # the second time from the cache
    vilt = empty()
    load_vilt(vilt, PUBLISHED)
    assert torch.equal(outputs(vilt), outputs(published.vilt))


def test_a_download_is_logged_by_default(hub: Hub, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    locate(PUBLISHED)
    assert [r.levelno for r in caplog.records if f"downloading {PUBLISHED}" in r.getMessage()] == [logging.WARNING]


def test_a_repository_without_a_vocabulary_is_not_fetched(hub: Hub, cache: Path) -> None:
    del hub.files["vocab.txt"]
    with pytest.raises(WeightsError, match=r"has no vocab\.txt"):
        locate(PUBLISHED)
    assert hub.fetched == []


def test_no_network(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    said: list[str] = []
    with pytest.raises(
        WeightsError, match=r"neither a path nor in the hub's cache, and it cannot be fetched"
    ) as caught:
        locate(PUBLISHED, said.append)
    assert said == []
    assert f"`hf download {PUBLISHED}`" in caught.value.remedy
