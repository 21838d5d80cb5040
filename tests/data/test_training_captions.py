"""The training captions of every kind of dataset, without its images where they can be had so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo.data.shapes.dataset
from tests.fakes import Pictures, tiny_coco
from zoo.data import open_dataset
from zoo.data.base import Sample
from zoo.data.module import InpaintingData
from zoo.data.shapes import Shapes
from zoo.data.shapes.captions import captions
from zoo.data.shapes.scene import draw_scene
from zoo.errors import DataError
from zoo.words import split, vocabulary

ROOT = Path(__file__).resolve().parents[2]


def words_of(texts: Any) -> set[str]:
    return {word for text in texts for word in split(text)}


def test_shapes_give_those_of_the_training_scenes_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a scene was drawn")

    monkeypatch.setattr(zoo.data.shapes.dataset, "draw", refuse)
    found = list(InpaintingData(size=32, train_count=5, val_count=9).captions())
    assert found == [text for n in range(5) for text in captions(draw_scene("train", n))]
    assert len(found) == 30


def test_the_captions_that_shapes_give_hold_every_word_of_all() -> None:
    given = list(Shapes("train").caption_texts())
    assert len(given) == 4000 * 6
    rest = (text for n in range(4000, len(Shapes("train"))) for text in captions(draw_scene("train", n)))
    assert words_of(rest) <= words_of(given)


def test_every_process_makes_the_same_words() -> None:
    code = "from zoo.data.shapes import Shapes; from zoo.words import vocabulary"
    code += "; print(*vocabulary(Shapes('train', count=40).caption_texts()))"
    salts = [{**os.environ, "PYTHONHASHSEED": salt} for salt in ("1", "2")]
    found = [subprocess.check_output([sys.executable, "-c", code], env=env, cwd=ROOT, text=True) for env in salts]
    assert found[0] == found[1] == " ".join(vocabulary(InpaintingData(train_count=40).captions())) + "\n"


def test_coco_gives_all_captions_of_its_training_images_from_the_annotations(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path)
    for image in root.rglob("*.jpg"):
        image.write_bytes(b"no image")
    path = root / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry["caption"] = "evaluation"
    path.write_text(json.dumps(content))
    data = InpaintingData("coco", root=str(root), train_count=2)
    assert list(data.captions()) == [f"caption {n} of image {i}" for i in (42, 43) for n in range(5)]


def _folder(root: Path, texts: dict[str, dict[str, list[str]]]) -> Path:
    for split_name, lines in texts.items():
        (root / split_name).mkdir(parents=True)
        for name in lines:
            Image.new("RGB", (32, 32)).save(root / split_name / name)
        entries = [json.dumps({"file": name, "captions": said}) for name, said in lines.items()]
        (root / split_name / "captions.jsonl").write_text("\n".join(entries))
    return root


def test_a_folder_gives_those_of_its_training_images(tmp_path: Path) -> None:
    train = {"a.png": ["one", "two"], "b.png": ["three"], "c.png": ["four"]}
    root = _folder(tmp_path, {"train": train, "val": {"d.png": ["evaluation"]}})
    for image in root.rglob("*.png"):
        image.write_bytes(b"no image")
    assert list(InpaintingData("folder", root=str(root), train_count=2).captions()) == ["one", "two", "three"]


def test_a_folder_without_captions_gives_none(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    assert list(InpaintingData("folder", root=str(tmp_path)).captions()) == []


class Broken(Pictures):
    """A third party's dataset whose second picture is gone."""

    def sample(self, index: int) -> Sample:
        if index == 1:
            raise OSError("gone")
        return super().sample(index)


def test_of_a_dataset_that_cannot_name_them_the_samples_are_read() -> None:
    data = InpaintingData("tests.fakes:Pictures", train_count=3)
    assert list(data.captions()) == ["one", "two", "three"] * 3
    opened = data.dataset("train")
    assert isinstance(opened, Pictures)
    assert opened.reads == 3
    assert not hasattr(open_dataset("tests.fakes:Pictures"), "caption_texts")
    with pytest.raises(DataError, match=r"sample 'pictures/train/001' cannot be read: gone"):
        list(InpaintingData(f"{__name__}:Broken", train_count=3).captions())
