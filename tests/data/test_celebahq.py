"""CelebAMask-HQ's layout: splits, merged classes, parts as segments, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.trees.celebahq import ELLIPSES, celebahq_tree, write_face
from zoo.data.base import Sample
from zoo.data.celebahq import CLASSES, PARTS, CelebAHQ
from zoo.data.masked import canvas_of
from zoo.errors import DataError, UsageError
from zoo.masks import draw_mask

MAPPING, PARTITION = "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"
MASKS = "CelebAMask-HQ-mask-anno/0"


def _region(side: int, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
    region = np.zeros((side, side), np.bool_)
    region[top : top + height, left : left + width] = True
    return region


def _one(root: Path, parts: dict[str, NDArray[np.bool_]], size: int | None = None) -> Sample:
    """The sample of a tree of one face."""
    write_face(root, 0, next(iter(parts.values())).shape[0], parts)
    (root / MAPPING).write_text("idx orig_idx orig_file\n0 119613 119614.jpg\n", encoding="utf-8")
    (root / PARTITION).write_text("119614.jpg 2\n", encoding="utf-8")
    return CelebAHQ("test", size=size, root=root).sample(0)


def test_splits_follow_the_partition_of_celeba(tmp_path: Path) -> None:
    root = celebahq_tree(tmp_path, 4)
    splits = {split: CelebAHQ(split, size=32, root=root) for split in ("train", "val", "test")}
    assert {split: d.numbers for split, d in splits.items()} == {
        "train": [0, 3, 6, 9],
        "val": [1, 4, 7, 10],
        "test": [2, 5, 8, 11],
    }
    assert list(splits["test"].ids) == [f"celebahq/test/{n}" for n in (2, 5, 8, 11)]
    assert [splits[s].official for s in splits] == [24_183, 2_993, 2_824]
    assert sum(CelebAHQ.counts.values()) == 30_000
    assert len(CelebAHQ("train", root=root, count=3)) == 3
    assert splits["val"].provides == {"image", "mask", "edge", "segmentation"}


def test_the_splits_of_mminvertfill_need_no_partition(tmp_path: Path) -> None:
    lines = ["idx orig_idx orig_file"]
    for number in (0, 28_999, 29_000, 29_999):
        write_face(tmp_path, number, 16, {"skin": np.ones((16, 16), np.bool_)})
        lines.append(f"{number} {number} {number + 1:06d}.jpg")
    (tmp_path / MAPPING).write_text("\n".join(lines), encoding="utf-8")
    assert (tmp_path / "CelebAMask-HQ-mask-anno" / "14").is_dir()
    train, test = (CelebAHQ(split, root=tmp_path, variant="mminvertfill") for split in ("train", "test"))
    assert list(train.ids) == ["celebahq/first29000/0", "celebahq/first29000/28999"]
    assert list(test.ids) == ["celebahq/last1000/29000", "celebahq/last1000/29999"]
    assert (train.official, test.official) == (29_000, 1_000)
    assert list(CelebAHQ("val", root=tmp_path, variant="mminvertfill").ids) == list(test.ids)
    assert len(CelebAHQ.sources_for("mminvertfill")) < len(CelebAHQ.sources_for(None))
    with pytest.raises(DataError, match=r"list_eval_partition\.txt is missing") as caught:
        CelebAHQ("train", root=tmp_path)
    assert "--data.variant mminvertfill" in caught.value.remedy
    with pytest.raises(UsageError, match="unknown variant"):
        CelebAHQ("train", root=tmp_path, variant="first")


def test_every_part_has_a_class_and_left_and_right_have_one() -> None:
    assert len(PARTS) == 18
    assert set(PARTS.values()) | {"background"} == set(CLASSES)
    assert len(CLASSES) == 16
    for left in ("eye", "brow", "ear"):
        assert PARTS[f"l_{left}"] == PARTS[f"r_{left}"]
    assert PARTS["ear_r"] != PARTS["r_ear"]  # earrings, not the right ear


def test_classes_by_hand(tmp_path: Path) -> None:
    parts = {
        "skin": _region(8, 2, 1, 5, 6),
        "l_eye": _region(8, 3, 2, 1, 1),
        "r_eye": _region(8, 3, 5, 1, 1),
        "l_brow": _region(8, 2, 2, 1, 1),
        "hair": _region(8, 0, 0, 2, 8),
        "hat": _region(8, 0, 0, 1, 3),  # over the hair
        "eye_g": _region(8, 3, 2, 1, 4),  # glasses lie under the eyes
    }
    sample = _one(tmp_path, parts)
    wanted = [
        [11, 11, 11, 10, 10, 10, 10, 10],
        [10, 10, 10, 10, 10, 10, 10, 10],
        [0, 1, 5, 1, 1, 1, 1, 0],
        [0, 1, 4, 3, 3, 4, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert sample.segmentation is not None
    assert np.array_equal(sample.segmentation, np.kron(np.array(wanted, np.uint8), np.ones((2, 2), np.uint8)))


def test_boxes_and_segments_of_parts_at_the_size_of_the_image(tmp_path: Path) -> None:
    eye, nose = _region(16, 4, 3, 2, 3), _region(16, 7, 6, 5, 4)
    sample = _one(tmp_path, {"nose": nose, "l_eye": eye, "mouth": np.zeros((16, 16), np.bool_)})
    assert sample.boxes.tolist() == [[12, 14, 20, 24], [6, 8, 12, 12]]  # in the order of `PARTS`; no empty mouth
    assert sample.segments is not None
    assert sample.segments.shape == (2, 32, 32)
    assert np.array_equal(sample.segments[0], np.kron(nose, np.ones((2, 2), np.bool_)))


def test_boxes_and_segments_of_parts_after_resizing(tmp_path: Path) -> None:
    nose = _region(16, 8, 6, 4, 2)
    sample = _one(tmp_path, {"nose": nose, "l_eye": _region(16, 0, 0, 1, 1)}, size=8)
    assert sample.image.shape == (8, 8, 3)
    assert sample.boxes.tolist() == [[3, 4, 4, 6]]  # an eye of half a pixel is no object any more
    assert sample.segments is not None
    assert np.array_equal(sample.segments[0], nose[::2, ::2])
    assert sample.segmentation is not None
    assert sorted(np.unique(sample.segmentation).tolist()) == [0, 2]


def test_object_masks_take_a_part(tmp_path: Path) -> None:
    root = celebahq_tree(tmp_path, 2)
    faces = CelebAHQ("train", size=64, root=root)
    sample = faces.sample(1)
    assert len(sample.boxes) == len(ELLIPSES)
    assert sample.segments is not None
    for box, segment in zip(sample.boxes, sample.segments, strict=True):
        rows, columns = np.nonzero(segment)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(box - found).max() <= 1
    whole = draw_mask("object", canvas_of(faces, sample))
    outline = draw_mask("object:segmentation:0", canvas_of(faces, sample))
    chosen = next(s for s in sample.segments if np.array_equal(s, outline > 0))
    assert whole[chosen].all()
    assert 0.05 < whole.mean() < 0.5


def test_the_folder_as_the_archive_unpacks_it(tmp_path: Path) -> None:
    celebahq_tree(tmp_path / "CelebAMask-HQ", 1)
    (tmp_path / "CelebAMask-HQ" / PARTITION).rename(tmp_path / PARTITION)
    faces = CelebAHQ("train", size=16, root=tmp_path)
    assert faces.sample(0).image.shape == (16, 16, 3)
    assert faces.files(0)[0] == tmp_path / "CelebAMask-HQ/CelebA-HQ-img/0.jpg"
    assert {path.name for path in faces.files(0)[1:]} == {f"00000_{part}.png" for part in ELLIPSES}
    assert {path.name for path in faces.shared_files} == {MAPPING, PARTITION}


# --- bad input -------------------------------------------------------------------------------------------------------


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text, encoding="utf-8")


def _append(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: _write(name, (root / name).read_text() + text)(root)


def _stray(name: str) -> Callable[[Path], object]:
    return lambda root: (root / MASKS / "00000_skin.png").rename(root / MASKS / name)


def _bare(root: Path) -> None:
    for path in (root / MASKS).glob("00003_*"):
        path.unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no mapping": (lambda root: (root / MAPPING).unlink(), "mapping.txt is missing"),
    "no partition": (lambda root: (root / PARTITION).unlink(), "partition.txt is missing"),
    "no images": (lambda root: (root / "CelebA-HQ-img").rename(root / "x"), "folder of the images, 'CelebA-HQ-img'"),
    "no part masks": (lambda root: (root / MASKS).parent.rename(root / "x"), "folder of the part masks"),
    "no folder of parts": (lambda root: (root / MASKS).rename(root / "x"), "folder of part masks, '0'"),
    "an absent image": (lambda root: (root / "CelebA-HQ-img/3.jpg").unlink(), "1 of 4 images .* absent: 3.jpg"),
    "an empty mapping": (_write(MAPPING, "\n"), "mapping.txt is empty"),
    "a mapping of a header": (_write(MAPPING, "idx orig_idx orig_file\n"), "lists no image"),
    "a mapping cut short": (_append(MAPPING, "12\t98"), r"line 14 is not 'idx orig_idx orig_file': 12 98"),
    "an image twice in the mapping": (_append(MAPPING, "3 1 000002.jpg\n"), "lists image 3 twice"),
    "a binary partition": (lambda root: (root / PARTITION).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "an unknown part of the partition": (_append(PARTITION, "000001.jpg 3\n"), "is not 'FILE 0', 1 or 2: 000001.jpg 3"),
    "a partition of other images": (_write(PARTITION, "000001.jpg 0\n"), "lacks 12 images of the mapping: 001000.jpg"),
    "a partition without this split": (
        _write(PARTITION, "".join(f"{1000 - n:06d}.jpg 1\n" for n in range(12))),
        "no image of split 'train'",
    ),
    "an unknown part": (_stray("00000_beard.png"), "'00000_beard.png' is no part"),
    "a part of an unknown image": (_stray("00777_skin.png"), "'00777_skin.png' is of an image that is not listed"),
    "a picture that is no part": (_stray("thumbnail.png"), "'thumbnail.png' is no part"),
    "an image without parts": (_bare, "1 images have no part mask: 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = celebahq_tree(tmp_path, 4)
    assert len(CelebAHQ("train", root=root)) == 4
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        CelebAHQ("train", root=root)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no CelebA-HQ folder") as caught:
        CelebAHQ("train")
    assert caught.value.where == str(tmp_path / "celebahq")
    assert "CelebAMask-HQ.zip" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/celebahq" in caught.value.remedy


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    faces = CelebAHQ("train", size=16, root=celebahq_tree(tmp_path, 4))
    image = tmp_path / "CelebA-HQ-img/0.jpg"
    image.write_bytes(image.read_bytes()[:200])
    part = tmp_path / MASKS / "00003_nose.png"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / MASKS / "00006_hair.png")
    (tmp_path / MASKS / "00009_skin.png").unlink()
    for index, message in enumerate(
        ("image cannot be read", "mask cannot be read", "64x64, its image 62x62", "no mask")
    ):
        with pytest.raises(DataError, match=message) as caught:
            faces.sample(index)
        assert caught.value.where
