"""Samples kept on disk: the same in every field, mended where damaged, shared by processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fakes import picture, tiny_coco
from zoo.data import record, transforms
from zoo.data.base import Sample
from zoo.data.cache import Cache
from zoo.data.coco import Coco
from zoo.data.disk_cache import DiskCache, cache_folder
from zoo.data.masked import TrainingSet
from zoo.data.module import InpaintingData
from zoo.errors import DataError, UsageError

COUNT = 4


class Counted(Coco):
    """COCO that counts what is read from it."""

    reads = 0

    def sample(self, index: int) -> Sample:
        self.reads += 1
        return super().sample(index)


@pytest.fixture
def coco(tmp_path: Path) -> Counted:
    return Counted("train", 32, root=tiny_coco(tmp_path / "coco", count=COUNT))


@pytest.fixture
def folder(coco: Counted) -> Path:
    return cache_folder(coco, "auto", 32)


def same(one: Sample, other: Sample) -> bool:
    """Whether two samples agree in every field, bit for bit."""
    for field in fields(Sample):
        mine, others = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            if mine.dtype != others.dtype or mine.shape != others.shape or not np.array_equal(mine, others):
                return False
        elif mine != others:
            return False
    return True


def _all_same(cache: DiskCache, coco: Counted) -> bool:
    return all(same(cache.sample(i), coco.sample(i)) for i in range(len(coco)))


def _fill(coco: Counted, folder: Path) -> None:
    cache = DiskCache(coco, folder)
    for index in range(len(coco)):
        cache.sample(index)
    coco.reads = 0


def _only(folder: Path, ending: str) -> Path:
    (found,) = folder.glob(f"*{ending}")
    return found


# --- records ---------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
SAMPLES = {
    "an image alone": Sample("a/b/1", picture(7, 5)),
    "everything": Sample(
        "a/b/ä",
        picture(9, 11),
        captions=("one", "", 'ünï "quoted"\n'),
        boxes=RNG.uniform(0, 9, (3, 4)).astype(np.float32),
        segments=RNG.random((3, 9, 11)) > 0.5,
        segmentation=RNG.integers(0, 256, (9, 11)).astype(np.uint8),
        mask=RNG.integers(0, 2, (9, 11)).astype(np.uint8),
    ),
    "no objects": Sample("a/b/2", picture(8, 8), segments=np.zeros((0, 8, 8), np.bool_)),
    "one row": Sample("a/b/3", picture(1, 3), segments=np.ones((1, 1, 3), np.bool_)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_record_holds_every_field(name: str) -> None:
    sample = SAMPLES[name]
    content = record.pack(sample)
    back = record.unpack(memoryview(content))
    assert same(back, sample)
    assert not back.image.flags.writeable
    assert back.boxes.flags.writeable
    if sample.segments is not None and len(sample.segments):
        assert len(content) < sum(a.nbytes for a in (sample.image, sample.segments)) + 2000


# --- reading and filling ---------------------------------------------------------------------------------------------


def test_later_visits_read_from_disk(coco: Counted, folder: Path) -> None:
    want = [coco.sample(i) for i in range(COUNT)]
    coco.reads = 0
    cache = DiskCache(coco, folder)
    for _ in range(3):
        assert all(same(cache.sample(i), want[i]) for i in range(COUNT))
    assert coco.reads == COUNT
    again = DiskCache(coco, folder)
    assert all(same(again.sample(i), want[i]) for i in range(COUNT))
    assert coco.reads == COUNT


def test_where_it_is_and_what_is_in_it(coco: Counted, folder: Path, tmp_path: Path) -> None:
    _fill(coco, folder)
    assert folder.parent == coco.root / ".zoo"
    assert folder.name.startswith("cache-32-")
    about = json.loads((folder / "about.json").read_text())
    assert (about["dataset"], about["size"]) == ("coco", 32)
    assert [name for name, *_ in about["shared"]] == [
        "annotations/captions_train2017.json",
        "annotations/instances_train2017.json",
    ]
    lines = _only(folder, ".index").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == list(coco.ids)
    assert cache_folder(coco, tmp_path / "mine", 32) == tmp_path / "mine" / folder.name


def test_another_process_finds_what_was_added_meanwhile(coco: Counted, folder: Path) -> None:
    first, second = DiskCache(coco, folder), DiskCache(coco, folder)
    first.sample(0)
    second.sample(0)
    assert coco.reads == 1


def test_it_can_be_copied_to_another_process(coco: Counted, folder: Path) -> None:
    cache = DiskCache(coco, folder)
    cache.sample(0)
    copy = pickle.loads(pickle.dumps(cache))
    copy.dataset.reads = 0
    assert same(copy.sample(0), coco.sample(0))
    assert copy.dataset.reads == 0


def _read_all(coco: Counted, folder: Path, order: list[int], results: Any) -> None:
    cache = DiskCache(coco, folder)
    results.put([hash(cache.sample(i).image.tobytes()) for i in order])


def test_processes_fill_it_together(coco: Counted, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    orders = [list(range(COUNT)), list(range(COUNT))[::-1], list(range(COUNT)) * 2]
    workers = [context.Process(target=_read_all, args=(coco, folder, order, results)) for order in orders]
    for worker in workers:
        worker.start()
    found = sorted((results.get(timeout=60) for _ in workers), key=len)
    for worker in workers:
        worker.join()
    want = [hash(coco.sample(i).image.tobytes()) for i in range(COUNT)]
    assert all(sorted(set(hashes)) == sorted(set(want)) for hashes in found)
    coco.reads = 0
    assert _all_same(DiskCache(coco, folder), coco)
    assert coco.reads == COUNT  # those of the comparison


def test_a_forked_worker_writes_to_a_file_of_its_own(coco: Counted, folder: Path) -> None:
    cache = DiskCache(coco, folder)
    cache.sample(0)
    worker = multiprocessing.get_context("fork").Process(target=cache.sample, args=(1,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert len(list(folder.glob("*.data"))) == 2
    cache.sample(1)
    assert coco.reads == 1


# --- what makes a sample out of date ---------------------------------------------------------------------------------


def test_a_changed_image_is_decoded_again(coco: Counted, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    _fill(coco, folder)
    Image.fromarray(picture(60, 80, 7)).save(coco.files(1)[0], quality=90)
    cache = DiskCache(coco, folder)
    assert _all_same(cache, coco)
    assert coco.reads == COUNT + 1
    coco.reads = 0
    assert _all_same(DiskCache(coco, folder), coco)
    assert coco.reads == COUNT
    assert caplog.records == []  # nothing was damaged


def test_a_file_that_is_gone_is_the_datasets_error(coco: Counted, folder: Path) -> None:
    _fill(coco, folder)
    coco.files(2)[0].unlink()
    with pytest.raises(DataError, match="no image here"):
        DiskCache(coco, folder).sample(2)


def test_everything_that_decides_is_in_the_folders_name(
    coco: Counted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(size: int = 32, **options: Any) -> bool:
        return cache_folder(coco, "auto", size, options) != folder

    assert not other()
    assert not other(variant=None)
    assert other(variant="2017")
    assert other(48)
    for module in (transforms, record):
        with monkeypatch.context() as patched:
            patched.setattr(module, "VERSION", module.VERSION + 1)
            assert other()
    path = coco.shared_files[0]
    path.write_text(path.read_text() + "\n")
    assert other()


# --- damage ----------------------------------------------------------------------------------------------------------


def _flip(folder: Path) -> None:
    path = _only(folder, ".data")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(folder: Path) -> None:
    path = _only(folder, ".data")
    path.write_bytes(path.read_bytes()[:-100])


def _garble(folder: Path) -> None:
    path = _only(folder, ".index")
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], b"{not json", *lines[2:]]) + b"\n")


def _misplace(folder: Path) -> None:
    path = _only(folder, ".index")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1][1] = lines[2][1]  # the place of another sample
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


DAMAGES: dict[str, tuple[Callable[[Path], None], int]] = {
    "a bit": (_flip, 1),
    "an end that is missing": (_cut, 1),
    "an empty file": (lambda folder: _only(folder, ".data").write_bytes(b""), COUNT),  # type: ignore[dict-item]
    "no file": (lambda folder: _only(folder, ".data").unlink(), COUNT),
    "a line of the index": (_garble, 1),
    "another place": (_misplace, 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_mended_and_said_once(
    coco: Counted, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    _fill(coco, folder)
    damage, lost = DAMAGES[name]
    damage(folder)
    assert _all_same(DiskCache(coco, folder), coco)
    assert coco.reads == COUNT + lost
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "is damaged" in line
    assert str(folder) in line
    coco.reads = 0
    assert _all_same(DiskCache(coco, folder), coco)
    assert coco.reads == COUNT  # what was written anew is found first


def test_damage_is_a_line_on_stderr(coco: Counted) -> None:
    larger = Counted("train", 48, root=coco.root)  # Pillow resizes to this size: the process need not import torch
    folder = cache_folder(larger, "auto", 48)
    _fill(larger, folder)
    _flip(folder)
    code = (
        "import sys; from pathlib import Path\n"
        "from zoo.data.coco import Coco; from zoo.data.disk_cache import DiskCache\n"
        "coco = Coco('train', 48, root=sys.argv[1]); cache = DiskCache(coco, Path(sys.argv[2]))\n"
        "[cache.sample(i) for i in range(len(coco))]; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(coco.root), str(folder)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"
    (line,) = done.stderr.splitlines()
    assert "is damaged and is made again" in line


def test_a_line_that_a_stopped_process_left_unfinished(
    coco: Counted, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(coco, folder)
    path = _only(folder, ".index")
    path.write_bytes(path.read_bytes()[:-20])
    assert _all_same(DiskCache(coco, folder), coco)
    assert coco.reads == COUNT + 1
    assert caplog.records == []


def test_a_full_disk_stops_writing_and_not_the_run(
    coco: Counted, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    assert _all_same(DiskCache(coco, folder), coco)
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "No space left" in line
    assert list(folder.glob("*.index")) == []


def test_the_folder_may_be_deleted(coco: Counted, folder: Path) -> None:
    cache = DiskCache(coco, folder)
    cache.sample(0)
    shutil.rmtree(folder)
    assert _all_same(cache, coco)


def test_what_cannot_be_kept(coco: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="which files"):
        InpaintingData("tests.fakes:Pictures", size=16, cache_dir="auto").train_dataloader()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made") as caught:
        cache_folder(coco, tmp_path / "file", 32)
    assert "--data.cache_dir" in caught.value.remedy
    monkeypatch.setattr(coco, "shared_files", (tmp_path / "none.json",))
    with pytest.raises(DataError, match="cannot be looked at"):
        cache_folder(coco, "auto", 32)


# --- on the way to a method ------------------------------------------------------------------------------------------


def _batches(root: Path, **options: Any) -> list[dict[str, Any]]:
    data = InpaintingData("coco", root=str(root), size=32, batch_size=2, train_mask="freeform,object", **options)
    loader = data.train_dataloader()
    return [batch for _ in range(2) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_it(coco: Counted, workers: int) -> None:
    want = _batches(coco.root, cache_mb=0)
    for _ in range(2):
        found = _batches(coco.root, cache_mb=0, cache_dir="auto", workers=workers)
        assert len(found) == len(want)
        for one, other in zip(found, want, strict=True):
            assert (one["id"], one["caption"]) == (other["id"], other["caption"])
            assert all(torch.equal(one[k], other[k]) for k in ("image", "mask", "segmentation"))
    lines = [line for path in (coco.root / ".zoo").rglob("*.index") for line in path.read_text().splitlines()]
    assert {json.loads(line)[0] for line in lines} == set(coco.ids)


def test_validation_is_kept_too(tmp_path: Path) -> None:
    data = InpaintingData("coco", root=str(tiny_coco(tmp_path / "b")), size=32, cache_dir=str(tmp_path / "kept"))
    first = [batch["id"] for batch in data.val_dataloader()]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert [batch["id"] for batch in data.val_dataloader()] == first


def test_memory_reads_the_disk_once(coco: Counted, folder: Path) -> None:
    _fill(coco, folder)
    cache = Cache(coco, 10, DiskCache(coco, folder))
    samples = [cache.sample(i) for i in range(COUNT)]
    assert [cache.sample(i) for i in range(COUNT)] == samples
    assert coco.reads == 0
    item = TrainingSet(coco, "center", disk=DiskCache(coco, folder)).visit(0, 0)
    item["image"].zero_()
    item["segmentation"].zero_()
    assert same(DiskCache(coco, folder).sample(0), coco.sample(0))


def test_it_never_writes_outside_its_folder(coco: Counted, folder: Path) -> None:
    before = {path for path in coco.root.rglob("*") if ".zoo" not in path.parts}
    _fill(coco, folder)
    assert {path for path in coco.root.rglob("*") if ".zoo" not in path.parts} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_with_masks_and_captions(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / "masks").mkdir(parents=True)
    hole = np.zeros((40, 50), np.uint8)
    hole[10:20, 5:30] = 255
    for name in ("a", "b"):
        Image.fromarray(picture(40, 50)).save(root / f"{name}.png")
        Image.fromarray(hole).save(root / "masks" / f"{name}.png")
    lines = [json.dumps({"file": f"{name}.png", "caption": f"this is {name}"}) for name in "ab"]
    (root / "captions.jsonl").write_text("\n".join(lines))
    options: dict[str, Any] = {"root": str(root), "size": 32, "mask": "file", "batch_size": 1, "cache_dir": "auto"}
    first = [(b["id"], b["caption"], b["mask"].sum()) for b in InpaintingData("folder", **options).test_dataloader()]
    assert first == [
        (b["id"], b["caption"], b["mask"].sum()) for b in InpaintingData("folder", **options).test_dataloader()
    ]
    assert len(list((root / ".zoo").iterdir())) == 1
    Image.fromarray(255 - hole).save(root / "masks" / "b.png")
    changed = InpaintingData("folder", **options, mask_invert=False)
    sums = [int(batch["mask"].sum()) for batch in changed.test_dataloader()]
    assert sums[0] == int(first[0][2])
    assert sums[1] != int(first[1][2])
    assert len(list((root / ".zoo").iterdir())) == 2  # another way to read masks is another cache
    (root / "captions.jsonl").write_text("\n".join(lines).replace("this is", "that is"))
    spoken = [batch["caption"] for batch in InpaintingData("folder", **options, mask_invert=False).test_dataloader()]
    assert spoken == [["that is a"], ["that is b"]]
