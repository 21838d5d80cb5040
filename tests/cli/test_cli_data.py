"""`zoo data`: what is said before and after downloads, verification, and the errors."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Run

from tests.trees.coco import coco_tree, karpathy_tree
from tests.trees.cub import cub_tree
from tests.trees.flickr30k import flickr30k_tree
from tests.trees.openimages import openimages_tree
from zoo.data.cub import Cub
from zoo.data.folder import Folder
from zoo.data.info import root_of
from zoo.data.openimages import OpenImages
from zoo.data.sources import Source


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder and says nothing."""

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def _zipped(root: Path, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            for path in sorted(p for p in (root / name).rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(root))
    return packed.getvalue()


@pytest.fixture
def birds(tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """CUB as two archives and a list, of which the second archive is given by hand; the archives by name."""
    folder, address = served
    tree = cub_tree(tmp_path / "tree", 4)
    archives = {"cub.zip": _zipped(tree, "CUB_200_2011"), "texts.zip": _zipped(tree, "cvpr2016_cub")}
    (folder / "cub.zip").write_bytes(archives["cub.zip"])
    (folder / "notes.txt").write_text("notes")
    sha = hashlib.sha256(archives["cub.zip"]).hexdigest()
    sources = (
        Source(
            *(
                "images, boxes and splits",
                f"{address}/cub.zip",
                len(archives["cub.zip"]),
                "research only",
                sha,
                ".",
                True,
            ),
            makes=("CUB_200_2011/images.txt",),
        ),
        Source("notes", f"{address}/notes.txt", 5, "CC0", automatic=True),
        Source(
            "captions",
            f"{address}/texts.zip",
            0,
            "none is stated",
            unpack_to=".",
            note="ask for it",
            makes=("cvpr2016_cub",),
        ),
    )
    monkeypatch.setattr(Cub, "sources", sources)
    return archives


def test_prepare_says_what_is_needed_and_downloads_nothing(zoo: Run, place: Path, birds: dict[str, bytes]) -> None:
    done = zoo("data", "prepare", "cub", "--data.root", "birds")
    assert done.code == 3
    for said in ("CUB_200_2011/images/", "research only", "/cub.zip", "by hand", "ask for it", "nothing is downloaded"):
        assert said in done.out
    assert done.err.count("remedy:") == 1
    assert not (place / "birds").exists()


def test_prepare_fetches_unpacks_and_says_so(zoo: Run, place: Path, birds: dict[str, bytes]) -> None:
    done = zoo("data", "prepare", "cub", "--data.root", "birds", "--download")
    assert done.code == 3, "the captions are still missing"
    told = done.err
    for said in ("fetching images, boxes and splits: cub.zip", "licence: research only", "to birds:", "in all"):
        assert said in told
    assert told.index("fetching notes") < told.index("cub.zip: sha256"), "all is said before anything is fetched"
    assert "checked; 13 files unpacked into birds" in told
    assert "recorded: none is published" in told
    assert (place / "birds" / "notes.txt").read_text() == "notes"
    assert not (place / "birds/.zoo/downloads/cub.zip").exists()
    (place / "birds" / "texts.zip").write_bytes(birds["texts.zip"])
    done = zoo("data", "prepare", "cub", "--data.root", "birds", "--download")
    assert (done.code, "fetching" in done.err) == (0, False), done.err
    assert "texts.zip: 10 files unpacked" in done.err
    assert done.out.startswith("cub: train, val, test can be used, in birds")
    assert zoo("data", "verify", "cub", "--data.root", "birds", "--partial").code == 0
    facts = json.loads(zoo("data", "info", "cub", "--data.root", "birds", "--json").out)
    assert [source["here"] for source in facts["sources"]] == [True, True, True]
    assert facts["splits"]["test"]["official"] == 5_794


def test_prepare_only_again_and_keep(zoo: Run, place: Path, birds: dict[str, bytes]) -> None:
    words = ("data", "prepare", "cub", "--data.root", "birds", "--download", "--json")
    done = zoo(*words, "--only", "notes")
    assert "cub.zip" not in done.err
    assert json.loads(done.out)["ready"] == []
    assert "fetching" not in zoo(*words, "--only", "notes").err
    assert "checked" in zoo(*words, "--only", "notes", "--again").err
    assert zoo(*words, "--only", "cub", "--keep").code == 3
    assert (place / "birds/.zoo/downloads/cub.zip").read_bytes() == birds["cub.zip"]
    done = zoo(*words, "--only", "dodo")
    assert done.code == 2
    assert "files: cub.zip, notes.txt, texts.zip" in done.err


def test_failures_and_offline_are_one_error(
    zoo: Run, place: Path, birds: dict[str, bytes], served: tuple[Path, str]
) -> None:
    (served[0] / "cub.zip").write_bytes(birds["texts.zip"])
    done = zoo("data", "prepare", "cub", "--data.root", "birds", "--download")
    assert (done.code, done.err.count("remedy:")) == (3, 1)
    assert "the hash of cub.zip is" in done.err
    (served[0] / "cub.zip").unlink()
    done = zoo("data", "prepare", "cub", "--data.root", "birds", "--download")
    assert (done.code, "answers 404" in done.err) == (3, True)
    assert not (place / "birds" / "CUB_200_2011").exists()
    done = zoo("data", "prepare", "cub", "--data.root", "offline", "--download", "--offline")  # holds until the end
    assert (done.code, done.err.count("remedy:")) == (2, 1)
    assert "--offline forbids downloads" in done.err
    assert not (place / "offline").exists()


def test_prepare_with_a_list_for_the_official_downloader(zoo: Run, place: Path) -> None:
    root = openimages_tree(place / "open")
    for path in (root / "validation").iterdir():
        path.unlink()
    done = zoo("data", "prepare", "openimages", "--data.root", "open")
    assert done.code == 3
    assert "downloader.py open/.zoo/validation-1500.txt --download_folder=open/validation" in done.out
    assert len((root / ".zoo" / "validation-1500.txt").read_text().split()) == 12
    assert zoo("data", "prepare", "openimages", "--data.root", "open", "--json").code == 3


def test_info_says_where_how_large_and_what_is_here(zoo: Run, place: Path) -> None:
    coco_tree(place / "coco", 3)
    out = zoo("data", "info", "coco", "--data.root", "coco").out
    assert "images of train2017: 19.3 GB, here" in out
    assert "http://images.cocodataset.org/zips/val2017.zip" in out
    assert "licence: CC BY 4.0" in out
    assert "test: 3 images of 5,000 officially with caption" in out
    missing = zoo("data", "info", "coco", "--data.root", "none").out
    assert missing.count("there is no COCO folder here") == 1
    assert missing.count("cannot be used: as above") == 2
    assert "images of val2017: 816 MB, zoo data prepare --download fetches it" in missing


def test_info_says_which_lists_are_used(zoo: Run, place: Path) -> None:
    cub_tree(place / "cub", 4)
    own = zoo("data", "info", "cub", "--data.root", "cub").out
    assert "split from train_test_split.txt\n" in own
    other = zoo("data", "info", "cub", "--data.root", "cub", "--option", "split_rule=disjoint").out
    assert "split from classes.txt, image_class_labels.txt, trainvalclasses.txt, testclasses.txt\n" in other
    facts = json.loads(zoo("data", "info", "flickr30k", "--root", flickr30k_tree(place / "f", 3), "--json").out)
    assert facts["splits"]["val"]["caption_source"] == "Sentences"
    root = openimages_tree(place / "open")
    ids = [name.split("/")[-1] for name in OpenImages("test", root=root).ids]
    sha = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert f"sha256 of the list of ids {sha}" in zoo("data", "info", "openimages", "--root", root).out


def test_a_root_that_is_an_address_has_no_index(place: Path) -> None:
    assert root_of(Cub, "s3://bucket/birds") is None
    assert root_of(Cub, "birds") == Path("birds")
    assert root_of(Cub, None) == Path("data/cub")
    assert root_of(Folder, None) is None


def test_options_of_a_dataset(zoo: Run, place: Path) -> None:
    karpathy_tree(place / "coco", 6)
    words = ("--data.root", "coco", "--option", "variant=karpathy")
    assert "train: 8 images of 113,287 officially" in zoo("data", "info", "coco", *words).out
    assert "caption_datasets.zip" in zoo("data", "info", "coco", *words).out
    assert zoo("data", "verify", "coco", *words, "--partial").code == 0
    assert (place / "coco/.zoo/index-test-variant=karpathy.jsonl").is_file()
    for wrong, said in (
        ("varian=2014", "did you mean 'variant'"),
        ("variant=2015", "variant of coco '2015'"),
        ("x", "NAME="),
    ):
        done = zoo("data", "info", "coco", "--data.root", "coco", "--option", wrong)
        assert (done.code, said in done.err) == (2, True), done.err
    assert zoo("data", "verify", "shapes", "--option", "variant=1").code == 2
    folder = zoo("data", "info", "folder", "--root", "coco/val2014", "--option", "mask_threshold=many")
    assert (folder.code, "takes int | None, got 'many'" in folder.err) == (2, True)
    assert zoo("data", "info", "folder", "--root", "coco/val2014", "--option", "mask_invert=maybe").code == 2
    assert zoo("data", "info", "folder", "--root", "coco/val2014", "--option", "mask_invert=true").code == 0


def test_verify_all_splits_with_more_processes(zoo: Run, place: Path) -> None:
    coco_tree(place / "coco", 4)
    words = ("data", "verify", "coco", "--data.root", "coco", "--split", "all", "--workers", "2")
    done = zoo(*words, "--partial")
    assert done.code == 0, done.err
    assert "train: 4 of 4 samples can be read\ntrain: hashes: coco/.zoo/index-train.jsonl\n" in done.out
    path = place / "coco/val2017/000000000501.jpg"
    path.write_bytes(path.read_bytes()[:300])
    done = zoo(*words, "--json")
    reports = json.loads(done.out)
    assert done.code == 3
    assert [(report["split"], len(report["damaged"]), report["ok"]) for report in reports] == [
        *(("train", 0, False), ("val", 1, False), ("test", 1, False))
    ]
    assert "coco/val2017/000000000501: the image cannot be read" in done.err
    assert "split 'train' has 4 images, officially 118,287" in done.err
    assert "verify train" in done.err


def test_a_limit_is_no_wrong_count(zoo: Run, place: Path) -> None:
    coco_tree(place / "coco", 4)
    words = ("data", "verify", "coco", "--data.root", "coco")
    assert zoo(*words, "--limit", 3).code == 0
    assert zoo(*words, "--limit", 5).code == 3, "there are not even five"
    assert zoo(*words, "--limit", 3, "--reindex").code == 2


def test_many_changes_are_summed_up(zoo: Run, place: Path) -> None:
    root = coco_tree(place / "coco", 25)
    words = ("data", "verify", "coco", "--data.root", "coco", "--partial")
    assert zoo(*words).code == 0
    for path in (root / "val2017").iterdir():
        path.write_bytes(path.read_bytes() + b"tail")
    done = zoo(*words)
    assert done.code == 3
    assert "bytes, the index says" in done.err
    assert "... and 5 more" in done.err
    assert "25 files are not as they were when the index was made" in done.err
    assert done.out.startswith("25 of 25 samples can be read\n")
