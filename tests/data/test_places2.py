"""Places365-Standard's layout: lists, splits, variants, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.places2 import places2_tree
from zoo.data.places2 import Places2
from zoo.errors import DataError, UsageError

VAL, TRAIN, CATEGORIES = "places365_val.txt", "places365_train_standard.txt", "categories_places365.txt"


def test_splits_and_ids(tmp_path: Path) -> None:
    root = places2_tree(tmp_path, 5)
    val = Places2("val", size=24, root=root)
    assert list(val.ids) == [f"places2/val/Places365_val_{n:08d}" for n in range(1, 6)]
    assert list(Places2("test", root=root).ids) == list(val.ids)
    train = Places2("train", size=24, root=root)
    assert list(train.ids)[:3] == [
        "places2/train/a/airfield/00000001",
        "places2/train/a/apartment_building/outdoor/00000001",
        "places2/train/z/zen_garden/00000001",
    ]
    assert [Places2(s, root=root).official for s in ("train", "val", "test")] == [1_803_460, 36_500, 36_500]
    assert train.provides == {"image", "mask", "edge"}
    assert train.classes == ()
    sample = val.sample(1)
    assert (sample.id, sample.image.shape) == (val.ids[1], (24, 24, 3))
    assert Places2("val", size=None, root=root).sample(1).image.shape == (50, 49, 3)
    assert val.files(1) == (root / "val_256/Places365_val_00000002.jpg",)
    assert {path.name for path in val.shared_files} == {VAL, CATEGORIES}


def test_ids_are_a_sequence(tmp_path: Path) -> None:
    ids = Places2("val", root=places2_tree(tmp_path, 5)).ids
    assert len(ids) == 5
    assert ids[-1] == "places2/val/Places365_val_00000005"
    assert list(ids[1:3]) == list(ids)[1:3]
    assert "places2/val/Places365_val_00000002" in ids
    with pytest.raises(IndexError):
        ids[5]


def test_count_takes_the_first_and_asks_for_no_more(tmp_path: Path) -> None:
    root = places2_tree(tmp_path, 5)
    (root / "val_256/Places365_val_00000004.jpg").unlink()
    assert len(Places2("val", root=root, count=3)) == 3
    with pytest.raises(DataError, match="1 of 4 images"):
        Places2("val", root=root, count=4)


def test_variants_and_folders(tmp_path: Path) -> None:
    root = places2_tree(tmp_path, 3)
    (root / "data_256").rename(root / "data_256_standard")  # as torchvision renames it
    assert Places2("train", root=root, size=16).sample(2).image.shape == (16, 16, 3)
    with pytest.raises(DataError, match="'val_large', is missing"):
        Places2("val", root=root, variant="large")
    (root / "val_large").mkdir()
    for number in range(1, 4):
        Image.fromarray(picture(60, 80, number)).save(root / f"val_large/Places365_val_{number:08d}.jpg")
    large = Places2("val", root=root, size=None, variant="large")
    assert large.sample(0).image.shape == (60, 80, 3)
    assert list(large.ids) == list(Places2("val", root=root).ids)
    with pytest.raises(UsageError, match="unknown variant"):
        Places2("val", root=root, variant="512")


def test_sources_of_a_variant() -> None:
    for variant in (None, "256", "large"):
        files = {source.file for source in Places2.sources_for(variant)}
        of = variant or "256"
        assert files == {"filelist_places365-standard.tar", f"val_{of}.tar", f"train_{of}_places365standard.tar"}
    assert all(len(source.sha256) == 64 for source in Places2.sources)


# --- bad input -------------------------------------------------------------------------------------------------------


def _append(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text((root / name).read_text() + text, encoding="utf-8")


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no list": ("val", lambda root: (root / VAL).unlink(), "places365_val.txt is missing"),
    "no training list": ("train", lambda root: (root / TRAIN).unlink(), "places365_train_standard.txt is missing"),
    "no categories": ("val", lambda root: (root / CATEGORIES).unlink(), "categories_places365.txt is missing"),
    "no images": ("val", lambda root: (root / "val_256").rename(root / "x"), "folder of the images, 'val_256'"),
    "no training images": ("train", lambda root: (root / "data_256").rename(root / "x"), "'data_256', is missing"),
    "an absent image": (
        "val",
        lambda root: (root / "val_256/Places365_val_00000002.jpg").unlink(),
        "1 of 6 images .* absent: Places365_val_00000002.jpg",
    ),
    "an absent category": (
        "train",
        lambda root: (root / "data_256/z").rename(root / "data_256/y"),
        "2 of 6 images .* absent: z/zen_garden/00000001.jpg",
    ),
    "an empty list": ("val", lambda root: (root / VAL).write_text(""), "places365_val.txt is empty"),
    "a binary list": ("val", lambda root: (root / VAL).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "a line cut short": ("val", _append(VAL, "Places365_val_000000"), "line 7 is not 'IMAGE.jpg NUMBER'"),
    "an image without category": ("val", _append(VAL, "Places365_val_00000007.jpg"), "line 7 is not"),
    "a way out of the folder": ("train", _append(TRAIN, "/../x.jpg 0"), "line 7 is not"),
    "an unknown category": ("val", _append(VAL, "Places365_val_00000007.jpg 365"), "line 7 is of category 365"),
    "an image twice": ("val", _append(VAL, "Places365_val_00000003.jpg 2"), "1 images again, such as .*00000003.jpg"),
    "another category's folder": ("train", _append(TRAIN, "/a/airfield/00000001.jpg 2"), "puts 'a/airfield' into"),
    "categories cut short": ("val", _append(CATEGORIES, "/z/zoo"), "line 4 is not '/a/airfield 0'"),
    "a category's number again": ("val", _append(CATEGORIES, "/z/zoo 2"), "line 4 is not"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = places2_tree(tmp_path, 6)
    split, damage, message = BAD[name]
    assert len(Places2(split, root=root)) == 6
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Places2(split, root=root)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root_and_a_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Places2 folder") as caught:
        Places2("val", root=tmp_path / "none")
    assert "prepare places2 --download --only filelist,val" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/places2" in caught.value.remedy
    root = places2_tree(tmp_path, 2)
    path = root / "val_256/Places365_val_00000001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    val = Places2("val", size=16, root=root)
    with pytest.raises(DataError, match="cannot be read"):
        val.sample(0)
    assert np.ptp(val.sample(1).image) > 50
