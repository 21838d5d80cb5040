"""`zoo masks make|verify|show`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from zoo.cli.masks import GAP, LABEL, ROW
from zoo.masks import examples
from zoo.masks.manifest import read
from zoo.weights import sha256

SMALL = ("--size", "32", "--limit", "6")


def test_make_and_verify(zoo: Run, place: Path) -> None:
    done = zoo("masks", "make", "--dataset", "shapes", "--mask", "object", *SMALL, "--out", "m.jsonl.gz")
    assert done.code == 0, done.err
    assert "6 masks" in done.out
    assert sha256(place / "m.jsonl.gz") in done.out
    again = zoo("masks", "make", "--mask", "object", *SMALL, "--out", "n.jsonl.gz")
    assert again.code == 0
    assert (place / "m.jsonl.gz").read_bytes() == (place / "n.jsonl.gz").read_bytes()
    other = zoo("masks", "make", "--mask", "object", *SMALL, "--seed", 1, "--out", "o.jsonl.gz")
    assert other.code == 0
    assert (place / "m.jsonl.gz").read_bytes() != (place / "o.jsonl.gz").read_bytes()
    for more in ((), ("--dataset", "shapes")):
        verified = zoo("masks", "verify", "m.jsonl.gz", *more)
        assert verified.code == 0, verified.err
        assert "0 problems" in verified.out


def test_a_mask_that_was_changed_is_found(zoo: Run, place: Path) -> None:
    assert zoo("masks", "make", "--mask", "center", *SMALL, "--out", "m.jsonl.gz").code == 0
    lines = gzip.decompress((place / "m.jsonl.gz").read_bytes()).decode().splitlines()
    entry = json.loads(lines[2])
    lines[2] = json.dumps(entry | {"ratio": 0.5})
    (place / "bad.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    done = zoo("masks", "verify", "bad.jsonl.gz")
    assert done.code == 3
    assert entry["id"] in done.out
    assert "1 problems" in done.out


def test_show_is_a_sheet_of_masked_images(zoo: Run, place: Path) -> None:
    done = zoo("masks", "show", "--mask", "center", "--size", 32, "--limit", 5, "--out", "sheet.png")
    assert done.code == 0, done.err
    sheet = np.asarray(Image.open(place / "sheet.png"))
    assert sheet.shape == (2 * 32, 3 * 32, 3)
    assert (sheet[8:24, 8:24] == 128).all()
    assert (sheet[32:, 64:] == 255).all()  # there is no sixth


def test_show_all_is_a_sheet_of_every_kind(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_NVIDIA_MASKS", "nowhere")
    done = zoo("masks", "show", "--mask", "all", "--size", 32, "--limit", 2, "--out", "sheet.png")
    assert done.code == 0, done.err
    sheet = np.asarray(Image.open(place / "sheet.png"))
    count = len(examples(("background", "circle")))
    width, height = 2 * (32 + 2) + GAP, LABEL + 32 + GAP
    assert sheet.shape == (-(-count // ROW) * height, ROW * width, 3)
    for number, kind in enumerate(examples(("background", "circle"))):
        top, left = number // ROW * height, number % ROW * width
        cell = sheet[top : top + height, left : left + width]
        assert (cell[:LABEL] < 128).any(), f"{kind} has a label"
        missing = kind == "file" or kind.startswith("nvidia")
        picture = cell[LABEL : LABEL + 32, :66]
        assert ((picture == 255).all(-1).mean() > 0.6) == missing, kind
        assert missing or (picture == 128).all(-1).any(), kind
        assert (f"{kind}: " in done.err) == missing
    assert "test_mask.zip" in done.err


def test_mixtures_by_name_and_options_of_a_dataset(zoo: Run, place: Path) -> None:
    assert zoo("masks", "make", "--mask", "mixture:nano", *SMALL, "--out", "m.jsonl.gz").code == 0
    assert zoo("masks", "make", "--mask", "2*object,freeform,center", *SMALL, "--out", "n.jsonl.gz").code == 0
    masks = [(place / name).read_bytes() for name in ("m.jsonl.gz", "n.jsonl.gz")]
    lines = [gzip.decompress(content).decode().splitlines() for content in masks]
    assert lines[0][1:] == lines[1][1:]
    assert lines[0][0] != lines[1][0]
    for name in ("images", "masks"):
        (place / name).mkdir()
        Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(place / name / "a.png")
    words = ("--dataset", "folder", "--data.root", "images", "--option", "mask_root=masks", "--mask", "file")
    done = zoo("masks", "make", *words, "--size", 32, "--out", "f.jsonl.gz")
    assert done.code == 0, done.err
    assert np.array_equal(read("f.jsonl.gz").mask("folder/all/a"), np.eye(32))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("make",), 2, "needs --out"),
        (("show", "--mask", "center"), 2, "needs --out"),
        (("make", "stray", "--out", "m"), 2, "unexpected argument 'stray'"),
        (("make", "--mask", "objcet", "--out", "m"), 2, "did you mean 'object'"),
        (("make", "--mask", "all", "--out", "m"), 2, "unknown mask 'all'"),
        (("make", "--mask", "mixture:cmaa", "--out", "m"), 2, "did you mean 'cma'"),
        (("make", "--option", "variant=x", "--out", "m"), 2, "option"),
        (("make", "--mask", "nvidia:10-20", "--out", "m"), 3, "ZOO_NVIDIA_MASKS"),
        (("make", "--mask", "irregular:60-50", "--out", "m"), 2, "bucket"),
        (("make", "--dataset", "shaps", "--out", "m"), 2, "did you mean 'shapes'"),
        (("verify", "nowhere.jsonl.gz"), 3, "no such mask manifest"),
        (("verify", "torn.jsonl.gz"), 3, "damaged"),
    ],
)
def test_bad_input(words: tuple[str, ...], code: int, message: str, zoo: Run, place: Path) -> None:
    (place / "torn.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4])
    done = zoo("masks", *words)
    assert done.code == code, done.err
    assert message in done.err
    assert not (place / "m").exists()
