"""Flickr30k's official layout, and what can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from tests.trees.flickr30k import flickr30k_tree
from zoo.data import open_dataset
from zoo.data.flickr30k import Flickr30k, read_boxes, read_sentences, strip_markup
from zoo.errors import DataError, UsageError

STEM = "1000092795"  # the first of train


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("[/EN#283585/people Two young guys]", "Two young guys"),
        ("[/EN#1/people Two guys] look at [/EN#2/bodyparts/other their hands] .", "Two guys look at their hands ."),
        ("[/EN#0/notvisual Nothing] here", "Nothing here"),
        ("A man [sic] walks .", "A man [sic] walks ."),
        ("Plain .", "Plain ."),
    ],
)
def test_markup_is_stripped(marked: str, plain: str) -> None:
    assert strip_markup(marked) == plain


def test_a_sample_has_everything(tmp_path: Path) -> None:
    dataset = Flickr30k("train", size=None, root=flickr30k_tree(tmp_path, 3))
    assert list(dataset.ids) == [f"flickr30k/images/{1000092795 + 7 * n}" for n in range(3)]
    sample = dataset.sample(0)
    assert np.abs(sample.image.astype(int) - picture(50, 66, 0)).mean() < 3
    assert sample.captions == ("Two young guys with shaggy hair look at their hands .",) * 5
    assert sample.boxes.tolist() == [[10, 5, 40, 30], [29, 19, 45, 40]]  # corners count from 1, the last included
    assert dataset.official == 29_783
    assert [path.suffix for path in dataset.files(0)] == [".jpg", ".xml", ".txt"]
    assert list(dataset.caption_texts()) == [text for i in range(3) for text in dataset.sample(i).captions]


def test_boxes_move_with_the_image(tmp_path: Path) -> None:
    sample = Flickr30k("train", size=25, root=flickr30k_tree(tmp_path, 3)).sample(0)
    assert sample.image.shape == (25, 25, 3)
    assert sample.boxes.tolist() == [[1, 2.5, 16, 15], [10.5, 9.5, 18.5, 20]]  # halved, then 4 columns cropped away


def test_captions_of_the_token_file(tmp_path: Path) -> None:
    root = flickr30k_tree(tmp_path, 3)
    for path in (root / "Sentences").iterdir():
        path.unlink()
    (root / "Sentences").rmdir()
    dataset = Flickr30k("train", root=root)
    assert dataset.caption_source.name == "results_20130124.token"
    assert dataset.sample(1).captions[4] == f"Token caption 4 of {int(STEM) + 7} ."
    assert dataset.shared_files[-1] == dataset.caption_source
    lines = dataset.caption_source.read_text().splitlines()
    dataset.caption_source.write_text("\n".join(lines[5:]))
    with pytest.raises(DataError, match=f"1 images have no caption: {STEM}"):
        Flickr30k("train", root=root)
    dataset.caption_source.write_text("\n".join([*lines, "77.jpg#0\ta stranger"]))
    with pytest.raises(DataError, match="1 images have captions but are in no list of images: 77"):
        Flickr30k("train", root=root)
    dataset.caption_source.write_text("\n".join([*lines, "no caption"]))
    with pytest.raises(DataError, match="this line is no caption") as caught:
        Flickr30k("train", root=root)
    assert caught.value.where.endswith(f"line {len(lines) + 1}")


def test_karpathy_splits_the_same_images_otherwise(tmp_path: Path) -> None:
    root = flickr30k_tree(tmp_path, 3)
    content = json.loads((root / "dataset_flickr30k.json").read_text())
    content["images"][0]["split"] = "test"
    (root / "dataset_flickr30k.json").write_text(json.dumps(content))
    dataset = open_dataset("flickr30k", split="test", root=root, variant="karpathy")
    assert dataset.ids[0] == f"flickr30k/images/{STEM}"
    assert len(dataset) == 4
    assert dataset.sample(0).captions[0] == f"sentence 0 of {STEM}.jpg ."
    assert len(dataset.sample(0).boxes) == 2
    assert Flickr30k("val", root=root, variant="karpathy").official == 1_014
    with pytest.raises(UsageError, match="variant of flickr30k 'karpaty'"):
        Flickr30k("test", root=root, variant="karpaty")


def test_entities_in_a_folder_of_their_own(tmp_path: Path) -> None:
    root = flickr30k_tree(tmp_path, 3)
    (root / "flickr30k_entities").mkdir()
    for name in ("Annotations", "Sentences", "train.txt", "val.txt", "test.txt"):
        (root / name).rename(root / "flickr30k_entities" / name)
    (root / "flickr30k-images").rename(root / "images")
    assert len(Flickr30k("val", root=root).sample(0).captions) == 5


def test_downloads_by_variant() -> None:
    files = {v: [source.file for source in Flickr30k.sources_for(v)] for v in ("entities", "karpathy")}
    assert files["entities"] == ["flickr30k-images.tar.gz", "annotations.zip", "train.txt", "val.txt", "test.txt"]
    assert files["karpathy"] == ["flickr30k-images.tar.gz", "annotations.zip", "caption_datasets.zip"]
    assert not any(source.automatic for source in Flickr30k.sources), "the images are given on request only"


# --- bad input -------------------------------------------------------------------------------------------------------


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def _karpathy(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / "dataset_flickr30k.json"
        content = json.loads(path.read_text())
        change(content["images"][0])
        path.write_text(json.dumps(content))

    return damage


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (lambda root: (root / "flickr30k-images").rename(root / "x"), "the images.*is missing"),
    "no boxes": (lambda root: (root / "Annotations").rename(root / "x"), "Entities' boxes.*is missing"),
    "no list": (_remove("val.txt"), "val.txt is missing"),
    "an empty list": (lambda root: (root / "train.txt").write_text("\n"), "train.txt is empty"),
    "an absent image": (_remove(f"flickr30k-images/{STEM}.jpg"), f"1 of 3 images .* {STEM}.jpg"),
    "absent boxes": (_remove(f"Annotations/{STEM}.xml"), f"1 of 3 files of boxes .* {STEM}.xml"),
    "absent sentences": (_remove(f"Sentences/{STEM}.txt"), f"1 of 3 files of captions .* {STEM}.txt"),
    "sentences of unknown images": (lambda root: (root / "Sentences/1.txt").write_text("x"), "no list of images: 1"),
}
BAD_KARPATHY: dict[str, tuple[Callable[[Path], object], str]] = {
    "no split file": (_remove("dataset_flickr30k.json"), "dataset_flickr30k.json is missing"),
    "no JSON": (lambda root: (root / "dataset_flickr30k.json").write_text("{"), "no valid JSON"),
    "another JSON": (lambda root: (root / "dataset_flickr30k.json").write_text("[1]"), "no list 'images'"),
    "an unknown split": (_karpathy(lambda image: image.update(split="dev")), "split 'dev', which does not exist"),
    "no sentences": (_karpathy(lambda image: image.update(sentences=[])), "an image has no caption"),
    "no file name": (_karpathy(lambda image: image.pop("filename")), "no usable 'filename'"),
    "sentences of another image": (_karpathy(lambda image: image.update(imgid=77)), "5 captions of .* other images"),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_KARPATHY])
def test_damage_is_named_at_once(tmp_path: Path, name: str) -> None:
    root = flickr30k_tree(tmp_path, 3)
    variant = "entities" if name in BAD else "karpathy"
    assert len(Flickr30k("train", root=root, variant=variant)) == 3
    damage, message = (BAD | BAD_KARPATHY)[name]
    damage(root)
    with pytest.raises(DataError, match=message) as caught:
        Flickr30k("train", root=root, variant=variant)
    assert caught.value.where
    assert caught.value.remedy


def test_a_missing_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no Flickr30k folder") as caught:
        open_dataset("flickr30k", split="test")
    assert caught.value.where == str(tmp_path / "flickr30k")
    assert "DenotationGraph" in caught.value.remedy
    assert "--data.root DIR (root= in Python), or have it as" in caught.value.remedy
    assert "$ZOO_DATA/flickr30k" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "<annotation>", "<a/>", "<a><size><width>x</width></size></a>"])
def test_boxes_that_are_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "1.xml").write_text(text)
    with pytest.raises(DataError, match="boxes of this image cannot be read"):
        read_boxes(tmp_path / "1.xml", 10, 10)


def test_boxes_for_another_size_and_sentences_that_are_damaged(tmp_path: Path) -> None:
    root = flickr30k_tree(tmp_path, 3)
    Image.fromarray(picture(20, 20)).save(root / f"flickr30k-images/{STEM}.jpg")
    with pytest.raises(DataError, match="20x20, its boxes are for 66x50"):
        Flickr30k("train", root=root).sample(0)
    (tmp_path / "1.txt").write_text("[/EN#1/people Two young guys\n")
    with pytest.raises(DataError, match="markup of a caption is damaged"):
        read_sentences(tmp_path / "1.txt")
