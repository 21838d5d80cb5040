"""Every dataset from its tiny tree: opened, verified, benchmarked, and damaged in every way that all have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.trees import coco, cub, flickr30k, folder, openimages
from tests.trees.celebahq import celebahq_tree
from tests.trees.cityscapes import cityscapes_tree
from tests.trees.metfaces import metfaces_tree
from tests.trees.ost import ost_tree
from tests.trees.places2 import places2_tree
from tests.trees.scenery import scenery_tree
from zoo.cli.main import main
from zoo.data import DATASETS, SPLITS, dataset_class, open_dataset
from zoo.data.info import describe, needed
from zoo.data.sources import Source


@dataclass(frozen=True)
class Case:
    """How a dataset is tried.

    Attributes:
        name: Its short name.
        tree: Writes a tiny one of `count` images a split.
        mask: The kind of mask to benchmark under.
        unknown_caption: Adds a caption of an unknown image to a tree; None where there are no captions.
        splits: Those that the tiny tree has.
        options: Options of the dataset, as `zoo data --option` takes them.
    """

    name: str
    tree: Callable[[Path, int], Path]
    mask: str = "center"
    unknown_caption: Callable[[Path], None] | None = None
    splits: tuple[str, ...] = SPLITS
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        return [word for option in self.options for word in ("--option", option)]

    @property
    def given(self) -> dict[str, str]:
        """The options by name."""
        return {name: value for name, _, value in (option.partition("=") for option in self.options)}


CASES = (
    Case("coco", coco.coco_tree, "object", coco.unknown_caption),
    Case("coco", coco.karpathy_tree, "object", splits=SPLITS, options=("variant=karpathy",)),
    Case("flickr30k", flickr30k.flickr30k_tree, "object", flickr30k.unknown_caption),
    Case("cub", cub.cub_tree, "object:segmentation", cub.unknown_caption),
    Case("openimages", openimages.openimages_tree, "object", openimages.unknown_caption, splits=("test",)),
    Case("celebahq", celebahq_tree, "object"),
    Case("places2", places2_tree, "irregular:10-20"),
    Case("cityscapes", cityscapes_tree, "object"),
    Case("ost", ost_tree, "freeform"),
    Case("metfaces", metfaces_tree),
    Case("scenery", scenery_tree, "freeform"),
    Case("folder", folder.folder_tree, "file", folder.unknown_caption),
)
COUNT = 9
ENTITIES = ("Annotations", "Sentences", "train.txt", "val.txt", "test.txt")
PUBLISHED = [case for case in CASES if case.name != "folder"]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case.name, *case.options]))
published = pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: "-".join([case.name, *case.options]))
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def _first_file(case: Case, root: Path) -> Path:
    return Path(open_dataset(case.name, split="test", root=root, **case.given).files(0)[0])  # type: ignore[attr-defined]


def test_every_dataset_that_has_files_is_tried() -> None:
    assert {case.name for case in CASES} == set(DATASETS) - {"shapes", "shards"}


@published
def test_what_it_says_of_itself(case: Case) -> None:
    found = dataset_class(case.name)
    assert (found.name, found.object_rule) == (case.name, "largest")
    assert "\n" not in found.licence
    assert "ROOT/" in found.layout
    assert set(found.counts) == set(SPLITS)
    assert all(isinstance(source, Source) and source.licence and source.what for source in found.sources)
    assert found.sources
    for source in found.sources:
        assert source.sha256 == "" or len(source.sha256) == 64
        assert source.automatic or source.note, "who cannot be fetched says how to get it"


@each
def test_every_split_opens_and_keeps_its_ids(case: Case, tmp_path: Path) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    for split in case.splits:
        dataset = open_dataset(case.name, split=split, root=root, size=32, **case.given)
        ids = list(dataset.ids)
        assert len(ids) == len(set(ids)) == len(dataset) > 0
        assert all(len(name.split("/")) >= 3 and name.startswith(f"{case.name}/") for name in ids)
        assert list(open_dataset(case.name, split=split, root=root, size=48, **case.given).ids) == ids
        assert list(open_dataset(case.name, split=split, root=root, count=1, **case.given).ids) == ids[:1]
        official = getattr(dataset, "official", None)
        assert official is None or official > len(ids)


@each
def test_samples_are_what_they_should_be(case: Case, tmp_path: Path) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    for size in (32, None):
        dataset = open_dataset(case.name, split="test", root=root, size=size, **case.given)
        for index in range(len(dataset)):
            sample = dataset.sample(index)
            height, width = sample.image.shape[:2]
            assert sample.id == dataset.ids[index]
            assert size is None or (height, width) == (size, size)
            assert (sample.image.dtype, sample.image.shape[2]) == (np.uint8, 3)
            assert (sample.boxes.dtype, sample.boxes.shape[1:]) == (np.float32, (4,))
            assert (sample.boxes >= 0).all()
            assert (sample.boxes <= [width, height, width, height]).all()
            if sample.segments is not None:
                assert sample.segments.dtype == np.bool_
                assert sample.segments.shape == (len(sample.boxes), height, width)
            assert (sample.segmentation is not None) == ("segmentation" in dataset.provides) == bool(dataset.classes)
            if sample.segmentation is not None:
                assert (sample.segmentation.dtype, sample.segmentation.shape) == (np.uint8, (height, width))
                assert set(np.unique(sample.segmentation)) <= {*range(len(dataset.classes)), 255}
            assert bool(sample.captions) == ("caption" in dataset.provides)
            assert all(isinstance(text, str) and text.strip() == text and text for text in sample.captions)
            files = dataset.files(index)  # type: ignore[attr-defined]
            assert files
            assert all(path.is_file() and path.is_relative_to(root) for path in files)


@each
def test_verify_and_then_benchmark(case: Case, tmp_path: Path, zoo: Say) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    words = ("data", "verify", case.name, "--data.root", root, "--size", 32, "--partial", "--json", *case.words)
    code, out, err = zoo(*words)
    assert code == 0, err
    report = json.loads(out)
    index = root / ".zoo" / f"index-test{''.join(f'-{option}' for option in case.options)}.jsonl"
    assert (report["damaged"], report["changed"], report["ok"]) == ([], [], True)
    assert Path(report["index"]) == index
    entries = [json.loads(line) for line in index.read_text().splitlines()]
    assert {entry["id"] for entry in entries} - {""} == set(
        open_dataset(case.name, split="test", root=root, **case.given).ids
    )
    words = ("benchmark", "--dataset", case.name, "--data.root", root, "--limit", 8, "--models", "truth,mean")
    code, out, err = zoo(*words, "--mask", case.mask, "--size", 32, "--json", *case.words)
    assert code == 0, err
    report = json.loads(out)
    count = len(open_dataset(case.name, split="test", root=root, count=8, **case.given))
    assert (report["n"], report["failed"]) == (count, 0)
    assert report["methods"]["truth"]["l1"]["mean"] == 0
    assert report["methods"]["mean"]["l1"]["mean"] > 0


@published
def test_what_lies_there_is_not_asked_for_again(case: Case, tmp_path: Path) -> None:
    nothing = describe(case.name, tmp_path, case.given)["sources"]
    assert not any(source["here"] for source in nothing)
    sources = describe(case.name, case.tree(tmp_path / "tree", COUNT), case.given)["sources"]
    assert [source["what"] for source in sources if not source["here"]] == []


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("coco", {"val2017": "images/val2017", "train2017": "images/train2017"}),
        ("cub", {"segmentations": "CUB_200_2011/segmentations", "cvpr2016_cub/text_c10": "CUB_200_2011/text_c10"}),
        ("flickr30k", {"flickr30k-images": "images"} | {name: f"flickr30k_entities/{name}" for name in ENTITIES}),
        ("openimages", {"validation": "images/validation"}),
        ("celebahq", {"C*": "CelebAMask-HQ/"}),
        ("places2", {"data_256": "data_256_standard"}),
        ("ost", {"OutdoorSceneTest300_anno": "OutdoorSceneTest300/OutdoorSceneTest300_anno"}),
        ("scenery", {"scenery/*": "./"}),
    ],
)
def test_nor_where_it_lies_in_another_place_that_is_read(name: str, moves: dict[str, str], tmp_path: Path) -> None:
    """What a person has unpacked otherwise, as the layout allows: a download of gigabytes again would be a waste."""
    case = next(case for case in CASES if case.name == name)
    root = case.tree(tmp_path / "tree", COUNT)
    ids = list(open_dataset(name, split="test", root=root).ids)
    for old, new in moves.items():
        for path in sorted(root.glob(old)):
            target = root / new / (path.name if new.endswith("/") else "")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    if name == "scenery":
        (root / "scenery").rmdir()
    assert list(open_dataset(name, split="test", root=root).ids) == ids
    assert [source["what"] for source in describe(name, root)["sources"] if not source["here"]] == []


# --- damage ----------------------------------------------------------------------------------------------------------


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _exchanged(path: Path) -> None:
    """Another picture of the same size."""
    with Image.open(path) as opened:
        kind, picture = opened.format, ImageOps.invert(opened.convert("RGB"))
    picture.save(path, format=kind)


@each
@pytest.mark.parametrize("damage", [_missing, _truncated], ids=["missing", "truncated"])
def test_a_file_that_is_missing_or_cut(case: Case, tmp_path: Path, zoo: Say, damage: Callable[[Path], None]) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    path = _first_file(case, root)
    words = ("data", "verify", case.name, "--data.root", root, "--partial", "--size", 32, *case.words)
    if case.name == "scenery":  # it has no list of its images: only the index knows which were there
        assert zoo(*words)[0] == 0
    damage(path)
    code, _, err = zoo(*words)
    assert code == 3
    assert path.stem.removesuffix("_leftImg8bit") in err
    assert "cannot be read" in err or damage is _missing


@published
def test_a_count_that_is_not_the_official_one(case: Case, tmp_path: Path, zoo: Say) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    code, _, err = zoo("data", "verify", case.name, "--data.root", root, "--size", 32, *case.words)
    assert code == 3
    official = open_dataset(case.name, split="test", root=root, **case.given).official  # type: ignore[attr-defined]
    assert f"officially {official:,}" in err
    assert "--partial" in err


@each
def test_a_file_that_is_not_the_indexed_one(case: Case, tmp_path: Path, zoo: Say) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    words = ("data", "verify", case.name, "--data.root", root, "--partial", "--size", 32, *case.words)
    assert zoo(*words)[0] == 0
    path = _first_file(case, root)
    _exchanged(path)
    for _ in range(2):  # the second time, too: it does not get used to it
        code, out, err = zoo(*words, "--json")
        assert code == 3
        assert [entry["file"] for entry in json.loads(out)["changed"]] == [path.relative_to(root).as_posix()]
        assert "not as they were" in err
    assert zoo(*words, "--reindex")[0] == 0
    assert zoo(*words)[0] == 0


@pytest.mark.parametrize("case", [case for case in CASES if case.unknown_caption], ids=lambda case: case.name)
def test_captions_of_images_that_are_unknown(case: Case, tmp_path: Path, zoo: Say) -> None:
    root = case.tree(tmp_path / "tree", COUNT)
    assert case.unknown_caption is not None
    case.unknown_caption(root)
    for words in (
        ("data", "verify", case.name, "--partial"),
        ("benchmark", "--dataset", case.name, "--models", "mean"),
    ):
        code, _, err = zoo(*words, "--data.root", root)
        assert code == 3
        assert "captions" in err or "narrative" in err or "listed" in err or "lists" in err
        assert err.count("remedy:") == 1


@each
def test_a_folder_that_is_not_there_is_one_error(case: Case, tmp_path: Path, zoo: Say) -> None:
    for words in (
        ("data", "verify", case.name, *case.words),
        ("benchmark", "--dataset", case.name, "--models", "mean"),
    ):
        code, out, err = zoo(*words, "--data.root", tmp_path / "none")
        assert (code, out) == (3, "")
        assert err.count("remedy:") == 1
    code, out, err = zoo("data", "prepare", case.name, "--data.root", tmp_path / "none", *case.words)
    assert code == 3
    assert err.count("remedy:") == 1
    assert all(source.url in out for source in needed(dataset_class(case.name), case.given))
