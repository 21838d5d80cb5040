"""Scenery's layout: the keyed split, folders, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.scenery import scenery_tree
from zoo.data.scenery import Scenery, _parted
from zoo.errors import DataError, UsageError


def test_splits_and_ids(tmp_path: Path) -> None:
    root = scenery_tree(tmp_path, 4)
    train, test = (Scenery(split, size=24, root=root) for split in ("train", "test"))
    assert (len(train), len(test)) == (20, 4)
    assert list(Scenery("val", root=root).ids) == list(test.ids)
    names = {i.removeprefix("scenery/train/").removeprefix("scenery/test/") for i in (*train.ids, *test.ids)}
    assert names == {str(n) for n in range(1, 25)}
    assert (train.official, test.official) == (5_040, 1_000)
    assert train.provides == {"image", "mask", "edge"}
    assert test.sample(0).image.shape == (24, 24, 3)
    height, width, _ = Scenery("test", size=None, root=root).sample(0).image.shape
    assert (height < 36, width >= 90) == (True, True)
    assert len(Scenery("train", root=root, count=7)) == 7
    assert test.files(0)[0].parent == root / "scenery"


def test_the_split_of_the_whole_dataset() -> None:
    files = {str(n): Path(f"{n}.jpg") for n in range(6_040)}
    train, test = _parted(files, "train"), _parted(files, "test")
    assert (len(train), len(test)) == (5_040, 1_000)
    assert train | test == files
    assert list(_parted(dict(reversed(files.items())), "test")) == list(reversed(test))  # whatever the order
    assert list(test)[:5] == ["0", "9", "10", "12", "15"]  # fixed: numbers are measured on it


def test_images_in_the_root_itself(tmp_path: Path) -> None:
    root = scenery_tree(tmp_path, 2) / "scenery"
    assert list(Scenery("test", root=root).ids) == list(Scenery("test", root=tmp_path).ids)


def test_a_split_in_folders(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 3)):
        (tmp_path / part).mkdir()
        for number in range(count):
            Image.fromarray(picture(30, 50, number)).save(tmp_path / part / f"{part}_{number}.png")
    train, val = (Scenery(split, size=16, root=tmp_path, variant="folders") for split in ("train", "val"))
    assert list(train.ids) == [f"scenery/train/train_{n}" for n in range(5)]
    assert list(val.ids) == [f"scenery/test/test_{n}" for n in range(3)]
    assert (train.official, val.official) == (None, None)
    assert val.sample(2).image.shape == (16, 16, 3)
    with pytest.raises(DataError, match="no images in this folder") as caught:
        Scenery("train", root=tmp_path)
    assert "--data.variant folders" in caught.value.remedy
    with pytest.raises(UsageError, match="unknown variant"):
        Scenery("train", root=tmp_path, variant="random")


# --- bad input -------------------------------------------------------------------------------------------------------


def _few(root: Path) -> None:
    for path in sorted((root / "scenery").iterdir())[2:]:
        path.unlink()


BAD: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "no folder": (lambda root: (root / "scenery").rename(root / "x"), {}, "no images in this folder"),
    "too few images": (_few, {}, "too few images for split 'test'"),
    "two images of one name": (
        lambda root: Image.new("RGB", (9, 9)).save(root / "scenery/7.png"),
        {},
        "two pictures have the name '7': 7.jpg and 7.png",
    ),
    "no folder of the split": (lambda root: None, {"variant": "folders"}, "folder of split 'test', 'test', is missing"),
    "an empty folder of the split": (lambda root: (root / "test").mkdir(), {"variant": "folders"}, "no images in this"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = scenery_tree(tmp_path, 2)
    assert len(Scenery("test", root=root)) == 2
    damage, options, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Scenery("test", root=root, **options)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root_and_a_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Scenery folder") as caught:
        Scenery("test", root=tmp_path / "none")
    assert "NS-Outpainting" in caught.value.remedy
    test = Scenery("test", size=16, root=scenery_tree(tmp_path, 1))
    path = test.files(0)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read") as caught:
        test.sample(0)
    assert caught.value.where == str(path)
