"""Open Images: the fixed list, narratives, boxes, and what can be wrong with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import picture
from tests.trees.openimages import openimages_tree
from zoo.data import openimages
from zoo.data.openimages import OpenImages, listed_ids
from zoo.errors import DataError, UsageError

NARRATIVES, BOXES = "open_images_validation_captions.jsonl", "validation-annotations-bbox.csv"


def _order(root: Path) -> list[str]:
    stems = [path.stem for path in (root / "validation").iterdir()]
    return sorted(stems, key=lambda stem: hashlib.blake2b(stem.encode()).digest())


def test_the_list_is_a_rule_with_a_hash() -> None:
    ids = [f"{n:016x}" for n in range(5_000)]
    lists = {split: listed_ids(ids, split) for split in ("test", "val", "train")}
    assert [len(lists[split]) for split in ("test", "val", "train")] == [1_500, 1_500, 2_000]
    assert len({name for part in lists.values() for name in part}) == 5_000
    assert listed_ids(ids[::-1], "test") == lists["test"]
    assert lists["test"][:2] == ["0000000000000bbd", "0000000000000587"]
    assert OpenImages.counts == {"train": 38_620, "val": 1_500, "test": 1_500}


def test_a_sample_has_everything(tmp_path: Path) -> None:
    root = openimages_tree(tmp_path)
    dataset = OpenImages("test", size=None, root=root)
    assert [name.split("/")[-1] for name in dataset.ids] == _order(root)
    place = list(dataset.ids).index("openimages/validation/0001eeaf4aed83f9")
    sample = dataset.sample(place)
    assert np.abs(sample.image.astype(int) - picture(48, 64, 0)).mean() < 3
    assert sample.captions == tuple(f"In this picture we can see a cat, told by {voice}." for voice in range(2))
    assert sample.boxes.tolist() == [[16, 6, 48, 30]], "the box around a group is none of an object"
    assert list(dataset.caption_texts()) == [text for i in range(12) for text in dataset.sample(i).captions]
    assert dataset.list_sha256 == hashlib.sha256("\n".join(_order(root)).encode()).hexdigest()
    assert OpenImages("test", root=root, count=3).list_sha256 == dataset.list_sha256, "of the list, not of what is read"


def test_boxes_move_with_the_image_and_some_images_have_none(tmp_path: Path) -> None:
    root = openimages_tree(tmp_path)
    lines = (root / BOXES).read_text().splitlines()
    (root / BOXES).write_text("\n".join(line for line in lines if "0001eeaf4aed87ca" not in line) + "\n")
    dataset = OpenImages("test", size=24, root=root)
    ids = [name.split("/")[-1] for name in dataset.ids]
    assert dataset.sample(ids.index("0001eeaf4aed83f9")).boxes.tolist() == [[4, 3, 20, 15]]
    assert dataset.sample(ids.index("0001eeaf4aed87ca")).boxes.shape == (0, 4)


def test_splits_lie_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openimages, "LENGTH", 4)
    root = openimages_tree(tmp_path)
    ids = [[name.split("/")[-1] for name in OpenImages(split, root=root).ids] for split in ("test", "val", "train")]
    assert [len(part) for part in ids] == [4, 4, 4]
    assert [stem for part in ids for stem in part] == _order(root)


def test_the_other_part_and_the_long_narratives(tmp_path: Path) -> None:
    root = openimages_tree(tmp_path, part="test")
    (root / "open_images_test_captions.jsonl").rename(root / "open_images_test_localized_narratives.jsonl")
    (root / "images").mkdir()
    (root / "test").rename(root / "images" / "test")
    dataset = OpenImages("test", root=root, part="test")
    assert dataset.ids[0].startswith("openimages/test/")
    assert dataset.sample(0).captions
    assert dataset.shared_files[0].name == "open_images_test_localized_narratives.jsonl"
    with pytest.raises(UsageError, match="part of openimages 'train'"):
        OpenImages("test", root=root, part="train")


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    root = openimages_tree(tmp_path)
    own = tmp_path / "own.txt"
    own.write_text("0001eeaf4aed87ca\n\n0001eeaf4aed83f9\n")
    dataset = OpenImages("test", root=root, ids_file=own)
    assert list(dataset.ids) == [f"openimages/validation/{stem}" for stem in ("0001eeaf4aed87ca", "0001eeaf4aed83f9")]
    assert dataset.official is None
    assert own in dataset.shared_files
    own.write_text("0001eeaf4aed87ca\n0000000000000000\n")
    with pytest.raises(DataError, match="1 ids have no narrative: 0000000000000000"):
        OpenImages("test", root=root, ids_file=own)
    own.write_text("0001eeaf4aed87ca\n0001eeaf4aed87ca\n")
    with pytest.raises(DataError, match="an id is there twice"):
        OpenImages("test", root=root, ids_file=own)
    with pytest.raises(DataError, match=r"own\.txt is missing"):
        OpenImages("test", root=root, ids_file=tmp_path / "none" / "own.txt")


def test_instructions_name_the_images_of_the_list(tmp_path: Path) -> None:
    root = openimages_tree(tmp_path)
    text = OpenImages.instructions(root)
    written = (root / ".zoo" / "validation-1500.txt").read_text().split()
    assert written == [f"validation/{stem}" for stem in _order(root)]
    assert f"downloader.py {root / '.zoo' / 'validation-1500.txt'}" in text
    assert OpenImages.instructions(tmp_path / "none") == ""


def test_downloads_by_part() -> None:
    assert [source.file for source in OpenImages.sources_for()] == [NARRATIVES, BOXES, "validation.tar.gz"]
    assert all("test" in source.file for source in OpenImages.sources_for(part="test"))


# --- bad input -------------------------------------------------------------------------------------------------------


def _add(name: str, line: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).write_text((root / name).read_text() + line + "\n")

    return damage


def _narrative(**entry: object) -> Callable[[Path], None]:
    return _add(NARRATIVES, json.dumps(entry))


STRANGER = "00000000000000ff"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no narratives": (lambda root: (root / NARRATIVES).unlink(), "captions.jsonl is missing"),
    "no boxes": (lambda root: (root / BOXES).unlink(), "bbox.csv is missing"),
    "no images": (lambda root: (root / "validation").rename(root / "x"), "the images, 'validation', is missing"),
    "an absent image": (lambda root: (root / "validation/0001eeaf4aed83f9.jpg").unlink(), "1 of 12 images .*83f9.jpg"),
    "a narrative of an unknown image": (_narrative(image_id=STRANGER, caption="x"), f"1 of 13 images .*{STRANGER}"),
    "a narrative of COCO": (
        _narrative(image_id="137576", caption="x"),
        "no narrative of an Open Images image: '13",
    ),
    "an empty narrative": (_narrative(image_id=STRANGER, caption=" "), "no narrative of an Open Images image"),
    "no caption": (_narrative(image_id=STRANGER), "no narrative of an Open Images image: 'caption'"),
    "half a line": (_add(NARRATIVES, '{"image_id": "00'), "no narrative of an Open Images image"),
    "other columns": (lambda root: (root / BOXES).write_text("ImageID,XMin\n1,2\n"), "bbox.csv is damaged"),
    "an empty list of boxes": (lambda root: (root / BOXES).write_text(""), "bbox.csv is damaged"),
    "half a box": (_add(BOXES, "0001eeaf4aed83f9,xclick,/m/01yrx,1,0.25"), "bbox.csv is damaged"),
    "a box of text": (_add(BOXES, "0001eeaf4aed83f9,xclick,/m/01yrx,1,a,b,c,d,0,0,0,0,0"), "bbox.csv is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = openimages_tree(tmp_path)
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        OpenImages("test", root=root)
    assert caught.value.where
    assert caught.value.remedy


def test_splits_for_which_there_are_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image is left for the split 'val': 12 have a narrative"):
        OpenImages("val", root=openimages_tree(tmp_path))
    with pytest.raises(DataError, match="no Open Images folder"):
        OpenImages("val", root=tmp_path / "none")
