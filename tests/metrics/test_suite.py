"""From names to values: what can be taken here, what is skipped and why, and the pieces together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import fakes_features
from zoo.errors import DataError, UsageError, WeightsError
from zoo.metrics import (
    DEFINITIONS,
    GROUPS,
    NAMES,
    STAND_IN,
    Asked,
    FeatureStore,
    Interval,
    Skipped,
    Suite,
    Truths,
    ask,
    definition,
    distribution,
    extractor_of,
    pixel_digest,
    protocols,
    versions,
)
from zoo.metrics.perceptual import Lpips

ROOT = Path(__file__).resolve().parents[2]
CAPTIONS = ["a red square", "", "a green circle"]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("features")
    yield fakes_features.write(folder, "alexnet", "inception")
    for path in folder.iterdir():
        path.unlink()


def test_every_name_is_defined_and_in_a_group() -> None:
    extra = [name for name in DEFINITIONS if name in GROUPS["all"]]
    assert set(GROUPS["all"]) <= set(DEFINITIONS)
    assert {name for group in GROUPS.values() for name in group} == set(extra)
    assert not set(extra) & set(NAMES)
    assert all(definition(name) is DEFINITIONS[name] for name in extra)
    assert definition("a judge's own") is None


def test_without_files_everything_but_protocols_is_skipped(offline: None) -> None:
    asked = ask(["all"])
    assert asked.names == (*GROUPS["tdanet"], *GROUPS["picnet"])
    assert set(asked.skipped) == {*GROUPS["perceptual"], *GROUPS["distribution"]}
    assert all("is not here, and downloads are forbidden" in why.reason for why in asked.skipped.values())
    assert "AlexNet" in asked.skipped["lpips_alex"].reason
    assert "Inception" in asked.skipped["kid"].reason
    assert asked.files == {}


def test_nothing_asked_for_changes_nothing() -> None:
    assert ask([]) == Asked()
    assert ask([]).facts == {}
    assert set(versions()) == {"zoo", "metrics", "torch", "numpy", "scipy"}


def test_facts_hold_what_a_value_depends_on(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    fakes_features.accept(monkeypatch, "alexnet", "inception")
    asked = ask(["fid", "lpips_alex", "tdanet_tv", "u_ids_cross"], files)
    assert asked.names == ("tdanet_tv", "lpips_alex", "fid_tf", "fid_clean", "u_ids_cross")
    assert asked.skipped == {}
    assert asked.files == files
    assert asked.facts["tdanet_tv"] == {"revision": "1"}
    assert set(asked.facts["lpips_alex"]) == {"revision", "torchmetrics", "torchvision", "weights"}
    assert set(asked.facts["u_ids_cross"]) == {"revision", "torch-fidelity", "scikit-learn", "weights"}
    assert asked.facts["fid_tf"]["weights"] == asked.facts["u_ids_cross"]["weights"]
    assert len(asked.facts["fid_tf"]["weights"]) == 64
    assert json.loads(json.dumps(asked.facts)) == asked.facts


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    fakes_features.accept(monkeypatch, "inception")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    asked = ask(["p_ids_cross", "kid"], files)
    assert asked.names == ("kid",)
    assert "sklearn is not installed" in asked.skipped["p_ids_cross"].reason
    assert 'pip install ".[metrics]"' in asked.skipped["p_ids_cross"].remedy


def test_unknown_names_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="unknown metric 'lpips_alexx'") as caught:
        ask(["lpips_alexx"])
    assert "lpips_alex" in caught.value.remedy
    with pytest.raises(UsageError, match="unknown metric 'psnr'"):
        ask(["psnr"])  # every run has it
    with pytest.raises(UsageError, match="unknown feature network"):
        ask(["tdanet"], {"inceptoin": "x"})
    with pytest.raises(WeightsError, match="is not torchvision's AlexNet"):
        ask(["lpips_alex"], files)


def test_stand_ins_say_so_everywhere(offline: None) -> None:
    asked = ask(["perceptual_stand-in", "distribution_stand-in"])
    assert asked.skipped == {}
    assert all(name.endswith(STAND_IN) for name in asked.names)
    assert len(asked.names) == len(GROUPS["perceptual"]) + len(GROUPS["distribution"])
    for name in asked.names:
        found = definition(name)
        assert found is not None
        assert found.text.startswith(f"stand-in, not {name.removesuffix(STAND_IN)}")
    assert ask(["tdanet_stand-in"]) == Asked()  # a protocol has no network to replace
    assert not any(STAND_IN in name for name in DEFINITIONS)


def test_stand_ins_run_from_images_to_sets(offline: None, tmp_path: Path) -> None:
    suite = Suite(ask(["perceptual_stand-in", "distribution_stand-in", "tdanet"]))
    composite, truth, mask = fakes_features.photographs(3)
    mask[2] = 0
    values = suite.measure(composite, truth, mask, CAPTIONS)
    assert tuple(values) == suite.image_names
    assert torch.equal(values["tdanet_tv"], protocols(composite, truth)["tdanet_tv"])
    assert values["lpips_alex_stand-in"].min() > 0
    assert values["lpips_alex_hole_stand-in"].isnan().tolist() == [False, False, True]
    assert values["clip_stand-in"].isnan().tolist() == [False, True, False]
    assert values["clip_hole_stand-in"].isnan().tolist() == [False, True, True]
    assert all(value.shape == (3,) and value.dtype == torch.float64 for value in values.values())
    assert suite.measure(truth, truth, mask, CAPTIONS)["dists_stand-in"].tolist() == [0.0] * 3
    assert set(suite.extractors) == {"inception_tf_stand-in", "inception_clean_stand-in"}

    composite, truth, _ = fakes_features.photographs(12)
    ids = [f"shapes/test/{k:06d}" for k in range(12)]
    stores = {name: FeatureStore(tmp_path, extractor) for name, extractor in suite.extractors.items()}
    for part, images in (("truth", truth), ("cma", composite)):
        for name, rows in suite.features(images).items():
            stores[name].append(part, ids, rows, [pixel_digest(image) for image in images])
    for name in suite.set_names:
        store = stores[extractor_of(name)]
        truths = Truths(store.read("truth"))
        found = distribution([name], store.read("cma"), truths, resamples=4)[name]
        nothing = distribution([name], store.read("truth"), truths, resamples=0)[name]
        if name.removesuffix(STAND_IN) in ("kid_subsets", "p_ids", "u_ids"):
            assert isinstance(found, Skipped)
        else:
            assert isinstance(found, Interval)
            assert isinstance(nothing, Interval)
            if name.startswith("fid"):
                assert found.mean > nothing.mean
                assert abs(nothing.mean) < 1e-6


def test_real_networks_from_files(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    fakes_features.accept(monkeypatch, "alexnet", "inception")
    suite = Suite(ask(["lpips_alex", "kid", "fid_tf", "p_ids_cross"], files))
    composite, truth, mask = fakes_features.photographs(2)
    values = suite.measure(composite, truth, mask, ["", ""])
    assert tuple(values) == ("lpips_alex",)
    alone = Lpips("alex", Path(files["alexnet"]))(composite, truth, mask)
    assert torch.equal(values["lpips_alex"], alone["lpips_alex"])
    assert set(suite.extractors) == {"inception_tf"}  # one pass serves three metrics
    rows = suite.features(truth)["inception_tf"]
    assert rows.shape == (2, 2048)
    assert rows.dtype == np.float32
    # Features are the same whichever metric asked for them.
    other = Suite(ask(["p_ids_cross"], files))
    assert other.extractors["inception_tf"] == suite.extractors["inception_tf"]
    asked = ask(["kid"], files)
    asked.facts["kid"]["weights"] = "0" * 64
    with pytest.raises(WeightsError, match="have changed since the plan"):
        Suite(asked)


def test_images_that_are_too_small_are_refused(offline: None) -> None:
    suite = Suite(ask(["lpips_alex_stand-in"]))
    tiny = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(DataError, match="at least 32 pixels"):
        suite.measure(tiny, tiny, torch.ones(1, 1, 16, 16), [""])


@pytest.mark.parametrize("names", ["[]", "['tdanet']", "['lpips_alex_stand-in', 'fid_tf_stand-in']"])
def test_asking_imports_no_library_that_is_not_needed(names: str) -> None:
    heavy = ("torchvision", "torch_fidelity", "open_clip", "sklearn", "torchmetrics", "lightning")
    code = f"import sys; from zoo.metrics import ask; ask({names}); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_no_modules() -> None:
    import zoo.metrics

    folder = Path(zoo.metrics.__file__ or "").parent
    assert not {path.stem for path in folder.glob("*.py")} & set(zoo.metrics.__all__)
