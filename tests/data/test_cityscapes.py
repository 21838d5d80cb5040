"""Cityscapes' layout: splits, classes, things, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trees.cityscapes import cityscapes_tree, street, write_frame
from zoo.data.base import Sample
from zoo.data.cityscapes import CLASSES, LABELS, Cityscapes
from zoo.data.masked import canvas_of
from zoo.errors import DataError, UsageError
from zoo.masks import draw_mask

STEM = "val/frankfurt/frankfurt_000000_000019"


def _street(root: Path, height: int = 40, width: int = 80, size: int | None = None) -> Sample:
    write_frame(root, "val", "frankfurt", 0, *street(height, width))
    return Cityscapes("val", size=size, root=root).sample(0)


def test_splits_and_ids(tmp_path: Path) -> None:
    root = cityscapes_tree(tmp_path, 3)
    val = Cityscapes("val", size=24, root=root)
    assert list(val.ids) == [
        "cityscapes/val/frankfurt_000000_000019",
        "cityscapes/val/frankfurt_000002_000019",
        "cityscapes/val/munster_000001_000019",
    ]
    assert list(Cityscapes("test", root=root).ids) == list(val.ids)
    assert len(Cityscapes("train", root=root, count=2)) == 2
    assert [Cityscapes(s, root=root).official for s in ("train", "val", "test")] == [2_975, 500, 500]
    assert val.provides == {"image", "mask", "edge", "segmentation"}
    assert [path.name.rpartition("_")[2] for path in val.files(0)] == ["leftImg8bit.png", "labelIds.png",
                                                                       "instanceIds.png"]  # fmt: skip


def test_training_on_train_and_test(tmp_path: Path) -> None:
    root = cityscapes_tree(tmp_path, 2)
    train = Cityscapes("train", size=32, root=root, variant="mminvertfill")
    assert [i.split("/")[1] for i in train.ids] == ["train", "train", "test", "test"]
    assert train.official == 4_500
    assert list(train.ids)[:2] == list(Cityscapes("train", root=root).ids)  # the same image has one id
    dummy = train.sample(2)
    assert dummy.segmentation is not None
    assert (dummy.segmentation == 255).all()
    assert len(dummy.boxes) == 0
    val = Cityscapes("val", root=root, variant="mminvertfill")
    assert ({i.split("/")[1] for i in val.ids}, val.official) == ({"val"}, 500)
    with pytest.raises(UsageError, match="unknown variant"):
        Cityscapes("val", root=root, variant="coarse")


def test_labels_become_the_classes_of_the_benchmark(tmp_path: Path) -> None:
    labels = np.arange(34, dtype=np.uint8).repeat(2)[None].repeat(4, 0)
    write_frame(tmp_path, "val", "frankfurt", 0, labels, labels.astype(np.uint16))
    classes = Cityscapes("val", size=None, root=tmp_path).sample(0).segmentation
    assert classes is not None
    wanted = {7: "road", 8: "sidewalk", 11: "building", 17: "pole", 23: "sky", 24: "person", 26: "car", 31: "train"}
    for label, name in (wanted | {33: "bicycle"}).items():
        assert CLASSES[classes[0, 2 * label]] == name
    unknown = [label for label in range(34) if classes[0, 2 * label] == 255]
    assert unknown == [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30]
    assert len(CLASSES) == len(LABELS) == 19


def test_things_by_hand(tmp_path: Path) -> None:
    sample = _street(tmp_path)
    assert sample.boxes.tolist() == [[28, 20, 38, 34], [44, 20, 54, 34]]
    assert sample.segments is not None
    assert sample.segments.shape == (2, 40, 80)
    assert [int(s.sum()) for s in sample.segments] == [140, 140]
    assert sample.segmentation is not None
    assert sample.segmentation[22, 6] == CLASSES.index("person")  # of a group: a class, but no segment
    assert not sample.segments[:, 22, 6].any()
    assert (sample.segmentation[sample.segments.any(0)] == CLASSES.index("car")).all()


def test_things_move_with_the_image(tmp_path: Path) -> None:
    sample = _street(tmp_path, size=20)  # halved, then 10 columns cropped away on either side
    assert sample.boxes.tolist() == [[4, 10, 9, 17], [12, 10, 17, 17]]
    assert sample.segments is not None
    for box, segment in zip(sample.boxes.astype(int), sample.segments, strict=True):
        assert segment[box[1] : box[3], box[0] : box[2]].all()
        assert segment.sum() == 35


def test_things_outside_the_crop_are_dropped(tmp_path: Path) -> None:
    labels = np.full((20, 60), 7, np.uint8)
    instances = labels.astype(np.uint16)
    for number, left in enumerate((0, 25, 50)):
        instances[5:15, left : left + 10] = 33_000 + number
        labels[5:15, left : left + 10] = 33
    write_frame(tmp_path, "val", "frankfurt", 0, labels, instances)
    sample = Cityscapes("val", size=20, root=tmp_path).sample(0)
    assert sample.boxes.tolist() == [[5, 5, 15, 15]]
    assert sample.segments is not None
    assert sample.segments.shape == (1, 20, 20)
    assert sample.segments[0, 5:15, 5:15].all()
    assert sample.segments.sum() == 100


def test_object_masks_take_a_thing(tmp_path: Path) -> None:
    root = cityscapes_tree(tmp_path, 2)
    streets = Cityscapes("train", size=40, root=root)
    sample = streets.sample(0)
    canvas = canvas_of(streets, sample)
    outline = draw_mask("object:segmentation:0", canvas) > 0
    assert sample.segments is not None
    assert any(np.array_equal(segment, outline) for segment in sample.segments)
    assert draw_mask("object", canvas)[outline].all()


# --- bad input -------------------------------------------------------------------------------------------------------


def _remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def _move(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).rename(root / "elsewhere")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (_move("leftImg8bit"), "folder of leftImg8bit for 'val'"),
    "no annotations": (_move("gtFine"), "folder of gtFine for 'val'"),
    "no split": (_move("gtFine/val"), "folder of gtFine for 'val'"),
    "no city": (_move("leftImg8bit/val/munster"), "2 of 5 annotated images are absent: munster"),
    "an absent image": (
        _remove(f"leftImg8bit/{STEM}_leftImg8bit.png"),
        "1 of 5 annotated images are absent: frankfurt_000000_000019_leftImg8bit.png",
    ),
    "absent labels": (_remove(f"gtFine/{STEM}_gtFine_labelIds.png"), "1 of 5 images have no label ids: frankfurt"),
    "absent instances": (_remove(f"gtFine/{STEM}_gtFine_instanceIds.png"), "1 of 5 images have no instance ids"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = cityscapes_tree(tmp_path, 5)
    assert len(Cityscapes("val", root=root)) == 5
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Cityscapes("val", root=root)
    assert caught.value.where
    assert caught.value.remedy
    assert len(Cityscapes("train", root=root) if name not in ("no images", "no annotations") else [0] * 5) == 5


def test_a_missing_root_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Cityscapes folder") as caught:
        Cityscapes("val", root=tmp_path / "none")
    assert "leftImg8bit_trainvaltest.zip" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/cityscapes" in caught.value.remedy
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "val" / "frankfurt").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in this folder"):
        Cityscapes("val", root=tmp_path)


def _levels(array: object) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(np.asarray(array)).save(path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNUSABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a truncated image": ("leftImg8bit", _cut, "image cannot be read"),
    "truncated labels": ("gtFine_labelIds", _cut, "segmentation cannot be read"),
    "truncated instances": ("gtFine_instanceIds", _cut, "annotation cannot be read"),
    "labels of another size": ("gtFine_labelIds", _levels(np.zeros((20, 40), np.uint8)), "40x20, its image 80x40"),
    "instances of another size": (
        "gtFine_instanceIds",
        _levels(np.zeros((20, 40), np.uint16)),
        "40x20, its image 80x40",
    ),
    "an unknown label": ("gtFine_labelIds", _levels(np.full((40, 80), 34, np.uint8)), "label 34 is none"),
    "coloured labels": ("gtFine_labelIds", _levels(np.zeros((40, 80, 3), np.uint8)), "mode RGB"),
    "an instance of a building": (
        "gtFine_instanceIds",
        _levels(np.full((40, 80), 11_000, np.uint16)),
        "instance 11000 is of a label",
    ),
    "an unknown group": ("gtFine_instanceIds", _levels(np.full((40, 80), 50, np.uint16)), "instance 50 is of a label"),
    "coloured instances": ("gtFine_instanceIds", _levels(np.zeros((40, 80, 3), np.uint8)), "mode RGB"),
    "instances beyond 16 bits": (
        "gtFine_instanceIds",
        lambda path: Image.fromarray(np.full((40, 80), 70_000, np.int32)).save(path, format="TIFF"),
        "no numbers of 16 bits",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    _street(tmp_path)
    ending, damage, message = UNUSABLE[name]
    damage(tmp_path / ending.split("_")[0] / f"{STEM}_{ending}.png")
    with pytest.raises(DataError, match=message) as caught:
        Cityscapes("val", root=tmp_path).sample(0)
    assert ending in caught.value.where
    assert caught.value.remedy
