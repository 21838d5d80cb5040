"""Protocols: what their files say, what a command may say besides, and that the default changes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.manifests import PROTOCOLS
from tests.benchmark.test_plan import fixed, plan
from zoo.benchmark import Plan, make_plan
from zoo.benchmark.plan import differences
from zoo.benchmark.protocols import Protocol, load_protocol, protocol_names, read_protocol, settle
from zoo.data import DATASETS
from zoo.data.info import parse_options
from zoo.errors import UsageError
from zoo.masks import parse_mixture
from zoo.metrics import DEFINITIONS, GROUPS

ROOT = Path(__file__).resolve().parents[2]
OF_TDANET = ("tdanet", "picnet", "fid_tf", "kid", "kid_subsets")
NAMED = ("ecdm", "mminvertfill", "tdanet")


def test_the_names() -> None:
    assert protocol_names() == ["zoo", *NAMED]


@pytest.mark.parametrize("name", NAMED)
def test_a_protocol_has_the_images_and_masks_of_its_manifests(name: str) -> None:
    protocol = load_protocol(name)
    assert set(protocol.datasets) == {images.dataset for images in PROTOCOLS[name]}
    for images in PROTOCOLS[name]:
        ours = protocol.datasets[images.dataset]
        assert (ours.size, ours.masks) == (images.size, images.masks)
        assert (protocol.split, images.split) == ("test", "test")
        for option, value in images.options.items():
            assert value in ours.options[option]
    text = (ROOT / f"configs/protocol/{name}.yaml").read_text()
    assert "# What the paper" in text
    assert "# What is ours" in text


@pytest.mark.parametrize("name", NAMED)
def test_a_protocol_names_what_exists(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.description
    assert protocol.sha256 == hashlib.sha256((ROOT / f"configs/protocol/{name}.yaml").read_bytes()).hexdigest()
    assert protocol.metrics
    assert {metric for metric in protocol.metrics if metric not in GROUPS} <= DEFINITIONS.keys()
    for dataset, images in protocol.datasets.items():
        assert dataset in DATASETS
        for mask in images.masks:
            parse_mixture(mask)
        for option, values in images.options.items():
            assert parse_options(dataset, [(option, value) for value in values])


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("zoo", {}, ("shapes", "object", None, "test", {}, ())),
        ("zoo", {"dataset": "coco", "size": 96, "split": "val"}, ("coco", "object", 96, "val", {}, ())),
        ("zoo", {"metrics": ["fid"]}, ("shapes", "object", None, "test", {}, ("fid",))),
        (
            "tdanet",
            {},
            ("coco", "center", 256, "test", {"variant": "karpathy"}, OF_TDANET),
        ),
        (
            "tdanet",
            {"mask": "object", "data_options": {"variant": "2014"}, "metrics": ["kid", "lpips"]},
            (
                *("coco", "object", 256, "test", {"variant": "2014"}),
                (*OF_TDANET, "lpips"),
            ),
        ),
        (
            "ecdm",
            {"dataset": "openimages", "mask": "irregular:50-60", "size": 512, "captions": "own"},
            ("openimages", "irregular:50-60", 512, "test", {"part": "validation"}, ("lpips_alex", "lpips_vgg")),
        ),
        (
            "mminvertfill",
            {"dataset": "scenery", "data_options": {"variant": "keyed"}},
            (
                *("scenery", "outpaint:right:0.25", 256, "test", {"variant": "keyed"}),
                ("lpips_alex", "fid_tf", "p_ids", "u_ids", "p_ids_cross", "u_ids_cross"),
            ),
        ),
    ],
)  # fmt: skip
def test_a_protocol_fixes_what_a_command_leaves_open(
    name: str, said: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert tuple(settle(load_protocol(name), said)) == expected


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("tdanet", {"dataset": "places2"}, r"has dataset coco or flickr30k or cub, not places2\n.*--dataset places2"),
        ("tdanet", {"size": 128}, r"on coco has size 256, not 128\n.*--size 128"),
        ("tdanet", {"mask": "freeform"}, r"on coco has mask center or object, not freeform"),
        ("tdanet", {"split": "val"}, r"has split test, not val\n.*--split val"),
        ("tdanet", {"captions": "deranged"}, r"has captions own, not deranged"),
        ("tdanet", {"mask_seed": 1}, r"has mask_seed 0, not 1"),
        (
            "tdanet",
            {"data_options": {"variant": "2017"}},
            r"has option variant karpathy or 2014, not 2017\n.*--option variant=2017",
        ),
        (
            "mminvertfill",
            {"dataset": "metfaces", "mask": "irregular:40-60"},
            r"on metfaces has mask irregular:10-30 or",
        ),
    ],
)
def test_a_command_that_contradicts_its_protocol_is_refused(name: str, said: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"protocol '{name}' .*{message}") as caught:
        settle(load_protocol(name), said)
    assert caught.value.remedy == "leave the option out, or the protocol"


def test_make_plan_holds_to_the_protocol() -> None:
    with pytest.raises(UsageError, match="protocol 'ecdm' has dataset coco or openimages, not shapes"):
        make_plan("shapes", models=["mean"], protocol="ecdm")
    with pytest.raises(UsageError, match="did you mean 'tdanet'"):
        make_plan(models=["mean"], protocol="tdanett")


def test_the_default_protocol_changes_nothing() -> None:
    plain, named = plan("mean", limit=3), plan("mean", limit=3, protocol="zoo")
    assert plain == named
    assert (plain.protocol, plain.protocol_sha256) == ("zoo", load_protocol("zoo").sha256)
    assert "protocol" not in plain.identity()
    assert load_protocol("zoo").datasets == {}
    assert load_protocol("zoo").metrics == ()


def test_a_named_protocol_and_its_file_belong_to_the_hash() -> None:
    one, other = (replace(fixed(), protocol="tdanet", protocol_sha256=sha) for sha in ("aa", "bb"))
    assert len({fixed().hash, one.hash, other.hash}) == 3
    assert differences(one, other) == ["protocol_sha256"]
    assert one.name == f"shapes-object-tdanet-{one.hash[:8]}"


@pytest.mark.parametrize("folder", sorted((ROOT / "benchmarks/results").glob("shapes-*")), ids=lambda path: path.name)
def test_published_plans_keep_their_hash(folder: Path) -> None:
    written = json.loads((folder / "plan.json").read_text())["hash"]
    assert Plan.read(folder).hash == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not readable as YAML"),
        ("- a", "is no list of `key: value` lines"),
        ("resise: x", "did you mean 'resize'"),
        ("resize: stretch\ncaption: first", "'resize' is 'stretch'"),
        ("resize: shorter side, centre crop\ncaption: all", "'caption' is 'all'"),
        (
            "resize: shorter side, centre crop\ncaption: first\ndatasets: {coco: {size: 8}}",
            "a size and a list of masks",
        ),
        ("resize: shorter side, centre crop\ncaption: first\ndatasets: {coco: {sice: 8}}", "did you mean 'size'"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_protocol(path)
    assert str(path) in str(caught.value)


def test_a_file_reads_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("description: mine\nresize: shorter side, centre crop\ncaption: first\nsplit: val\n")
    assert read_protocol(path) == Protocol("mine", "mine", hashlib.sha256(path.read_bytes()).hexdigest(), "val")
    assert settle(read_protocol(path), {}).split == "val"
