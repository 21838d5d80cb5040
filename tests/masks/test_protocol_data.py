"""Each protocol on a small tree of each of its datasets: its manifests, and that the benchmark finds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.manifests import PROTOCOLS, Images, main
from tests.trees.celebahq import celebahq_tree
from tests.trees.cityscapes import cityscapes_tree
from tests.trees.coco import coco_tree, karpathy_tree
from tests.trees.cub import cub_tree
from tests.trees.flickr30k import flickr30k_tree
from tests.trees.metfaces import metfaces_tree
from tests.trees.openimages import openimages_tree
from tests.trees.ost import ost_tree
from tests.trees.places2 import places2_tree
from tests.trees.scenery import scenery_tree
from zoo.benchmark import make_plan, planning
from zoo.benchmark.protocols import load_protocol
from zoo.cli.main import main as zoo
from zoo.data import open_dataset
from zoo.data.masked import canvas_of
from zoo.errors import UsageError
from zoo.masks.manifest import read, verify
from zoo.weights import sha256

COUNT = 3
TREES: dict[str, Callable[[Path, int], Path]] = {
    "coco": coco_tree,
    "coco-karpathy": karpathy_tree,
    "coco-2014": partial(coco_tree, year="2014"),
    "flickr30k": flickr30k_tree,
    "cub": cub_tree,
    "openimages": openimages_tree,
    "celebahq-mminvertfill": partial(celebahq_tree, first=29_000),
    "places2-large": partial(places2_tree, variant="large"),
    "cityscapes": cityscapes_tree,
    "ost": ost_tree,
    "metfaces": metfaces_tree,
    "scenery": scenery_tree,
}
CASES = [(name, images) for name, splits in PROTOCOLS.items() if name != "zoo" for images in splits]


def tree(images: Images, root: Path) -> Path:
    """A small tree of the variant that a protocol asks for."""
    return TREES["-".join([images.dataset, *images.options.values()])](root, COUNT)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the manifests which the package ships; nothing may be fetched."""
    resource = planning.resource

    def find(relative: str) -> Path:
        if not relative.startswith("benchmarks/masks/"):
            return resource(relative)
        path = tmp_path / relative
        if not path.exists():
            raise UsageError("not shipped", where=relative)
        return path

    monkeypatch.setattr(planning, "resource", find)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "benchmarks" / "masks"


@pytest.mark.parametrize(
    ("protocol", "images"), CASES, ids=[f"{name}-{'-'.join([i.dataset, *i.options.values()])}" for name, i in CASES]
)
def test_the_manifests_of_a_dataset_and_that_a_run_finds_them(
    protocol: str, images: Images, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = {protocol: (images,)}
    monkeypatch.setattr("benchmarks.manifests.PROTOCOLS", only)
    root = tree(images, tmp_path / "tree")
    words = [protocol, "--dataset", images.dataset, "--data.root", str(root), "--limit", "2", "--out", str(shipped)]
    assert main(words) == 0
    assert sorted(path.name for path in shipped.iterdir()) == sorted(images.file(mask) for mask in images.masks)
    options = dict(images.options)
    dataset = open_dataset(images.dataset, split="test", size=images.size, root=root, count=2, **options)
    canvases = [canvas_of(dataset, dataset.sample(index)) for index in range(len(dataset))]
    rules = load_protocol(protocol)
    for mask in images.masks:
        path = shipped / images.file(mask)
        manifest = read(path)
        assert verify(path, canvases) == []
        assert (manifest.kind, list(manifest.entries)) == (mask, list(dataset.ids))
        assert {entry.caption for entry in manifest.entries.values()} == {0 if images.captioned else None}
        plan = make_plan(
            images.dataset, mask, ["mean"], protocol=protocol, data_root=root, data_options=options, limit=2
        )
        assert (plan.manifest, plan.manifest_sha256) == (str(path), sha256(path))
        assert (plan.protocol, plan.protocol_sha256) == (protocol, rules.sha256)
        assert (plan.size, plan.count) == (images.size, len(dataset))


def test_a_manifest_of_another_variant_is_not_taken(tmp_path: Path, shipped: Path) -> None:
    root = karpathy_tree(tmp_path / "tree", COUNT)
    words = ["tdanet", "--dataset", "coco", "--data.root", str(root), "--limit", "1", "--out", str(shipped)]
    assert main(words) == 0, "the tree serves both variants"
    found = {}
    for variant in ("karpathy", "2014"):
        plan = make_plan(protocol="tdanet", models=["mean"], data_root=root, data_options={"variant": variant}, limit=1)
        found[variant] = Path(plan.manifest).name
    assert found == {name: f"coco-{name}-test-center-256.jsonl.gz" for name in ("karpathy", "2014")}
    for path in shipped.glob("coco-karpathy-*"):
        path.rename(shipped / path.name.replace("karpathy-", ""))
    plan = make_plan(protocol="tdanet", models=["mean"], data_root=root, data_options={"variant": "2014"}, limit=2)
    assert plan.manifest == "", "it has one image of two"


def test_a_run_under_a_protocol_from_the_command_line(
    tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = cub_tree(tmp_path / "tree", COUNT)
    assert main(["tdanet", "--dataset", "cub", "--data.root", str(root), "--out", str(shipped), "--limit", "2"]) == 0
    words = ["benchmark", "--protocol", "tdanet", "--dataset", "cub", "--mask", "object", "--data.root", str(root)]
    capsys.readouterr()
    assert zoo([*words, "--limit", "2", "--models", "truth,mean", "--out", "run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n"], report["failed"]) == (2, 0)
    assert report["methods"]["truth"]["tdanet_l1"]["mean"] == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["protocol"], plan["protocol_sha256"]) == ("tdanet", load_protocol("tdanet").sha256)
    assert Path(plan["manifest"]).name == "cub-test-object-256.jsonl.gz"
    capsys.readouterr()
    assert zoo([*words, "--size", "128", "--models", "mean"]) == 2
    assert "protocol 'tdanet' on cub has size 256, not 128" in capsys.readouterr().err
