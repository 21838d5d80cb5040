"""Metrics that a plan asks for: the same however the work is shared out, and never faked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import fakes_features
from tests.benchmark.test_loop import ROOT, rows
from tests.benchmark.test_plan import FAKE, plan
from zoo.benchmark import Plan, run, summarize, to_json
from zoo.benchmark.plan import differences, ordered
from zoo.benchmark.store import read_rows
from zoo.errors import DataError, UsageError, WeightsError
from zoo.metrics import FeatureStore, Suite
from zoo.weights import sha256

IMAGE = ("tdanet_tv", "lpips_alex_stand-in", "clip_stand-in")
SETS = ("fid_tf_stand-in", "kid_stand-in", "p_ids_cross_stand-in")
ASKED = (*IMAGE, *SETS)
TRUTH, MIXING = "truth", FAKE + "Mixing"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")


def asking(*models: str, metrics: tuple[str, ...] = ASKED, **options: Any) -> Plan:
    return plan(*(models or ("truth", "Mixing")), batch_size=4, size=32, metrics=metrics, **options)


def facts(folder: Path) -> dict[str, Any]:
    found = to_json(summarize(folder))
    del found["run"]
    return found


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(asking(), tmp_path_factory.mktemp("asked") / "whole").folder


# --- what comes out --------------------------------------------------------------------------------------------------


def test_rows_and_summary_carry_the_names_that_were_asked_for(whole: Path) -> None:
    for row in read_rows(whole):
        assert set(IMAGE) <= row.keys()
        assert not set(SETS) & row.keys()
        assert not {name.removesuffix("_stand-in") for name in ASKED[1:]} & row.keys()
    found = facts(whole)
    truth, mixing = (found["methods"][label] for label in (TRUTH, MIXING))
    assert truth["lpips_alex_stand-in"] == {"mean": 0.0, "lo": 0.0, "hi": 0.0, "n": 21}
    assert abs(truth["fid_tf_stand-in"]["mean"]) < 1e-6
    assert mixing["fid_tf_stand-in"]["mean"] > 1e-4
    assert truth["p_ids_cross_stand-in"]["n"] == mixing["kid_stand-in"]["n"] == 21
    assert mixing["lpips_alex_stand-in"]["mean"] > 0
    assert list(mixing) == ordered(mixing)
    assert "skipped" not in found
    assert summarize(whole).main[-6:] == list(ASKED)


def test_asking_leaves_all_else_as_it_was(whole: Path, tmp_path: Path) -> None:
    plain = run(asking(metrics=()), tmp_path / "plain").folder
    assert not (plain / "features").exists()
    without = [{name: value for name, value in row.items() if name not in IMAGE} for row in rows(whole)]
    assert without == rows(plain)
    everything = facts(whole)
    for metrics in everything["methods"].values():
        for name in ASKED:
            del metrics[name]
    other = facts(plain)
    found, expected = everything.pop("methods"), other.pop("methods")
    assert everything == other
    assert found.keys() == expected.keys()
    for label, metrics in expected.items():
        assert found[label].keys() == metrics.keys()
        for name, value in metrics.items():  # resamples share a product of matrices: the last bit may differ
            assert found[label][name] == pytest.approx(value, rel=1e-12), name


def test_images_without_captions_have_no_clip_score(tmp_path: Path) -> None:
    made = asking("mean", metrics=("clip_stand-in",), limit=4, data_options={"silent": True})
    folder = run(made, tmp_path / "run").folder
    for row in read_rows(folder):
        assert row["clip_stand-in"] is None
        assert row["undefined"]["clip_stand-in"] == "there is no caption"
    assert facts(folder)["methods"]["mean"]["clip_stand-in"] == {"mean": None, "lo": None, "hi": None, "n": 0}


def test_failures_cost_their_own_images(tmp_path: Path) -> None:
    folder = run(asking("truth", "NotANumber"), tmp_path / "run").folder
    methods = facts(folder)["methods"]
    assert methods[TRUTH]["fid_tf_stand-in"]["n"] == 21
    assert methods[FAKE + "NotANumber"]["fid_tf_stand-in"]["n"] == 20
    assert methods[FAKE + "NotANumber"]["lpips_alex_stand-in"]["n"] == 20


# --- how the work is shared out --------------------------------------------------------------------------------------


def test_shards_and_workers_give_the_same_summary(whole: Path, tmp_path: Path) -> None:
    for part in (2, 0, 1):
        run(asking(), tmp_path / "shards", shard=(part, 3), workers=part % 2)
        if part == 2:
            skipped = facts(tmp_path / "shards")["skipped"]
            assert list(skipped) == list(SETS)
            assert "the run is not finished: 1" in skipped["kid_stand-in"]
    assert facts(tmp_path / "shards") == facts(whole)
    assert rows(tmp_path / "shards") == rows(whole)


@pytest.mark.slow
def test_two_processes_give_the_same_summary(tmp_path: Path) -> None:
    expected = run(asking("Mixing"), tmp_path / "one").folder
    command = [sys.executable, "-m", "tests.benchmark.bench_script", str(tmp_path / "two"), "Mixing", "2", "0", *ASKED]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=570)
    assert facts(tmp_path / "two") == facts(expected)
    assert len(list((tmp_path / "two/rows").glob("*.jsonl"))) in (1, 2), "the first may have done it all"


def test_a_stopped_run_goes_on(whole: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, label: str) -> None:
        if done >= 28:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asking(), tmp_path / "run", progress=stop)
    before = files(tmp_path / "run")
    assert 0 < len(before) < len(files(whole))
    run(asking(), tmp_path / "run")
    assert facts(tmp_path / "run") == facts(whole)
    after = files(tmp_path / "run")
    assert after.keys() == files(whole).keys()
    assert {name: after[name] for name in before} == before


def test_each_batch_is_seen_once_and_truths_by_the_first_method_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = Suite.features

    def counted(self: Suite, image: Tensor) -> dict[str, Any]:
        calls.append(tuple(image.shape))
        return real(self, image)

    monkeypatch.setattr(Suite, "features", counted)
    run(asking(), tmp_path / "run")
    assert calls == [(4, 3, 32, 32)] * 6 * 3  # 6 blocks: truths, and composites of two methods; always of one shape
    monkeypatch.setattr("zoo.benchmark.features.Measures.set_up", None)
    run(asking(), tmp_path / "run")  # a finished run loads no network
    assert len(calls) == 18


def test_features_that_were_deleted_are_taken_again(whole: Path, tmp_path: Path) -> None:
    folder = run(asking(), tmp_path / "run").folder
    stored = files(folder)
    gone = sorted(name for name in stored if "method-" + MIXING in name)[0]
    (folder / gone).unlink()
    lacking = facts(folder)["skipped"]["kid_stand-in"]
    assert f"{MIXING}: 4 images have rows and no features" in lacking
    assert TRUTH + ":" not in lacking
    before = {path: path.read_bytes() for path in (folder / "rows").iterdir()}
    run(asking(), folder)
    assert {path: path.read_bytes() for path in before} == before
    assert facts(folder) == facts(whole)
    kept = files(folder)
    assert kept.keys() == stored.keys()
    assert {name for name in kept if kept[name] != stored[name]} == {gone}


def test_features_of_other_pixels_are_refused(tmp_path: Path) -> None:
    folder = run(asking("mean"), tmp_path / "run").folder
    (store,) = [FeatureStore(folder / "features", e) for e in Suite(asked_again()).extractors.values()]
    whole_set = store.read("truth")
    for path in (folder / "features").rglob("truth/*.safetensors"):
        path.unlink()
    store.append("truth", whole_set.ids, whole_set.values, ["0" * 16] * 21)
    with pytest.raises(DataError, match="features and rows are of other pixels"):
        summarize(folder)
    for path in (folder / "rows").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="features of other pixels of 'dots/0' are stored"):
        run(asking("mean"), folder)


def asked_again() -> Any:
    from zoo.metrics import ask

    return ask(ASKED)


def test_sets_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(asking(), tmp_path / "run").folder
    before = facts(folder)
    values = folder / "features/inception_tf_stand-in/values-truth.json"
    content = json.loads(values.read_text())
    with monkeypatch.context() as patch:
        patch.setattr("zoo.metrics.sets.distribution", None)
        assert facts(folder) == before
    for damage in ("{", json.dumps({**content, "key": "0" * 64, "values": {name: [1, 1, 1, 1] for name in SETS}})):
        values.write_text(damage)
        assert facts(folder) == before
        assert json.loads(values.read_text()) == content


# --- what cannot be taken --------------------------------------------------------------------------------------------


def test_what_is_not_here_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    made, plain = (asking("mean", metrics=metrics, limit=4) for metrics in (("fid", "tdanet_tv"), ("tdanet_tv",)))
    assert made.asked == ("tdanet_tv",)
    assert made.hash == plain.hash
    assert set(made.skipped) == {"fid_tf", "fid_clean"}
    folder = run(plain, tmp_path / "run").folder
    assert "skipped" not in facts(folder)
    run(made, folder)  # the same plan: the folder takes over what this call could not take
    found = facts(folder)
    assert list(found["skipped"]) == ["fid_tf", "fid_clean"]
    assert "is not here, and downloads are forbidden" in found["skipped"]["fid_tf"]
    assert not {"fid_tf", "fid_clean"} & found["methods"]["mean"].keys()


def test_too_few_images_for_a_metric_of_sets(tmp_path: Path) -> None:
    folder = run(asking("mean", metrics=("p_ids_stand-in",), limit=4), tmp_path / "run").folder
    reason = facts(folder)["skipped"]["p_ids_stand-in"]
    assert reason.startswith("it needs 4,096 images, there are 4")
    assert "p_ids_cross" in reason


def test_bad_names_and_images_that_are_too_small() -> None:
    with pytest.raises(UsageError, match="unknown metric 'psnr'"):
        plan("mean", metrics=["psnr"])
    with pytest.raises(UsageError, match="'lpips_alex_stand-in' needs images of at least 32 pixels, not 24"):
        plan("mean", metrics=["lpips_alex_stand-in"], size=24)
    assert plan("mean", metrics=["tdanet", "fid_tf_stand-in"], size=24).asked[-1] == "fid_tf_stand-in"


def test_the_facts_of_what_is_asked_belong_to_the_hash(tmp_path: Path) -> None:
    plain, one, other = (asking("mean", metrics=metrics) for metrics in ((), ("kid_stand-in",), ("tdanet",)))
    assert len({plain.hash, one.hash, other.hash}) == 3
    assert differences(plain, one) == ["metrics"]
    assert plain.asked == ()
    (tmp_path / "plan.json").write_text(other.to_json())
    assert Plan.read(tmp_path) == other
    assert Plan.read(tmp_path).asked == ("tdanet_l1", "tdanet_psnr", "tdanet_ssim", "tdanet_tv")


def test_a_network_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes_features.accept(monkeypatch, "alexnet")
    paths = fakes_features.write(tmp_path / "networks", "alexnet")
    made = asking("truth", "mean", metrics=("lpips_alex",), limit=4, features_files=paths)
    assert made.features_files == paths
    assert made.metrics["lpips_alex"]["weights"] == sha256(paths["alexnet"])
    folder = run(made, tmp_path / "run").folder
    methods = facts(folder)["methods"]
    assert methods["truth"]["lpips_alex"]["mean"] == 0.0
    assert methods["mean"]["lpips_alex"]["mean"] > 0
    state = torch.load(paths["alexnet"])
    state["features.0.bias"] = state["features.0.bias"] + 1
    torch.save(state, paths["alexnet"])
    run(made, folder)  # there is nothing to do, and nothing is loaded
    with pytest.raises(WeightsError, match="have changed since the plan was made"):
        run(made, tmp_path / "again")


def test_a_full_disk_is_an_error_and_the_run_goes_on_later(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FeatureStore.append
    calls = []

    def full(self: FeatureStore, part: str, ids: list[str], values: np.ndarray, digests: list[str]) -> Path:
        calls.append(part)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        return real(self, part, ids, values, digests)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "append", full)
        with pytest.raises(DataError, match="No space left"):
            run(asking(), tmp_path / "run")
    assert 0 < len(read_rows(tmp_path / "run")) < 21
    run(asking(), tmp_path / "run")
    assert facts(tmp_path / "run") == facts(whole)
