"""Shards hold a dataset's samples bit for bit, and training on them is training on the dataset."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import sys
import tarfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from tests.fakes import Pictures, picture, tiny_coco
from zoo.cli import shard as verb
from zoo.cli.main import main
from zoo.cli.parsers import data_parser
from zoo.data import loader as loader_module
from zoo.data import open_dataset
from zoo.data.base import Sample
from zoo.data.coco import Coco
from zoo.data.disk_cache import DiskCache, cache_folder
from zoo.data.loader import TrainingLoader
from zoo.data.masked import EvaluationSet, TrainingSet
from zoo.data.module import InpaintingData
from zoo.data.shard_writer import write_shards
from zoo.data.shards import Shards
from zoo.data.storage import Storage
from zoo.errors import DataError, UsageError

COUNT, SIZE, EACH = 7, 32, 3


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    return Coco("train", SIZE, root=tiny_coco(tmp_path / "coco", count=COUNT))


@pytest.fixture
def root(coco: Coco, tmp_path: Path) -> Path:
    write_shards(coco, tmp_path / "shards", split="train", size=SIZE, samples_per_shard=EACH)
    return tmp_path / "shards"


def _shards(root: Path | str) -> Shards:
    return Shards("train", SIZE, root=root)


def _same(one: Sample, other: Sample) -> bool:
    for field in fields(Sample):
        mine, others = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            if (mine.dtype, mine.shape) != (others.dtype, others.shape) or not np.array_equal(mine, others):
                return False
        elif mine != others:
            return False
    return True


# --- what comes back -------------------------------------------------------------------------------------------------


def test_samples_are_the_datasets_bit_for_bit(coco: Coco, root: Path) -> None:
    shards = _shards(root)
    assert list(shards.ids) == list(coco.ids)
    assert all(_same(shards.sample(i), coco.sample(i)) for i in range(COUNT))
    assert shards.sample(0).image.flags.c_contiguous
    assert list(shards.caption_texts()) == list(coco.caption_texts())
    for fact in ("name", "object_rule", "licence", "provides", "classes"):
        assert getattr(shards, fact) == getattr(coco, fact)
    assert Shards.name == "shards"
    assert sorted(path.name for path in root.iterdir()) == [
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
        "train-captions.jsonl.gz",
        "train.json",
    ]


class Everything(Pictures):
    """Samples with every field in every state."""

    def sample(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        sample = Sample(self.ids[index], picture(16, 16, index))
        if index == 1:
            boxes = rng.uniform(0, 16, (2, 4)).astype(np.float32)
            segments = rng.random((2, 16, 16)) > 0.5
            mask = rng.integers(0, 2, (16, 16)).astype(np.uint8)
            classes = rng.integers(0, 256, (16, 16)).astype(np.uint8)
            sample = Sample(
                sample.id, sample.image, ('ünï "c"\n', "", "two\u2028lines\r"), boxes, segments, classes, mask
            )
        if index == 2:
            sample = Sample(sample.id, sample.image, segments=np.zeros((0, 16, 16), np.bool_))
        return sample


def test_every_field_in_every_state(tmp_path: Path) -> None:
    dataset = Everything(count=4)
    write_shards(dataset, tmp_path, split="val", size=16)
    shards = Shards("val", 16, root=tmp_path)
    assert all(_same(shards.sample(i), dataset.sample(i)) for i in range(4))
    assert tuple(shards.caption_texts()) == dataset.sample(1).captions


def test_any_reader_of_tar_files_finds_the_samples(coco: Coco, root: Path) -> None:
    keys = []
    for path in sorted(root.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, ending = member.name.partition(".")
                keys += [key] if ending == "json" else []
                assert ending in ("json", "png", "segmentation.png")
                assert key == keys[-1]
                if ending == "json":
                    facts = json.load(archive.extractfile(member))  # type: ignore[arg-type]
                    assert facts["id"] == coco.ids[len(keys) - 1]
    assert keys == [f"{n:09d}" for n in range(COUNT)]


def test_the_same_samples_give_the_same_bytes(coco: Coco, root: Path, tmp_path: Path) -> None:
    write_shards(coco, tmp_path / "again", split="train", size=SIZE, samples_per_shard=EACH)
    for path in root.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "url", ["memory://bucket/shards", "file://{}/elsewhere", "simplecache::memory://bucket/shards"]
)
def test_urls(coco: Coco, root: Path, tmp_path: Path, url: str) -> None:
    url = url.format(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    write_shards(coco, url.removeprefix("simplecache::"), split="train", size=SIZE, samples_per_shard=EACH)
    shards = _shards(url)
    assert all(_same(shards.sample(i), coco.sample(i)) for i in range(COUNT))
    assert isinstance(shards.root, Path) == url.startswith("file")
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.name == "coco"
    assert _same(copy.sample(3), coco.sample(3))
    memory.store.clear()


def test_a_sample_is_one_range_of_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(root)
    asked: list[tuple[str, int]] = []
    read = Storage.read

    def watch(self: Storage, name: str, start: int | None = None, end: int | None = None) -> bytes:
        content = read(self, name, start, end)
        asked.append((name, len(content)))
        return content

    monkeypatch.setattr(Storage, "read", watch)
    shards.sample(4)
    assert [name for name, _ in asked] == ["train-000001.tar"]
    assert asked[0][1] < (root / "train-000001.tar").stat().st_size / 2


# --- on the way to a method ------------------------------------------------------------------------------------------


def test_masks_and_captions_are_those_of_the_dataset(coco: Coco, root: Path) -> None:
    shards = _shards(root)
    mixture = "freeform,object,irregular:20-30"
    for made in (lambda d: EvaluationSet(d, mixture, 3, caption="keyed"), lambda d: TrainingSet(d, mixture, 3)):
        ours, theirs = made(shards), made(coco)
        for index in range(COUNT):
            one, other = ours[index], theirs[index]
            assert one.keys() == other.keys()
            assert (one["id"], one["caption"]) == (other["id"], other["caption"])
            assert all(torch.equal(one[k], other[k]) for k in ("image", "mask", "segmentation"))


def _data(root: Path | str, name: str = "shards", **options: Any) -> InpaintingData:
    made = {"size": SIZE, "batch_size": 2, "train_mask": "freeform,center", "cache_mb": 0, **options}
    return InpaintingData(name, root=str(root), **made)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_datamodule_gives_the_same_batches(coco: Coco, root: Path, workers: int) -> None:
    ours = list(_data(root, workers=workers).train_dataloader())
    theirs = list(_data(coco.root, "coco").train_dataloader())
    assert len(ours) == len(theirs) == COUNT // 2
    for one, other in zip(ours, theirs, strict=True):
        assert (one["id"], one["caption"]) == (other["id"], other["caption"])
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
    assert list(_data(root).captions()) == list(coco.caption_texts())
    assert _data(root).provides == coco.provides


@pytest.mark.parametrize("used", [1, 2, 4])
def test_a_resume_in_mid_epoch_goes_on_as_if_nothing_had_happened(root: Path, used: int) -> None:
    def loader() -> TrainingLoader:
        return TrainingLoader(TrainingSet(_shards(root), "freeform", seed=5), 2, seed=5)

    def take(loader: TrainingLoader, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < count:
            for batch in loader:
                found.append(batch)
                if len(found) == count:
                    break
        return found

    whole = take(loader(), 8)
    first, second = loader(), loader()
    take(first, used)
    second.load_state_dict(first.state_dict())
    for one, other in zip(take(second, 8 - used), whole[used:], strict=True):
        assert (one["id"], one["caption"]) == (other["id"], other["caption"])
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


class Mean(LightningModule):
    """Learns the mean of the holes it is shown, and stops where it is told."""

    def __init__(self, stop: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[str]] = []
        self.stop = stop

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.stop:
            raise InterruptedError
        self.seen.append(batch["id"])
        return (self.weight - (batch["image"] * batch["mask"]).mean()).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def _fit(module: Mean, root: Path, save: Path | None = None, path: Path | None = None) -> Mean:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=7,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with contextlib.suppress(InterruptedError):
        trainer.fit(module, datamodule=_data(root), ckpt_path=path, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return module


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(coco: Coco, root: Path, tmp_path: Path) -> None:
    write_shards(coco, root, split="val", size=SIZE)
    whole = _fit(Mean(), root)
    stopped = _fit(Mean(stop=4), root, save=tmp_path / "a.ckpt")
    resumed = _fit(Mean(), root, path=tmp_path / "a.ckpt")
    assert stopped.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.weight, whole.weight)


def test_two_ranks_get_disjoint_samples(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [set(batch["id"]) for batch in _data(root, batch_size=4).train_dataloader()]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(loader_module, "position", lambda rank=rank: (rank, 2))
        parts.append([set(batch["id"]) for batch in _data(root).train_dataloader()])
    assert all(not one & other for one, other in zip(*parts, strict=True))
    assert [one | other for one, other in zip(*parts, strict=True)] == whole


def test_the_cache_on_disk_keeps_what_shards_hold(coco: Coco, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(root)
    folder = cache_folder(shards, "auto", SIZE)
    assert folder.parent == root / ".zoo"
    cache = DiskCache(shards, folder)
    for _ in range(2):
        assert all(_same(cache.sample(i), coco.sample(i)) for i in range(COUNT))
    monkeypatch.setattr(Shards, "sample", lambda *_: pytest.fail("it was read again"))
    assert _same(DiskCache(shards, folder).sample(1), coco.sample(1))


# --- what is wrong ---------------------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _index(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        facts = json.loads((root / "train.json").read_text())
        change(facts)
        (root / "train.json").write_text(json.dumps(facts))

    return damage


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a missing shard": (lambda root: (root / "train-000001.tar").unlink(), "1 of 3 shards are missing: train-000001"),
    "a torn shard": (lambda root: _cut(root / "train-000002.tar"), "1 of 3 shards are not whole: train-000002.tar has"),
    "no index": (lambda root: (root / "train.json").unlink(), "no finished shards of split 'train'"),
    "a torn index": (lambda root: _cut(root / "train.json"), "index of these shards is damaged"),
    "no list": (_index(lambda facts: facts.pop("ids")), "damaged"),
    "a list too short": (_index(lambda facts: facts["offsets"].pop()), "do not fit together"),
    "no shards": (_index(lambda facts: facts.update(shards=[])), "do not fit together"),
    "another JSON": (lambda root: (root / "train.json").write_text("[1]"), "damaged"),
    "a later version": (_index(lambda facts: facts.update(format=9)), "format 9"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(root: Path, name: str) -> None:
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        _shards(root)
    assert caught.value.where
    assert "zoo data shard" in caught.value.remedy


def test_only_the_shards_that_are_needed_must_be_there(root: Path) -> None:
    (root / "train-000002.tar").unlink()
    assert len(Shards("train", SIZE, count=2 * EACH, root=root)) == 2 * EACH
    with pytest.raises(DataError, match="missing"):
        Shards("train", SIZE, count=2 * EACH + 1, root=root)


def test_damage_that_shows_while_reading(root: Path) -> None:
    shards = _shards(root)
    content = bytearray((root / "train-000000.tar").read_bytes())
    content[700] ^= 4  # within the first sample's JSON: no format would notice
    (root / "train-000000.tar").write_bytes(content)
    with pytest.raises(DataError, match="not what was written") as caught:
        shards.sample(0)
    assert caught.value.where == f"{root}/train-000000.tar, coco/train2017/000000000042"
    shards.sample(1)
    _cut(root / "train-000000.tar")
    with pytest.raises(DataError, match="cut short"):
        shards.sample(2)
    (root / "train-000000.tar").unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar is missing"):
        shards.sample(1)


def test_an_index_of_other_shards(coco: Coco, root: Path) -> None:
    _index(lambda facts: facts["ids"].reverse())(root)
    with pytest.raises(DataError, match="another sample, coco/train2017/000000000042, is in its place"):
        _shards(root).sample(0)
    _index(lambda facts: facts.update(checksums=[0] * COUNT))(root)
    with pytest.raises(DataError, match="damaged"):
        _shards(root).sample(0)


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"[1, 2"), gzip.compress(b'["one"]\n')],
    ids=["no gzip", "torn line", "no captions"],  # compressed, the same bytes hold another time in another process
)
def test_captions_that_are_damaged(root: Path, content: bytes) -> None:
    (root / "train-captions.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match="captions"):
        list(_shards(root).caption_texts())


def test_captions_of_the_first_samples(coco: Coco, root: Path) -> None:
    assert list(Shards("train", SIZE, 2, root).caption_texts()) == list(coco.caption_texts())[:10]


def test_a_place_that_cannot_list_its_files_is_checked_while_reading(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "sizes", lambda self: None)
    (root / "train-000001.tar").unlink()
    shards = _shards(root)
    shards.sample(0)
    with pytest.raises(DataError, match="missing"):
        shards.sample(EACH)


def test_what_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a folder or URL"):
        open_dataset("shards", split="train", size=SIZE)
    with pytest.raises(UsageError, match="hold images of 32 pixels, not 64"):
        open_dataset("shards", split="train", size=64, root=root)
    with pytest.raises(DataError, match="split 'val' here; there are train") as caught:
        open_dataset("shards", split="val", size=SIZE, root=root)
    assert "zoo data shard" in caught.value.remedy
    with pytest.raises(DataError, match="no finished shards"):
        _shards(tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    for url in ("nosuch://bucket", "s3://bucket"):
        with pytest.raises(UsageError, match="cannot be opened"):
            _shards(url)


def test_a_place_that_cannot_be_reached(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _shards(root)
    filesystem, _ = shards.storage._filesystem()

    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(type(filesystem), "cat_file", fail)
    with pytest.raises(DataError, match="no route"):
        shards.sample(0)
    monkeypatch.setattr(type(filesystem), "exists", fail)
    with pytest.raises(DataError, match="no route"):
        _shards(root)
    monkeypatch.setattr(type(filesystem), "pipe_file", fail)
    with pytest.raises(DataError, match="cannot be written: no route"):
        shards.storage.write("a", b"")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_finished_shards_are_not_written_over(coco: Coco, root: Path) -> None:
    with pytest.raises(UsageError, match="here already"):
        write_shards(coco, root, split="train", size=SIZE)


def test_a_damaged_sample_leaves_no_index(coco: Coco, tmp_path: Path) -> None:
    coco.files(4)[0].write_bytes(coco.files(4)[0].read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        write_shards(coco, tmp_path / "out", split="train", size=SIZE, samples_per_shard=EACH)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train-000000.tar"]
    with pytest.raises(DataError, match="no finished shards"):
        _shards(tmp_path / "out")


def test_samples_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16x16, the shards are to be of 20"):
        write_shards(Pictures(), tmp_path, split="train", size=20)


def _arguments(coco: Coco, out: Path | None, *more: str) -> Namespace:
    to = [] if out is None else ["--out", str(out)]
    argv = ["shard", "coco", "--data.root", str(coco.root), "--size", str(SIZE), *to, *more]
    return data_parser().parse_all(argv)


def test_the_verb(coco: Coco, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert verb.run(_arguments(coco, out, "--split", "train", "--samples-per-shard", "4", "--limit", "6")) == 0
    printed = capsys.readouterr().out
    assert "train: 6 samples of coco at 32 pixels in 2 shards" in printed
    assert f"--data shards --data.root {out} --data.size 32" in printed
    assert len(_shards(out)) == 6
    assert verb.run(_arguments(coco, tmp_path / "all", "--split", "all")) == 0
    ids = Shards("test", SIZE, root=tmp_path / "all").ids
    assert list(ids) == list(Coco("test", SIZE, root=coco.root).ids)


def test_a_manifest_of_shards_is_that_of_the_dataset(coco: Coco, root: Path, tmp_path: Path) -> None:
    for name, place in (("coco", coco.root), ("shards", root)):
        words = ["masks", "make", "--dataset", name, "--data.root", str(place), "--split", "train"]
        words += [
            "--size",
            str(SIZE),
            "--mask",
            "2*object,instance,freeform",
            "--out",
            str(tmp_path / f"{name}.jsonl.gz"),
        ]
        assert main(words) == 0
    assert (tmp_path / "shards.jsonl.gz").read_bytes() == (tmp_path / "coco.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "a place to write to"),
        (("--out", "x", "--split", "dev"), "unknown split 'dev'"),
        (("--out", "x", "--option", "varyant=2014"), "unknown option of 'coco' 'varyant'"),
    ],
)
def test_what_the_verb_refuses(coco: Coco, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        verb.run(_arguments(coco, None, *more))


def test_png_members_are_the_pixels(coco: Coco, root: Path) -> None:
    with tarfile.open(root / "train-000000.tar") as archive:
        pixels = np.asarray(Image.open(io.BytesIO(archive.extractfile("000000001.png").read())))  # type: ignore[union-attr]
    assert np.array_equal(pixels, coco.sample(1).image)
