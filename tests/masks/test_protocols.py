"""`python -m benchmarks.manifests`: the masks of the papers' protocols, end to end on tiny trees."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.manifests import FOLDER, PROTOCOLS, main
from tests.fakes import tiny_coco
from zoo.data import DATASETS
from zoo.data.coco import Coco
from zoo.data.masked import canvas_of
from zoo.masks import draw_mask, parse_mixture
from zoo.masks.manifest import Entry, Manifest, read, verify, write
from zoo.weights import sha256


def test_every_protocol_names_data_and_masks_that_exist() -> None:
    for protocol, splits in PROTOCOLS.items():
        names = [images.file(mask) for images in splits for mask in images.masks]
        assert len(names) == len(set(names)), protocol
        assert not any(":" in name for name in names)
        for images in splits:
            assert images.dataset in DATASETS
            for mask in images.masks:
                parse_mixture(mask)


def test_the_shipped_manifests_come_out_again_byte_by_byte(tmp_path: Path) -> None:
    assert main(["zoo", "--out", str(tmp_path)]) == 0
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in FOLDER.glob("*.gz") if path.name.startswith("shapes-"))
    table = (FOLDER / "README.md").read_text()
    for name in made:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
        assert f"| `{name}` | 512 | `{sha256(FOLDER / name)}` |" in table


def test_the_readme_has_a_command_for_every_other() -> None:
    table = (FOLDER / "README.md").read_text()
    for protocol, splits in PROTOCOLS.items():
        for images in splits:
            if protocol != "zoo":
                assert (
                    f"`python -m benchmarks.manifests {protocol} --dataset {images.dataset} --data.root DIR`" in table
                )


def test_a_coco_tree_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tiny_coco(tmp_path / "tree", ("val2017",)), tmp_path / "out"
    assert main(["ecdm", "--dataset", "coco", "--data.root", str(root), "--out", str(out)]) == 0
    files = sorted(path.name for path in out.iterdir())
    assert files == [f"coco-test-irregular-{bucket}-512.jsonl.gz" for bucket in ("10-20", "30-40", "50-60")]
    printed = capsys.readouterr().out
    coco = Coco("test", size=512, root=root)
    for name, low in zip(files, (10, 30, 50), strict=True):
        assert sha256(out / name) in printed
        manifest = read(out / name)
        assert list(manifest.entries) == list(coco.ids)
        assert verify(out / name, (canvas_of(coco, coco.sample(i)) for i in range(len(coco)))) == []
        for entry in manifest.entries.values():
            assert low < 100 * entry.ratio <= low + 10
            assert entry.caption == 0
            assert entry.size == (512, 512)
        assert "caption 0 of" not in gzip.decompress((out / name).read_bytes()).decode(), "no text travels"
    first = coco.sample(0)
    wanted = draw_mask("irregular:30-40", canvas_of(coco, first))
    assert (read(out / files[1]).mask(first.id) == wanted).all()


def test_a_folder_of_datasets_and_those_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_coco(tmp_path / "data" / "coco", ("val2017",))
    out = tmp_path / "out"
    assert main(["ecdm", "--data.root", str(tmp_path / "data"), "--out", str(out), "--limit", "2"]) == 3
    message = capsys.readouterr().err
    assert "there is no folder 'openimages' here" in message
    assert [len(read(path).entries) for path in out.iterdir()] == [2, 2, 2], "the others are made all the same"


def test_wrong_names_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["tdanett"], "did you mean 'tdanet'"),
        (["ecdm", "--dataset", "cub"], "unknown dataset of protocol 'ecdm' 'cub'"),
        (["zoo", "--limit", "3"], "--out DIR"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_a_caption_is_written_only_where_it_is_fixed(tmp_path: Path) -> None:
    mask = np.eye(8, dtype=np.uint8)
    entries = {"a": Entry.of("a", mask), "b": Entry.of("b", mask, caption=3)}
    write(tmp_path / "m.jsonl.gz", Manifest("fake", "test", "center", 0, entries))
    lines = gzip.decompress((tmp_path / "m.jsonl.gz").read_bytes()).decode().splitlines()
    assert ["caption" in json.loads(line) for line in lines[1:]] == [False, True]
    assert {name: entry.caption for name, entry in read(tmp_path / "m.jsonl.gz").entries.items()} == {"a": None, "b": 3}
