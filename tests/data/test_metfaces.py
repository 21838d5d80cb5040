"""MetFaces' layout: the list, the split by works, and what can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.metfaces import metfaces_tree
from zoo.data.metfaces import MetFaces, _tested
from zoo.errors import DataError


def test_splits_and_ids(tmp_path: Path) -> None:
    root = metfaces_tree(tmp_path, 3)
    train, test = (MetFaces(split, size=32, root=root) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 3)
    assert list(MetFaces("val", root=root).ids) == list(test.ids)
    assert sorted(train.names + test.names) == sorted(path.name for path in (root / "images").iterdir())
    assert test.ids[0] == f"metfaces/test/{test.names[0].removesuffix('.png')}"
    assert list(train.ids) == sorted(train.ids)
    assert (train.official, test.official) == (1_000, 336)
    assert train.provides == {"image", "mask", "edge"}
    assert train.sample(1).image.shape == (32, 32, 3)
    assert MetFaces("train", size=None, root=root, count=1).sample(0).image.shape[0] in (41, 42, 43)
    assert [path.name for path in train.shared_files] == ["metfaces.json"]
    assert train.files(0) == (root / "images" / train.names[0],)


def test_the_split_of_the_whole_dataset() -> None:
    faces = {f"{work}-{face:02d}.png": str(work) for work in range(10_000, 10_668) for face in (0, 1)}
    tested = _tested(faces)
    assert len(faces) == 1_336
    assert sum(tested.values()) == 336
    assert tested == dict(sorted(_tested(dict(reversed(faces.items()))).items()))  # whatever the order of the list
    assert sorted(file for file in faces if tested[file])[:4] == [
        "10002-00.png",
        "10002-01.png",
        "10003-00.png",
        "10003-01.png",
    ]  # fixed: numbers are measured on it
    apart = [work for work in set(faces.values()) if tested[f"{work}-00.png"] != tested[f"{work}-01.png"]]
    assert apart == []  # both faces of a work are on one side: 336 is even
    ranks = [list(faces).index(file) for file, is_tested in tested.items() if is_tested]
    assert 500 < sum(ranks) / len(ranks) < 840  # all over the collection, and not its first works


def test_the_split_depends_on_the_list_alone(tmp_path: Path) -> None:
    root = metfaces_tree(tmp_path, 3)
    before = list(MetFaces("test", root=root).ids)
    (root / "images" / MetFaces("train", root=root).names[0]).unlink()
    assert list(MetFaces("test", root=root).ids) == before
    with pytest.raises(DataError, match="1 of 9 images"):
        MetFaces("train", root=root)


# --- bad input -------------------------------------------------------------------------------------------------------


def _edit(change: Callable[[list[Any]], object]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        entries = json.loads((root / "metfaces.json").read_text())
        change(entries)
        (root / "metfaces.json").write_text(json.dumps(entries))

    return damage


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list": (lambda root: (root / "metfaces.json").unlink(), "metfaces.json is missing"),
    "no images": (lambda root: (root / "images").rename(root / "x"), "folder of images, 'images', is missing"),
    "truncated JSON": (
        lambda root: (root / "metfaces.json").write_text((root / "metfaces.json").read_text()[:-20]),
        "no valid JSON",
    ),
    "another JSON": (lambda root: (root / "metfaces.json").write_text('{"images": []}'), "it is no list of faces"),
    "an empty list": (lambda root: (root / "metfaces.json").write_text("[]"), "it is no list of faces"),
    "a face without path": (_edit(lambda faces: faces[2].pop("image_path")), "face 2 has no usable 'image_path'"),
    "a face without work": (_edit(lambda faces: faces[2].pop("obj_id")), "face 2 has no usable 'obj_id'"),
    "a face that is none": (_edit(lambda faces: faces.append("x")), "face 12 has no usable"),
    "a path of a number": (_edit(lambda faces: faces[2].update(image_path=7)), "face 2 has no usable"),
    "a face elsewhere": (
        _edit(lambda faces: faces[2].update(image_path="../x.png")),
        r"face 2 is not images/NAME.png but \.\./x\.png",
    ),
    "a face twice": (_edit(lambda faces: faces.append(faces[0])), "it lists images/11000-00.png twice"),
    "too few faces": (_edit(lambda faces: faces.__delitem__(slice(1, None))), "too few images for split 'test'"),
    "an absent image": (
        _edit(lambda faces: faces.extend({"image_path": f"images/{n}.png", "obj_id": n} for n in range(40))),
        r"\d+ of 13 images",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = metfaces_tree(tmp_path, 3)
    assert len(MetFaces("test", root=root)) == 3
    damage, message = BAD[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        MetFaces("test", root=root)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root_and_unusable_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no MetFaces folder") as caught:
        MetFaces("test", root=tmp_path / "none")
    assert "metfaces.json" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/metfaces" in caught.value.remedy
    faces = MetFaces("train", size=16, root=metfaces_tree(tmp_path, 1))
    first, second = (faces.files(index)[0] for index in (0, 1))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    Image.fromarray(picture(40, 50)).save(second)
    for index, message in enumerate(("cannot be read", "50x40, not square")):
        with pytest.raises(DataError, match=message) as caught:
            faces.sample(index)
        assert caught.value.where == str(faces.files(index)[0])
