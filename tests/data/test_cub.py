"""CUB-200-2011's official layout, its splits, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.cub import KINDS, cub_tree
from zoo.data.cub import COUNTS, Cub
from zoo.errors import DataError, UsageError

FIRST = f"{KINDS[0]}/Black_footed_Albatross_0000_796111"  # of train
IN = "CUB_200_2011"


def test_a_sample_has_everything(tmp_path: Path) -> None:
    dataset = Cub("train", size=None, root=cub_tree(tmp_path))
    assert dataset.ids[0] == f"cub/{FIRST}"
    sample = dataset.sample(0)
    assert np.abs(sample.image.astype(int) - picture(47, 60, 0)).mean() < 4
    assert sample.captions == tuple(f"this bird has a beak, caption {i} of 0." for i in range(10))
    assert sample.boxes.tolist() == [[8, 5, 38, 30.5]]
    assert dataset.classes == ("background", "bird")
    assert sample.segments is not None
    assert sample.segmentation is not None
    assert sample.segments.shape == (1, 47, 60)
    assert np.array_equal(sample.segments[0], sample.segmentation == 1)
    assert sample.segmentation.sum() == 20 * 22, "one annotator of five is no majority"
    assert len(list(dataset.caption_texts())) == 10 * len(dataset)


def test_box_and_outline_move_with_the_image(tmp_path: Path) -> None:
    sample = Cub("train", size=24, root=cub_tree(tmp_path)).sample(0)
    assert sample.image.shape == (24, 24, 3)
    scale = np.array([31 / 60, 24 / 47] * 2)  # to 31 x 24, then 3 columns cropped away on the left
    assert sample.boxes[0] == pytest.approx(np.array([8, 5, 38, 30.5]) * scale - [3, 0, 3, 0], abs=1e-4)
    assert sample.segments is not None
    assert abs(int(sample.segments.sum()) - 440 * (24 / 47) ** 2) < 12


def test_without_outlines(tmp_path: Path) -> None:
    root = cub_tree(tmp_path, 4)
    (root / "segmentations").rename(tmp_path / "elsewhere")
    dataset = Cub("test", root=root)
    assert dataset.provides == {"image", "mask", "caption", "edge"}
    sample = dataset.sample(0)
    assert (sample.segmentation, sample.segments, dataset.classes) == (None, None, ())
    (tmp_path / "elsewhere").rename(root / IN / "segmentations")
    assert "segmentation" in Cub("test", root=root).provides


def test_everything_in_the_root(tmp_path: Path) -> None:
    root = cub_tree(tmp_path, 4)
    (root / "cvpr2016_cub" / "text_c10").rename(root / IN / "text_c10")
    assert len(Cub("test", root=root / IN)) == len(Cub("test", root=root)) == 4


def test_official_splits_hold_out_validation_images(tmp_path: Path) -> None:
    root = cub_tree(tmp_path, 40)
    train, val, test = (set(Cub(split, root=root).ids) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (38, 2, 40)
    assert not train & val
    assert not (train | val) & test
    assert all(int(name.split("_")[-2]) // 4 % 2 == 0 for name in train | val)
    assert list(Cub("val", root=root).ids) == list(Cub("val", root=root).ids)
    assert {rule: sum(COUNTS[rule].values()) for rule in ("official", "disjoint")} == dict.fromkeys(
        ("official", "disjoint"), 11_788
    )
    assert COUNTS["official"]["train"] + COUNTS["official"]["val"] == 5_994
    assert COUNTS["disjoint"]["train"] + COUNTS["disjoint"]["val"] == 8_855
    assert [round(0.05 * n) for n in (5_994, 8_855)] == [300, 443]


def _kinds(dataset: Cub) -> set[str]:
    return {name.split("/")[1] for name in dataset.ids}


@pytest.mark.parametrize("words", ["classes", "ids"])
def test_disjoint_splits_follow_the_lists(tmp_path: Path, words: str) -> None:
    root = cub_tree(tmp_path)
    if words == "ids":
        for part, numbers in (("trainval", "1\n3\n004\n"), ("test", "2\n")):
            (root / "cvpr2016_cub" / f"{part}classes.txt").unlink()
            (root / "cvpr2016_cub" / f"{part}ids.txt").write_text(numbers)
    opened = {split: Cub(split, root=root, split_rule="disjoint") for split in ("train", "val", "test")}
    assert _kinds(opened["test"]) == {KINDS[1]}
    assert _kinds(opened["train"]) | _kinds(opened["val"]) == {KINDS[0], *KINDS[2:]}
    assert sum(len(dataset) for dataset in opened.values()) == 24
    assert {path.name for path in opened["test"].split_source} >= {f"trainval{words}.txt", f"test{words}.txt"}
    assert (opened["train"].official, opened["test"].official) == (8_412, 2_933)


def test_hashed_splits_need_no_lists(tmp_path: Path) -> None:
    root = cub_tree(tmp_path)
    for part in ("trainval", "test"):
        (root / "cvpr2016_cub" / f"{part}classes.txt").unlink()
    with pytest.raises(DataError, match="lists of the class-disjoint split are missing") as caught:
        Cub("test", root=root, split_rule="disjoint")
    assert "split_rule hashed" in caught.value.remedy
    train, test = (Cub(split, root=root, split_rule="hashed") for split in ("train", "test"))
    assert _kinds(test) == {KINDS[0]}, "the hashes of these names are what they are"
    assert not _kinds(train) & _kinds(test)
    assert test.official is None
    with pytest.raises(UsageError, match="split_rule of cub 'random'"):
        Cub("test", root=root, split_rule="random")


def test_captions_with_replacement_characters(tmp_path: Path) -> None:
    root = cub_tree(tmp_path, 4)
    path = root / "cvpr2016_cub" / "text_c10" / f"{FIRST}.txt"
    path.write_text("a bird\ufffd\ufffd with wings  \n\n a beak\n", encoding="utf-8")
    assert Cub("train", root=root).sample(0).captions == ("a bird with wings", "a beak")


# --- bad input -------------------------------------------------------------------------------------------------------


def _edit(name: str, change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        lines = (root / name).read_text().splitlines()
        change(lines)
        (root / name).write_text("\n".join(lines) + "\n")

    return damage


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list of images": (lambda root: (root / IN / "images.txt").unlink(), "images.txt is missing"),
    "no boxes": (lambda root: (root / IN / "bounding_boxes.txt").unlink(), "bounding_boxes.txt is missing"),
    "no split": (lambda root: (root / IN / "train_test_split.txt").unlink(), "train_test_split.txt is missing"),
    "no captions": (lambda root: (root / "cvpr2016_cub").rename(root / "x"), "the captions.*is missing"),
    "an absent image": (lambda root: (root / IN / "images" / f"{FIRST}.jpg").unlink(), "1 of 7 images .*0000_796111"),
    "an absent outline": (lambda root: (root / "segmentations" / f"{FIRST}.png").unlink(), "1 of 7 outlines"),
    "absent captions": (
        lambda root: (root / "cvpr2016_cub/text_c10" / f"{FIRST}.txt").unlink(),
        "1 of 7 files of captions",
    ),
    "half a box": (_edit(f"{IN}/bounding_boxes.txt", lambda lines: lines.append("17 1.0 2.0")), "is damaged: '17 1.0"),
    "a box of text": (_edit(f"{IN}/bounding_boxes.txt", lambda lines: lines.append("17 a b c d")), "is damaged"),
    "boxes of other images": (_edit(f"{IN}/bounding_boxes.txt", lambda lines: lines.pop()), "differ in 1 images"),
    "a split of other images": (
        _edit(f"{IN}/train_test_split.txt", lambda lines: lines.append("99 1")),
        "differ in 1 images: number 99",
    ),
}
BAD_DISJOINT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no classes": (lambda root: (root / IN / "classes.txt").unlink(), "classes.txt is missing"),
    "labels of no class": (
        _edit(f"{IN}/image_class_labels.txt", lambda lines: lines.append("17 9")),
        "image_class_labels.txt is damaged",
    ),
    "a class that there is not": (
        _edit("cvpr2016_cub/testclasses.txt", lambda lines: lines.append("999.Dodo")),
        "a class that there is not: 999.Dodo",
    ),
    "a class on both sides": (
        _edit("cvpr2016_cub/testclasses.txt", lambda lines: lines.append(KINDS[0])),
        "do not part the 4 classes",
    ),
    "a class on no side": (
        _edit("cvpr2016_cub/trainvalclasses.txt", lambda lines: lines.pop()),
        "do not part the 4 classes",
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_DISJOINT])
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = cub_tree(tmp_path, 8)
    rule = "official" if name in BAD else "disjoint"
    assert len(Cub("train", root=root, split_rule=rule)) > 6
    damage, message = (BAD | BAD_DISJOINT)[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Cub("train", root=root, split_rule=rule)
    assert caught.value.where
    assert caught.value.remedy


def test_an_outline_of_another_size(tmp_path: Path) -> None:
    root = cub_tree(tmp_path, 4)
    Image.new("L", (30, 20)).save(root / "segmentations" / f"{FIRST}.png")
    with pytest.raises(DataError, match="the outline is 30x20, its image 60x47"):
        Cub("train", root=root).sample(0)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CUB-200-2011 folder") as caught:
        Cub("test", root=tmp_path / "none")
    assert "reedscot/cvpr2016" in caught.value.remedy
