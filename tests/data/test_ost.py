"""OST's layout: splits, variants, classes, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.ost import CATEGORIES, landscape, ost_tree
from zoo.data.ost import CLASSES, OutdoorScenes
from zoo.errors import DataError, UsageError

IMAGES, MAPS = "OutdoorSceneTest300", "OutdoorSceneTest300_anno"


def test_splits_and_ids(tmp_path: Path) -> None:
    root = ost_tree(tmp_path, 4)
    train, test = (OutdoorScenes(split, size=24, root=root) for split in ("train", "test"))
    assert list(train.ids) == [f"ost/seg/ADE_train_{n:08d}" for n in range(1, 5)]
    assert list(test.ids) == [f"ost/test300/OST_{n:03d}" for n in range(1, 5)]
    assert list(OutdoorScenes("val", root=root).ids) == list(test.ids)
    assert len(OutdoorScenes("test", root=root, count=2)) == 2
    assert (train.official, test.official) == (9_900, 300)
    assert train.provides == test.provides == {"image", "mask", "edge", "segmentation"}
    assert train.classes == CLASSES
    assert test.files(0) == (root / IMAGES / "OST_001.png", root / MAPS / "OST_001.png")


def test_scenes_have_no_segmentation(tmp_path: Path) -> None:
    root = ost_tree(tmp_path, 9)
    train, test = (OutdoorScenes(split, size=24, root=root, variant="scenes") for split in ("train", "test"))
    assert len(train) == 9
    assert list(train.ids)[:3] == ["ost/scenes/animal/animal_0001", "ost/scenes/animal/animal_0008",
                                   "ost/scenes/building/building_0002"]  # fmt: skip
    assert {i.split("/")[2] for i in train.ids} == set(CATEGORIES)
    assert (train.official, test.official) == (10_324, 300)
    assert list(test.ids) == list(OutdoorScenes("test", root=root).ids)
    for dataset in (train, test):
        assert dataset.provides == {"image", "mask", "edge"}
        assert dataset.classes == ()
        assert dataset.sample(0).segmentation is None
        assert len(dataset.files(0)) == 1
    assert len(OutdoorScenes.sources_for("scenes")) == 2
    assert len(OutdoorScenes.sources_for(None)) == 4
    with pytest.raises(UsageError, match="unknown variant"):
        OutdoorScenes("train", root=root, variant="v2")


def test_classes_by_hand(tmp_path: Path) -> None:
    sample = OutdoorScenes("test", size=None, root=ost_tree(tmp_path, 1)).sample(0)
    assert sample.image.shape == (45, 60, 3)
    classes = sample.segmentation
    assert classes is not None
    named = {name: CLASSES.index(name) for name in CLASSES}
    assert (classes[:15] == named["sky"]).all()
    assert (classes[15:22] == named["mountain"]).all()
    assert classes[30, 30] == named["water"]
    assert (classes[22:27, 10:20] == named["animal"]).all()
    assert (classes[-4:, :5] == named["background"]).all()
    assert (classes[-4:, 5:15] == 255).all()  # void is 255, in the files 8 or 255
    assert len(CLASSES) == 8


def test_classes_move_with_the_image(tmp_path: Path) -> None:
    ost_tree(tmp_path, 1)
    Image.fromarray(picture(40, 60)).save(tmp_path / IMAGES / "OST_001.png")
    classes = np.ones((40, 60), np.uint8)
    classes[:, :20] = 2
    Image.fromarray(classes).save(tmp_path / MAPS / "OST_001.png")
    placed = OutdoorScenes("test", size=20, root=tmp_path).sample(0).segmentation
    assert placed is not None
    assert np.array_equal(placed, classes[::2, 10:50:2])


def test_folders_as_others_unpack_them(tmp_path: Path) -> None:
    root = ost_tree(tmp_path, 2)
    (root / IMAGES).rename(root / "x")
    (root / IMAGES).mkdir()
    (root / "x").rename(root / IMAGES / IMAGES)
    (root / MAPS).rename(root / IMAGES / MAPS)
    for kind in ("images", "annotations"):
        (root / "OutdoorSeg" / kind).rename(root / "x")
        (root / "OutdoorSeg" / kind).mkdir()
        (root / "x").rename(root / "OutdoorSeg" / kind / kind)
    test, train = (OutdoorScenes(split, size=16, root=root) for split in ("test", "train"))
    assert test.files(1) == (root / IMAGES / IMAGES / "OST_002.png", root / IMAGES / MAPS / "OST_002.png")
    assert test.sample(1).segmentation is not None
    assert train.sample(1).segmentation is not None


# --- bad input -------------------------------------------------------------------------------------------------------


def _move(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).rename(root / "elsewhere")


def _empty(root: Path) -> None:
    for path in (root / IMAGES).iterdir():
        path.unlink()


BAD: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "no training images": ("train", "segmentation", _move("OutdoorSeg/images"), "folder of the training images"),
    "no training annotations": ("train", "segmentation", _move("OutdoorSeg/annotations"), "folder of the annotations"),
    "no test images": ("test", "segmentation", _move(IMAGES), f"folder of the test images, '{IMAGES}'"),
    "no test annotations": ("test", "segmentation", _move(MAPS), f"folder of the annotations, '{MAPS}'"),
    "an empty folder": ("test", "segmentation", _empty, "no images in this folder"),
    "an absent image": (
        "test",
        "segmentation",
        _move(f"{IMAGES}/OST_002.png"),
        "1 annotations are of no image: OST_002",
    ),
    "an absent annotation": (
        "test",
        "segmentation",
        _move(f"{MAPS}/OST_002.png"),
        "1 images have no annotation: OST_002",
    ),
    "an annotation of an unknown image": (
        "train",
        "segmentation",
        lambda root: Image.new("L", (9, 9)).save(root / "OutdoorSeg/annotations/COCO_1.png"),
        "1 annotations are of no image: COCO_1",
    ),
    "two images of one name": (
        "test",
        "scenes",
        lambda root: Image.new("RGB", (9, 9)).save(root / IMAGES / "OST_001.jpg"),
        "two pictures have the name 'OST_001'",
    ),
    "no category": ("train", "scenes", _move("OutdoorSceneTrain_v2/sky"), "folder of category 'sky'"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = ost_tree(tmp_path, 7)
    split, variant, damage, message = BAD[name]
    assert len(OutdoorScenes(split, root=root, variant=variant)) == 7
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        OutdoorScenes(split, root=root, variant=variant)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no OST folder") as caught:
        OutdoorScenes("test", root=tmp_path / "none")
    assert "OST300_anno.zip" in caught.value.remedy


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    test = OutdoorScenes("test", size=16, root=ost_tree(tmp_path, 5))
    for name in (f"{IMAGES}/OST_001.png", f"{MAPS}/OST_002.png"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    Image.fromarray(landscape(20, 30)).save(tmp_path / MAPS / "OST_003.png")
    Image.fromarray(np.full((48, 60), 9, np.uint8)).save(tmp_path / MAPS / "OST_004.png")
    Image.fromarray(picture(45, 61)).save(tmp_path / MAPS / "OST_005.png")
    messages = (
        "image cannot be read",
        "segmentation cannot be read",
        "30x20, its image 62x47",
        "class 9 is none",
        "RGB",
    )
    for index, message in enumerate(messages):
        with pytest.raises(DataError, match=message) as caught:
            test.sample(index)
        assert f"OST_00{index + 1}" in caught.value.where
