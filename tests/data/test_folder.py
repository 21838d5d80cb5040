"""Folders of one's own pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from zoo.data import open_dataset
from zoo.data.folder import Folder
from zoo.data.info import describe
from zoo.errors import DataError, UsageError


def _fill(root: Path, names: tuple[str, ...] = ("b.png", "a.jpg"), masks: bool = False) -> Path:
    for n, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(40, 60, n)).save(path)
        if masks:
            mask = np.zeros((40, 60), np.uint8)
            mask[10:20, 25:45] = 255
            place = (root / "masks" / name).with_suffix(".png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(place)
    return root


def _captions(root: Path, *entries: object) -> None:
    (root / "captions.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def test_images_alone(tmp_path: Path) -> None:
    folder = Folder(root=_fill(tmp_path), size=32)
    assert list(folder.ids) == ["folder/all/a", "folder/all/b"]
    assert folder.provides == {"image", "mask", "edge"}
    sample = folder.sample(1)
    assert sample.image.shape == (32, 32, 3)
    assert (sample.captions, sample.mask, len(sample.boxes)) == ((), None, 0)


def test_native_size(tmp_path: Path) -> None:
    dataset = open_dataset("folder", root=_fill(tmp_path, masks=True), size=None)
    sample = dataset.sample(1)
    assert np.array_equal(sample.image, picture(40, 60, 0))
    assert sample.mask is not None
    assert sample.mask.sum() == 200


def test_masks_move_with_their_image(tmp_path: Path) -> None:
    sample = Folder(root=_fill(tmp_path, masks=True), size=20).sample(0)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 8:18] = 1  # halved, then 5 columns cropped away: 12.5..22.5 grows outward to 7 or 8..18
    assert sample.mask is not None
    assert sample.mask[5:10, 8:17].all()
    assert abs(int(sample.mask.sum()) - int(mask.sum())) <= 5


def test_captions_one_or_many(tmp_path: Path) -> None:
    _captions(_fill(tmp_path), {"file": "a.jpg", "caption": " a cat "}, {"file": "b", "captions": ["b", "a dög"]})
    folder = Folder(root=tmp_path)
    assert [folder.sample(i).captions for i in range(2)] == [("a cat",), ("b", "a dög")]
    assert "caption" in folder.provides


def test_folders_below_hidden_files_and_other_files(tmp_path: Path) -> None:
    _fill(tmp_path, ("x/a.png", "y/a.png", ".hidden/b.png"), masks=True)
    (tmp_path / "x" / "notes.txt").write_text("notes")
    _captions(tmp_path, {"file": "x/a.png", "caption": "x"}, {"file": "y/a.png", "caption": "y"})
    folder = Folder(root=tmp_path, count=1)
    assert list(folder.ids) == ["folder/all/x/a"]
    assert folder.skipped == 1
    assert folder.sample(0).captions == ("x",)
    assert describe("folder", tmp_path)["splits"]["test"] == {
        "count": 2,
        "provides": ["caption", "edge", "image", "mask"],
        "classes": 0,
        "skipped": 1,
    }


def test_a_mask_folder_elsewhere_or_inside(tmp_path: Path) -> None:
    _fill(tmp_path, masks=True)
    (tmp_path / "masks").rename(tmp_path / "holes")
    folder = open_dataset("folder", root=tmp_path, mask_root=tmp_path / "holes")
    assert len(folder) == 2
    assert folder.sample(0).mask is not None


def test_splits_of_their_own(tmp_path: Path) -> None:
    _fill(tmp_path / "train")
    _fill(tmp_path / "val", ("c.png",), masks=True)
    assert list(Folder("val", root=tmp_path).ids) == ["folder/val/c"]
    assert Folder("train", root=tmp_path).ids[0] == "folder/train/a"
    with pytest.raises(DataError, match="has train and val, but no 'test'"):
        Folder("test", root=tmp_path)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a folder"):
        Folder()
    with pytest.raises(DataError, match="no such folder"):
        Folder(root=tmp_path / "none")
    with pytest.raises(DataError, match=r"no images in this folder \(0 files"):
        Folder(root=tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"\(1 files of other kinds\)"):
        Folder(root=tmp_path)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'a': a.jpg and a.png"):
        Folder(root=_fill(tmp_path, ("a.png", "a.jpg")))


def test_images_without_masks_are_listed(tmp_path: Path) -> None:
    _fill(tmp_path, masks=True)
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match="1 of 2 images have no mask: b"):
        Folder(root=tmp_path)
    with pytest.raises(DataError, match="no folder of masks"):
        Folder(root=tmp_path, mask_root=tmp_path / "none")


def test_a_mask_of_another_size_names_its_file(tmp_path: Path) -> None:
    _fill(tmp_path, masks=True)
    Image.new("L", (30, 20)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="30x20, its image 60x40") as caught:
        Folder(root=tmp_path).sample(0)
    assert caught.value.where.endswith(os.path.join("masks", "a.png"))  # noqa: PTH118


def test_grey_and_inverted_masks_need_an_option(tmp_path: Path) -> None:
    _fill(tmp_path, masks=True)
    mask = np.full((40, 60), 250, np.uint8)
    mask[10:20, 25:45] = 5
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="grey"):
        Folder(root=tmp_path).sample(0)
    with pytest.raises(DataError, match="inverted"):
        Folder(root=tmp_path, mask_threshold=128).sample(0)
    sample = Folder(root=tmp_path, size=None, mask_threshold=128, mask_invert=True).sample(0)
    assert sample.mask is not None
    assert sample.mask.sum() == 200


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"file": "a.jpg", "caption": "a"}], "1 images have no caption: b"),
        ([{"file": f, "caption": "a"} for f in ("a.jpg", "b.png", "c.png")], "1 captions are of no image: c.png"),
        ([{"file": "a.jpg"}], "no caption: 'caption'"),
        ([{"file": "a.jpg", "caption": ""}], "not empty"),
        ([{"file": "a.jpg", "captions": []}], "not empty"),
        ([{"file": 3, "caption": "a"}], "not empty"),
        ([["a.jpg", "a"]], "no caption"),
    ],
)
def test_captions_that_do_not_fit(tmp_path: Path, entries: list[object], message: str) -> None:
    _captions(_fill(tmp_path), *entries)
    with pytest.raises(DataError, match=message) as caught:
        Folder(root=tmp_path)
    assert "captions.jsonl" in caught.value.where


def test_a_damaged_captions_file_names_the_line(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "captions.jsonl").write_text('{"file": "a.jpg", "caption": "a"}\n\n{"file": "b.p')
    with pytest.raises(DataError, match="no caption") as caught:
        Folder(root=tmp_path)
    assert caught.value.where.endswith("line 3")
    (tmp_path / "captions.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        Folder(root=tmp_path)
