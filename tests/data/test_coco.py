"""COCO's official layout, and everything that can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.fakes import crowd, instance, photograph, picture, tiny_coco, write_coco
from tests.trees.coco import karpathy_tree
from zoo.data import SPLITS, open_dataset
from zoo.data.coco import Coco
from zoo.data.info import describe, verify
from zoo.errors import DataError, UsageError


def test_a_sample_has_everything(tmp_path: Path) -> None:
    coco = Coco("val", size=None, root=tiny_coco(tmp_path))
    assert list(coco.ids) == [f"coco/val2017/{i:012d}" for i in (42, 43, 44)]
    sample = coco.sample(0)
    assert sample.image.shape == (60, 80, 3)
    assert np.abs(sample.image.astype(int) - picture(60, 80, 42)).mean() < 3
    assert sample.captions == tuple(f"caption {n} of image 42" for n in range(5))
    assert sample.boxes.tolist() == [[20, 10, 60, 50], [30, 30, 40, 40]]  # the crowd is no object
    assert sample.segments is not None
    assert sample.segments.shape == (2, 60, 80)
    assert sample.segments[1].sum() == 100
    assert coco.classes == ("background", "person", "cat", "cup")
    classes = sample.segmentation
    assert classes is not None
    assert classes[2, 70] == 255  # crowd
    assert (classes[20, 25], classes[35, 35], classes[55, 5]) == (2, 3, 0)  # the cup is in front of the cat


def test_boxes_and_maps_move_with_the_image(tmp_path: Path) -> None:
    sample = Coco("val", size=30, root=tiny_coco(tmp_path)).sample(1)
    assert sample.image.shape == (30, 30, 3)
    assert sample.boxes.tolist() == [[5, 5, 25, 25], [10, 15, 15, 20]]  # halved, then 5 columns cropped away
    assert sample.segments is not None
    assert sample.segmentation is not None
    assert np.array_equal(np.argwhere(sample.segmentation == 3).min(0), [15, 10])
    assert sample.segments[1].sum() == 25
    assert sample.image.flags.c_contiguous


def test_objects_outside_the_crop_are_dropped(tmp_path: Path) -> None:
    images, captions = {1: picture(40, 120)}, {1: ["a"]}
    boxes = [instance(1, 17, (0, 0, 20, 20)), instance(1, 47, (50, 5, 20, 20))]
    write_coco(tmp_path, "val2017", images, captions, boxes)
    sample = Coco("val", size=40, root=tmp_path).sample(0)
    assert sample.boxes.tolist() == [[10, 5, 30, 25]]
    assert sample.segments is not None
    assert sample.segments.shape == (1, 40, 40)
    assert sample.segments[0, 6, 11]


def test_an_image_without_objects(tmp_path: Path) -> None:
    write_coco(tmp_path, "val2017", {1: picture(20, 20)}, {1: ["nothing"]}, [])
    sample = Coco("val", size=16, root=tmp_path).sample(0)
    assert sample.boxes.shape == (0, 4)
    assert sample.segments is not None
    assert sample.segments.shape == (0, 16, 16)
    assert not sample.segmentation.any()  # type: ignore[union-attr]


def test_outlines_are_decoded_as_pycocotools_does(tmp_path: Path) -> None:
    polygon = [[12.5, 8.0, 40.2, 11.1, 33.3, 45.9], [2.0, 2.0, 9.0, 2.0, 9.0, 9.0]]
    triangle = instance(1, 17, (2, 2, 38, 44)) | {"segmentation": polygon}
    runs = coco_mask.encode(np.asfortranarray(np.eye(60, 80, dtype=np.uint8)))
    packed = {"size": [60, 80], "counts": runs["counts"].decode()}
    diagonal = instance(1, 47, (0, 0, 60, 60)) | {"segmentation": packed}
    write_coco(tmp_path, "val2017", {1: picture(60, 80)}, {1: ["a"]}, [triangle, diagonal, crowd(1, 1, (60, 80), 3)])
    sample = Coco("val", size=None, root=tmp_path).sample(0)
    want = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygon, 60, 80)))
    assert sample.segments is not None
    assert np.array_equal(sample.segments[0], want > 0)
    assert np.array_equal(sample.segments[1], np.eye(60, 80) > 0)
    assert sample.segmentation is not None
    things = sample.segments.any(0)
    assert np.array_equal(sample.segmentation[:3] == 255, ~things[:3])  # the crowd lies under every object


def test_splits_years_and_folders(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path / "a")
    assert Coco("train", root=root).ids[0] == "coco/train2017/000000000042"
    assert list(Coco("test", root=root).ids) == list(Coco("val", root=root).ids)
    assert [len(Coco("val", root=root, count=n)) for n in (2, 9)] == [2, 3]
    old = tiny_coco(tmp_path / "b", ("val2014",))
    assert Coco("val", root=old).ids[0] == "coco/val2014/COCO_val2014_000000000042"
    (old / "images").mkdir()
    (old / "val2014").rename(old / "images" / "val2014")
    assert Coco("val", size=16, root=old).sample(0).image.shape == (16, 16, 3)


def test_the_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_coco(tmp_path / "coco")
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    assert len(open_dataset("coco", split="val")) == 3
    monkeypatch.delenv("ZOO_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no COCO folder"):
        open_dataset("coco", split="val")


def test_real_photographs(tmp_path: Path) -> None:
    cat, coffee = photograph("chelsea"), photograph("coffee")
    face = instance(1, 17, (120, 40, 210, 200))
    cup = instance(2, 47, (180, 60, 300, 280))
    captions = {1: ["a ginger cat looks at the camera"], 2: ["a cup of coffee with a spoon on a wooden table"]}
    write_coco(tmp_path, "val2017", {1: cat, 2: coffee}, captions, [face, cup])
    coco = Coco("val", size=64, root=tmp_path)
    samples = [coco.sample(i) for i in range(2)]
    assert [len(s.boxes) for s in samples] == [1, 1]
    assert samples[0].image.std() > 20
    assert [error for _, error in verify(coco)] == [None, None]


# --- bad input -------------------------------------------------------------------------------------------------------


def _notes(root: Path, kind: str) -> Path:
    return root / "annotations" / f"{kind}_val2017.json"


def _edit(change: Callable[[Any], None], kind: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        content = json.loads(_notes(root, kind).read_text())
        change(content)
        _notes(root, kind).write_text(json.dumps(content))

    return damage


def _cut(root: Path) -> None:
    path = _notes(root, "instances")
    path.write_bytes(path.read_bytes()[:-40])


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no captions file": (lambda root: _notes(root, "captions").unlink(), "captions_val2017.json is missing"),
    "no instances file": (lambda root: _notes(root, "instances").unlink(), "instances_val2017.json is missing"),
    "no image folder": (lambda root: (root / "val2017").rename(root / "elsewhere"), "'val2017', is missing"),
    "an absent image": (lambda root: (root / "val2017/000000000043.jpg").unlink(), "1 of 3 images .* 000000000043.jpg"),
    "truncated JSON": (_cut, "no valid JSON"),
    "not JSON": (lambda root: _notes(root, "captions").write_bytes(b"\xff\x00"), "no valid JSON"),
    "another JSON": (lambda root: _notes(root, "captions").write_text("[1, 2]"), "no list 'images'"),
    "no annotations": (_edit(lambda c: c.pop("annotations"), "instances"), "no list 'annotations'"),
    "no categories": (_edit(lambda c: c.pop("categories"), "instances"), "categories"),
    "no file name": (_edit(lambda c: c["images"][0].pop("file_name"), "captions"), "no usable 'file_name'"),
    "no caption at all": (_edit(lambda c: c.update(images=[], annotations=[]), "captions"), "3 images have no caption"),
    "captions of unknown images": (
        _edit(lambda c: c["annotations"].append({"id": 1, "image_id": 7, "caption": "x"}), "captions"),
        r"1 image ids have captions but .* \[7\]",
    ),
    "boxes of unknown images": (
        _edit(lambda c: c["annotations"][0].update(image_id=8), "instances"),
        r"have instances but .* \[8\]",
    ),
    "images without captions": (
        _edit(lambda c: c.update(annotations=c["annotations"][:5]), "captions"),
        "2 images have no caption",
    ),
    "half a box": (_edit(lambda c: c["annotations"][1].update(bbox=[1, 2]), "instances"), "annotation 901"),
    "a box of text": (_edit(lambda c: c["annotations"][1].update(bbox="none"), "instances"), "annotation 901"),
    "an annotation that is none": (_edit(lambda c: c["annotations"].append(3), "instances"), "annotation 3"),
    "an unknown category": (
        _edit(lambda c: c["annotations"][0].update(category_id=99), "instances"),
        "category 99",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = tiny_coco(tmp_path, ("val2017",))
    assert len(Coco("val", root=root)) == 3
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Coco("val", root=root)
    assert caught.value.where
    assert caught.value.remedy


def test_lists_without_images(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path, ("val2017",), count=0)
    for kind in ("captions", "instances"):
        _edit(lambda c: c.update(annotations=[]), kind)(root)
    with pytest.raises(DataError, match="lists no images"):
        Coco("val", root=root)


def test_missing_root_and_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no COCO folder") as caught:
        Coco("val", root=tmp_path / "none")
    assert "cocodataset.org" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/coco" in caught.value.remedy
    with pytest.raises(DataError, match=r"captions_train2017\.json is missing"):
        Coco("train", root=tiny_coco(tmp_path / "a", ("val2017",)))


def test_a_damaged_or_resized_image(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path, ("val2017",))
    Image.fromarray(picture(30, 40)).save(root / "val2017/000000000042.jpg")
    path = root / "val2017/000000000043.jpg"
    path.write_bytes(path.read_bytes()[:300])
    coco = Coco("val", root=root)
    with pytest.raises(DataError, match="40x30, its annotations are for 80x60"):
        coco.sample(0)
    with pytest.raises(DataError, match="cannot be read"):
        coco.sample(1)
    assert [error is None for _, error in verify(coco)] == [False, False, True]


@pytest.mark.parametrize(
    "outline",
    [[[1]], {"counts": [4]}, {"size": [20, 20], "counts": [1, 900]}, {"size": [9, 9], "counts": [81]}, "polygon"],
)
def test_an_outline_that_is_nonsense(tmp_path: Path, outline: object) -> None:
    shape = instance(1, 17, (0, 0, 9, 9)) | {"segmentation": outline}
    write_coco(tmp_path, "val2017", {1: picture(20, 20)}, {1: ["a"]}, [shape])
    with pytest.raises(DataError, match="outline"):
        Coco("val", root=tmp_path).sample(0)


def test_describe_says_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    facts = describe("coco", tiny_coco(tmp_path, ("val2017",)))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["splits"]["val"]["count"] == 3
    assert "captions_train2017.json is missing" in facts["splits"]["train"]["error"]
    assert "annotations/captions_train2017.json" in facts["layout"]
    assert "cocodataset.org" in facts["layout"]


# --- variants --------------------------------------------------------------------------------------------------------


def test_a_variant_chooses_among_years(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path, ("train2017", "val2017", "train2014", "val2014"))
    opened = {variant: open_dataset("coco", split="val", root=root, variant=variant) for variant in ("2017", "2014")}
    assert opened["2014"].ids[0] == "coco/val2014/COCO_val2014_000000000042"
    assert list(opened["2017"].ids) == list(Coco("val", root=root).ids), "2017 where nobody says"
    official = [[Coco(split, root=root, variant=year).official for split in SPLITS] for year in ("2017", "2014")]
    assert official == [[118_287, 5_000, 5_000], [82_783, 40_504, 40_504]]
    with pytest.raises(UsageError, match="variant of coco '2015'"):
        Coco("val", root=root, variant="2015")
    with pytest.raises(DataError, match=r"captions_val2014\.json is missing"):
        Coco("val", root=tiny_coco(tmp_path / "b"), variant="2014")


def test_karpathy_parts_the_images_of_2014_anew(tmp_path: Path) -> None:
    root = karpathy_tree(tmp_path, 6)
    train, val, test = (Coco(split, root=root, variant="karpathy") for split in SPLITS)
    assert [len(train), len(val), len(test)] == [8, 2, 2]
    assert len({*train.ids, *val.ids, *test.ids}) == 12
    assert [name.split("/")[1] for name in train.ids] == ["train2014"] * 6 + ["val2014"] * 2, "restval is train's"
    assert [dataset.official for dataset in (train, val, test)] == [113_287, 5_000, 5_000]
    sample = test.sample(0)
    assert sample.captions == tuple(f"sentence {n} of COCO_val2014_000000000502.jpg ." for n in range(5))
    whole = open_dataset("coco", split="val", root=root, variant="2014", size=256)
    same = whole.sample(list(whole.ids).index(test.ids[0]))
    assert np.array_equal(same.image, sample.image), "the same image has the same id under both"
    assert np.array_equal(same.boxes, sample.boxes)
    assert np.array_equal(same.segmentation, sample.segmentation)  # type: ignore[arg-type]
    assert len(Coco("train", root=root, variant="karpathy", count=7)) == 7


def test_karpathys_file_may_lie_with_the_annotations(tmp_path: Path) -> None:
    root = karpathy_tree(tmp_path, 6)
    (root / "dataset_coco.json").rename(root / "annotations" / "dataset_coco.json")
    assert len(Coco("test", root=root, variant="karpathy")) == 2


def _karpathy(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        content = json.loads((root / "dataset_coco.json").read_text())
        change(content["images"])
        (root / "dataset_coco.json").write_text(json.dumps(content))

    return damage


BAD_KARPATHY: dict[str, tuple[Callable[[Path], object], str]] = {
    "no split file": (lambda root: (root / "dataset_coco.json").unlink(), r"dataset_coco\.json is missing"),
    "half of it": (lambda root: (root / "dataset_coco.json").write_text('{"images": ['), "no valid JSON"),
    "captions of an unknown image": (
        _karpathy(lambda images: images[8].update(cocoid=7)),
        r"have captions but .* \[7\]",
    ),
    "no number": (_karpathy(lambda images: images[8].update(cocoid="x")), "no usable"),
    "a sentence of another image": (
        _karpathy(lambda images: images[8]["sentences"][0].update(imgid=1)),
        "1 captions of COCO_val2014_000000000502.jpg are of other images",
    ),
    "no image of the split": (_karpathy(lambda images: [i.update(split="val") for i in images]), "no image is of this"),
    "no regions": (
        lambda root: (root / "annotations/instances_val2014.json").unlink(),
        "instances_val2014.json is miss",
    ),
    "an absent image": (
        lambda root: (root / "val2014/COCO_val2014_000000000502.jpg").unlink(),
        "1 of 2 images .* COCO_val2014_000000000502.jpg",
    ),
}


@pytest.mark.parametrize("name", BAD_KARPATHY)
def test_damage_to_karpathys_splits(tmp_path: Path, name: str) -> None:
    root = karpathy_tree(tmp_path, 6)
    damage, message = BAD_KARPATHY[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Coco("test", root=root, variant="karpathy")
    assert caught.value.where
    assert caught.value.remedy


def test_downloads_by_variant() -> None:
    files = {variant: [source.file for source in Coco.sources_for(variant)] for variant in (None, "2014", "karpathy")}
    assert files[None] == ["val2017.zip", "annotations_trainval2017.zip", "train2017.zip"]
    assert files["2014"] == ["val2014.zip", "annotations_trainval2014.zip", "train2014.zip"]
    assert files["karpathy"] == [*files["2014"], "caption_datasets.zip"]
    assert all(len(source.sha256) == 64 for source in Coco.sources if source.automatic)
