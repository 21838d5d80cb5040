"""The index of hashes, and checking a split against it and against its official number of images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import Pictures
from tests.trees.coco import coco_tree
from tests.trees.cub import cub_tree
from zoo.data import open_dataset
from zoo.data.base import Dataset
from zoo.data.check import Checked, Findings, check_split
from zoo.data.folder import Folder
from zoo.data.index import Entry, entry_of, index_path, read_index, write_index
from zoo.errors import DataError, UsageError


def test_entries_and_where_they_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg").write_bytes(b"abc")
    entry = entry_of(tmp_path / "a" / "b.jpg", tmp_path, "set/a/b")
    assert entry == Entry("set/a/b", "a/b.jpg", 3, hashlib.sha256(b"abc").hexdigest())
    assert entry_of(tmp_path / "a" / "b.jpg", tmp_path / "other", "x").file == (tmp_path / "a" / "b.jpg").as_posix()
    with pytest.raises(DataError, match="cannot be read"):
        entry_of(tmp_path / "none", tmp_path, "x")
    path = index_path(tmp_path, "val", {})
    assert path == tmp_path / ".zoo" / "index-val.jsonl"
    other = index_path(tmp_path, "val", {"variant": "2014", "ids_file": "/x/y z.txt"})
    assert other.name == "index-val-ids_file=_x_y_z.txt-variant=2014.jsonl"
    assert read_index(path) == {}
    write_index(path, [Entry("2", "ü.jpg", 1, "0" * 64), entry])
    assert read_index(path) == {"a/b.jpg": entry, "ü.jpg": Entry("2", "ü.jpg", 1, "0" * 64)}
    assert json.loads(path.read_text().splitlines()[0]) == {
        "id": "set/a/b",
        "file": "a/b.jpg",
        "size": 3,
        "sha256": entry.sha256,
    }
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing temporary stays"


@pytest.mark.parametrize("line", ["{", "[1]", '{"id": "x"}', '{"id": 1, "file": 2, "size": 3, "sha256": 4, "more": 5}'])
def test_a_damaged_index(tmp_path: Path, line: str) -> None:
    path = tmp_path / "index.jsonl"
    write_index(path, [Entry("", "a", 1, "0")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match="line of the index is damaged") as caught:
        read_index(path)
    assert caught.value.where.endswith("line 2")
    assert "--reindex" in caught.value.remedy


def test_what_tells_two_entries_apart() -> None:
    entry = Entry("x", "a", 3, "0" * 64)
    assert entry.problem(entry) == ""
    assert "4 bytes, the index says 3" in Entry("x", "a", 4, "0" * 64).problem(entry)
    assert "111111111111..., the index says 000000000000..." in Entry("x", "a", 3, "1" * 64).problem(entry)


def _check(root: Path, limit: int | None = None, **more: int | bool) -> Findings:
    dataset = open_dataset("cub", split="test", root=root, size=32, count=limit)
    return check_split(dataset, root, "test", {}, limit=limit, **more)  # type: ignore[arg-type]


def test_a_check_makes_the_index_and_completes_it(tmp_path: Path) -> None:
    root = cub_tree(tmp_path)
    first = _check(root, limit=4)
    path = root / ".zoo" / "index-test.jsonl"
    assert (first.n, first.official, first.damaged, first.changed) == (4, 4, [], [])
    assert first.index == str(path)
    assert len(read_index(path)) == 4 * 3 + 3, "image, captions, outline; and three lists"
    before = read_index(path)
    whole = _check(root)
    assert (whole.n, whole.official, whole.wrong_count) == (12, 5_794, True)
    after = read_index(path)
    assert len(after) == 12 * 3 + 3
    assert {file: after[file] for file in before} == before
    assert [entry.id for entry in after.values()].count("") == 3
    content = path.read_bytes()
    _check(root)
    assert path.read_bytes() == content


def test_more_processes_find_the_same(tmp_path: Path) -> None:
    root = cub_tree(tmp_path)
    dataset = open_dataset("cub", split="test", root=root, size=32)
    path = Path(dataset.files(3)[0])  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:200])
    told: list[list[str]] = [[], []]
    found = [
        check_split(
            dataset, root, "test", {}, workers=workers, tell=lambda done, c, w=workers: told[w // 2].append(c.id)
        )
        for workers in (0, 2)
    ]
    assert found[0] == found[1]
    assert [entry["id"] for entry in found[1].damaged] == [dataset.ids[3]]
    assert "cannot be read" in found[1].damaged[0]["error"]
    assert told[0] == told[1] == list(dataset.ids)


def test_changes_are_found_until_they_are_meant(tmp_path: Path) -> None:
    root = cub_tree(tmp_path)
    _check(root)
    captions = sorted((root / "cvpr2016_cub").rglob("*_0004_*.txt"))[0]
    captions.write_text(captions.read_text().replace("beak", "tail"))
    boxes = root / "CUB_200_2011" / "bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace("25.5", "24.5"))
    for _ in range(2):
        found = _check(root)
        files = {entry["file"]: (entry["id"], entry["error"]) for entry in found.changed}
        assert set(files) == {boxes.relative_to(root).as_posix(), captions.relative_to(root).as_posix()}
        assert files[boxes.relative_to(root).as_posix()][0] == ""
        assert "hash" in files[captions.relative_to(root).as_posix()][1]
        assert found.damaged == []
    assert _check(root, reindex=True).changed == []
    assert _check(root).changed == []
    with pytest.raises(UsageError, match="from all samples"):
        _check(root, limit=2, reindex=True)


def test_a_file_that_cannot_be_read_is_not_indexed(tmp_path: Path) -> None:
    root = cub_tree(tmp_path)
    path = sorted((root / "CUB_200_2011" / "images").rglob("*_0004_*.jpg"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:200])
    assert len(_check(root).damaged) == 1
    assert path.relative_to(root).as_posix() not in read_index(root / ".zoo" / "index-test.jsonl")
    path.write_bytes(content)
    assert _check(root).damaged == []
    assert path.relative_to(root).as_posix() in read_index(root / ".zoo" / "index-test.jsonl")


def test_files_that_are_gone(tmp_path: Path) -> None:
    root = coco_tree(tmp_path)
    for kind in ("captions", "instances"):  # a list that is shorter now
        path = root / "annotations" / f"{kind}_val2017.json"
        content = json.loads(path.read_text())
        gone = content["images"].pop()["id"]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != gone]
        short = json.dumps(content)
        if kind == "captions":
            whole = open_dataset("coco", split="val", root=root)
            check_split(whole, root, "val", {})
        path.write_text(short)
    (root / "val2017" / f"{gone:012d}.jpg").unlink()
    found = check_split(open_dataset("coco", split="val", root=root), root, "val", {})
    problems = {entry["file"]: entry["error"] for entry in found.changed}
    assert problems[f"val2017/{gone:012d}.jpg"] == "the file is gone"
    assert len(problems) == 3


class Silent(Folder):
    """A dataset that does not say which files its samples are in."""

    files = None  # type: ignore[assignment]


def test_a_dataset_that_does_not_name_its_files_is_indexed_whole(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "masks/a.png", ".hidden/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    (tmp_path / "masks" / "b.png").write_bytes((tmp_path / "masks" / "a.png").read_bytes())
    folder = Silent("test", size=8, root=tmp_path)
    found = check_split(folder, tmp_path, "test", {})
    assert found.official is None
    assert set(read_index(tmp_path / ".zoo" / "index-test.jsonl")) == {"a.png", "b.png", "masks/a.png", "masks/b.png"}
    Image.new("L", (8, 8), 9).save(tmp_path / "a.png")
    assert [entry["file"] for entry in check_split(folder, tmp_path, "test", {}).changed] == ["a.png"]
    assert check_split(folder, tmp_path, "test", {}, limit=1).changed == [], "a part is not worth reading all for"


def test_a_dataset_without_files_has_no_index() -> None:
    told: list[Checked] = []
    found = check_split(Pictures("test", bad=3), None, "test", {}, tell=lambda done, checked: told.append(checked))
    assert (found.n, found.index, found.note, found.wrong_count) == (12, "", "", False)
    assert [entry["id"] for entry in found.damaged] == ["pictures/test/003"]
    assert len(told) == 12


class Unruly(Pictures):
    """A dataset that does not name its samples in errors."""

    def sample(self, index: int) -> None:  # type: ignore[override]
        raise ValueError("cannot reshape")


def test_errors_without_a_name_get_one() -> None:
    dataset: Dataset = Unruly("test", count=1)  # type: ignore[assignment]
    found = check_split(dataset, None, "test", {})
    assert "cannot reshape" in found.damaged[0]["error"]
    assert "pictures/test/000" in found.damaged[0]["error"]


def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zoo.data.check.write_index", refuse)
    found = _check(cub_tree(tmp_path))
    assert (found.index, found.note) == ("", "no index is kept: Permission denied")
    assert found.damaged == []
