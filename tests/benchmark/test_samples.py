"""Several samples of one image: what is measured of them, what it leaves alone, and how it is shown."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmark.test_plan import FAKE, plan
from tests.fakes_benchmark import Moody
from zoo.batch import finish_batch
from zoo.benchmark import Plan, make_plan, render_table, run, summarize, to_json, write_report
from zoo.benchmark.loop import Reader
from zoo.benchmark.masks import read_masks
from zoo.benchmark.samples import digest, diversity
from zoo.benchmark.store import constant, read_rows
from zoo.compose import to_uint8
from zoo.data import open_dataset
from zoo.data.masked import collate
from zoo.metrics import per_image

DRAWING, MOODY = FAKE + "Drawing", FAKE + "Moody"
LIMIT = 12
SAMPLES = 3
TITLE = "3 samples per image: mean, oracle best of 3 (chosen with the truth), diversity"


def rows(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["method"], row["id"]): constant(row) for row in read_rows(folder)}


def scenes(samples: int) -> Plan:
    """Scenes whose objects a method that obeys its caption now and then is to paint."""
    return make_plan("shapes", "object", ["mean", MOODY], limit=LIMIT, size=32, batch_size=4, samples=samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = run(scenes(samples=SAMPLES), tmp_path_factory.mktemp("samples") / "run")
    assert (result.rows, result.failed) == (2 * LIMIT, 0)
    write_report(result.folder)
    return result.folder


# --- the measures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7])
def test_diversity_is_the_mean_over_all_pairs(count: int) -> None:
    images = torch.from_numpy(np.random.default_rng(count).integers(0, 256, (count, 3, 6, 5), dtype=np.uint8))
    hole = torch.zeros(6, 5, dtype=torch.bool)
    hole[1:4, 2:] = True
    pairs = [(a[:, hole] - b[:, hole]).abs().mean() for a, b in itertools.combinations(images.double() / 255, 2)]
    assert diversity(images, hole) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-12)
    elsewhere = images.clone()
    elsewhere[0, :, ~hole] = 255 - elsewhere[0, :, ~hole]
    assert diversity(elsewhere, hole) == diversity(images, hole)


def test_diversity_lies_between_equal_and_opposite() -> None:
    hole = torch.ones(4, 4, dtype=torch.bool)
    black, white = (torch.full((1, 3, 4, 4), level, dtype=torch.uint8) for level in (0, 255))
    assert diversity(torch.cat([white] * 5), hole) == 0.0
    assert diversity(torch.cat([black, white]), hole) == 1.0
    assert diversity(torch.cat([black, white, white]), hole) == pytest.approx(2 / 3)
    assert math.isnan(diversity(white, hole))
    assert math.isnan(diversity(torch.cat([black, white]), ~hole))


def test_the_best_is_the_least_error_and_the_greatest_of_all_else() -> None:
    values = [
        {"l1_hole": 0.25, "psnr_hole": 10.0, "colour_fidelity": 0.0, "shape_fidelity": math.nan, "ssim": 1.0},
        {"l1_hole": 0.75, "psnr_hole": 14.0, "colour_fidelity": 1.0, "shape_fidelity": math.nan, "ssim": 1.0},
    ]
    assert digest(values, 0.125) == {
        "n": 2,
        "diversity": 0.125,
        "l1_hole": {"mean": 0.5, "oracle_best": 0.25},
        "psnr_hole": {"mean": 12.0, "oracle_best": 14.0},
        "colour_fidelity": {"mean": 0.5, "oracle_best": 1.0},
        "shape_fidelity": {"mean": None, "oracle_best": None},
    }
    assert digest([{"l1_hole": 0.25}], math.nan) == {
        "n": 1,
        "diversity": None,
        "l1_hole": {"mean": 0.25, "oracle_best": 0.25},
    }


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_hold_what_the_samples_measure(folder: Path) -> None:
    made, method = Plan.read(folder), Moody().eval()
    data = open_dataset(made.dataset, split="test", size=made.size)
    ((_, items),) = Reader(data, made, read_masks(folder)).read([range(4)], 0)
    batch = finish_batch(collate([{name: item[name] for name in ("id", "image", "mask", "caption")} for item in items]))
    with method.sampling():
        drawn = [to_uint8(method.complete(batch, seed=seed).image) for seed in (1, 2, 3)]
    truth = to_uint8(batch["image"])
    found = rows(folder)
    for k, sample in enumerate(batch["id"]):
        stored = found[MOODY, sample]["samples"]
        hole = batch["mask"][k, 0] > 0.5
        for name, best in (("l1_hole", min), ("psnr_hole", max)):
            values = [float(per_image(image, truth, batch["mask"])[name][k]) for image in drawn]
            assert len(set(values)) == 3
            assert stored[name] == {"mean": pytest.approx(sum(values) / 3), "oracle_best": pytest.approx(best(values))}
        assert stored["diversity"] == diversity(torch.stack([image[k] for image in drawn]), hole)
        judged = [data.judge(sample, x[k].permute(1, 2, 0).numpy(), hole.numpy()) for x in drawn]  # type: ignore[attr-defined]
        for name in ("colour_fidelity", "shape_fidelity"):
            scores = [verdict[name] for verdict in judged]
            assert stored[name] == {"mean": pytest.approx(sum(scores) / 3), "oracle_best": max(scores)}
    several = [row["samples"] for (label, _), row in found.items() if label == MOODY]
    assert {one["n"] for one in several} == {3}
    assert {one["colour_fidelity"]["oracle_best"] for one in several} == {0.0, 1.0}


def test_samples_change_nothing_else_and_belong_to_stochastic_methods(folder: Path, tmp_path: Path) -> None:
    without = scenes(samples=0)
    assert without.hash != Plan.read(folder).hash
    run(without, tmp_path / "run")
    found = rows(folder)
    assert {label for (label, _), row in found.items() if "samples" in row} == {MOODY}
    assert {k: {n: v for n, v in row.items() if n != "samples"} for k, row in found.items()} == rows(tmp_path / "run")


def test_shards_workers_and_memory_give_the_same_samples(folder: Path, tmp_path: Path) -> None:
    for part in (1, 0):
        run(Plan.read(folder), tmp_path / "run", shard=(part, 2), workers=part)
    assert rows(tmp_path / "run") == rows(folder)


def test_a_sample_that_fails_fails_its_image_and_says_which(tmp_path: Path) -> None:
    result = run(plan("FlawedDrawing", batch_size=4, samples=3), tmp_path / "run")
    assert (result.rows, result.failed) == (19, 2)
    errors = {row["id"]: row["error"] for row in read_rows(result.folder) if "error" in row}
    assert errors.keys() == {"dots/5", "dots/8"}
    assert errors["dots/5"].startswith("sample 2 has ")
    assert errors["dots/8"] == "RuntimeError: no paint left"
    assert run(plan("FlawedDrawing", batch_size=4), tmp_path / "without").failed == 0


# --- reports ---------------------------------------------------------------------------------------------------------


def test_the_summary_has_means_and_intervals_over_images(folder: Path) -> None:
    content = to_json(summarize(folder))
    assert content | {"run": Plan.read(folder).name} == json.loads((folder / "summary.json").read_text())
    assert (content["samples"]["n"], list(content["samples"]["methods"])) == (3, [MOODY])
    found = content["samples"]["methods"][MOODY]
    assert list(found) == ["l1_hole", "psnr_hole", "colour_fidelity", "shape_fidelity", "diversity"]
    stored = [row["samples"] for (label, _), row in rows(folder).items() if label == MOODY]
    for name, ways in found.items():
        for way, value in [("", ways)] if name == "diversity" else ways.items():
            values = [one[name][way] if way else one[name] for one in stored]
            assert value["mean"] == pytest.approx(np.mean(values))
            assert value["n"] == len(values) == LIMIT
            assert value["lo"] < value["mean"] < value["hi"]
    assert found["l1_hole"]["oracle_best"]["mean"] < found["l1_hole"]["mean"]["mean"]
    assert found["psnr_hole"]["oracle_best"]["mean"] > found["psnr_hole"]["mean"]["mean"]


def test_samples_have_a_table_of_their_own_with_a_title_that_says_what_it_is(folder: Path) -> None:
    ways = to_json(summarize(folder))["samples"]["methods"][MOODY]["l1_hole"]
    cells = {way: f"{v['mean']:.4f} [{v['lo']:.4f}, {v['hi']:.4f}]" for way, v in ways.items()}
    texts = [(folder / name).read_text() for name in ("table.md", "index.html")]
    for text in (render_table(summarize(folder), width=200), *(text.replace("\n[", " [") for text in texts)):
        before, _, after = text.partition(TITLE)
        assert "oracle" not in before
        assert "samples" not in before.partition("<style>")[0]
        table = after.partition("Intervals")[0]
        assert "mean of 3" in table
        assert "oracle best of 3" in table
        assert cells["mean"] in table
        assert cells["oracle_best"] in table
        assert cells["oracle_best"] not in before
        lines = [line for line in table.splitlines() if "of 3" in line and ("mean of" in line or "best of" in line)]
        assert len(lines) == 2
        assert all(MOODY in line for line in lines)
    assert "over all pairs" in texts[1]
    narrow = render_table(summarize(folder), width=80).partition(TITLE)[2]
    assert cells["mean"] not in narrow  # the interval stands below its mean
    assert all(part in narrow for part in cells["mean"].split(" ", 1))


def test_a_run_without_samples_speaks_of_none(tmp_path: Path) -> None:
    result = run(plan("Drawing", batch_size=4, limit=4), tmp_path / "run")
    write_report(result.folder)
    assert "samples" not in to_json(summarize(result.folder))
    texts = [(result.folder / name).read_text() for name in ("table.md", "table.csv", "summary.json")]
    for text in (*texts, render_table(summarize(result.folder)), (result.folder / "index.html").read_text()):
        assert "oracle" not in text
        assert "samples per image" not in text


def test_one_sample_has_no_diversity(tmp_path: Path) -> None:
    result = run(plan("Drawing", batch_size=4, limit=4, samples=1), tmp_path / "run")
    found = to_json(summarize(result.folder))["samples"]["methods"][DRAWING]
    assert found["diversity"] == {"mean": None, "lo": None, "hi": None, "n": 0}
    assert found["l1_hole"]["mean"] == found["l1_hole"]["oracle_best"]


def test_changed_settings_stand_beside_the_weights(tmp_path: Path) -> None:
    settings = {DRAWING: {"k": 0.5, "strength": 2}}
    result = run(plan("Drawing", "mean", batch_size=4, limit=4, settings=settings), tmp_path / "run")
    table = render_table(summarize(result.folder), width=200)
    (line,) = (line for line in table.splitlines() if DRAWING in line)
    assert "k=0.5, strength=2" in line
    assert table.count("k=0.5") == 1
