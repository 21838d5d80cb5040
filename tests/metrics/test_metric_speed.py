"""The speed table of the metrics runs, and its plain side computes the same things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed.metrics import (
    FASTEST,
    SLOWEST,
    features,
    library_fid,
    measure_libraries,
    measure_method,
    measure_sets,
    ours_fid,
    ours_kid,
    photographs,
    plain_band,
    plain_suite,
    root_fid,
)
from zoo.metrics import per_image, regions
from zoo.metrics.kernel import kernel_subsets
from zoo.models import names
from zoo.models.controls import Mean
from zoo.weights import shipped

ROOT = Path(__file__).resolve().parents[2]


def test_rows() -> None:
    rows = [*measure_libraries(1, ((32, 2),)), *measure_method("mean", Mean(size=32), 32, 1, batch=2)]
    rows += measure_sets(1, n=60, width=16, rows=100)
    assert all(set(r) == {"name", "ours_ms", "plain_ms", "ratio", "target"} and r["ours_ms"] > 0 for r in rows)
    assert len({r["name"] for r in rows}) == len(rows) == 12
    assert all(r["ratio"] == r["plain_ms"] / r["ours_ms"] for r in rows if r["ratio"] is not None)


def test_plain_side_is_the_same_measure() -> None:
    composite, truth, mask, raw = photographs(64, 2)
    values, plain = per_image(composite, truth, mask, raw), plain_suite(composite, truth)
    assert torch.allclose(values["l1"], plain["l1"] / 255)
    assert torch.allclose(values["psnr"], plain["psnr"])
    # The plain side counts the windows centred within 5 pixels of the border, and these images are undamaged there.
    assert torch.allclose(values["ssim"] * 54**2 + (64**2 - 54**2), plain["ssim"] * 64**2)
    assert torch.allclose(values["tv"], plain["tv"] / (3 * 64 * 63 * 255))
    assert torch.equal(regions(mask)[:, 2:], plain_band(mask) > 0)


def test_both_sides_of_sets_are_the_same_measure() -> None:
    pair = features(80, 16)
    assert ours_fid(pair) == pytest.approx(library_fid(pair), rel=1e-5)
    assert ours_fid(pair) == pytest.approx(root_fid(pair), rel=1e-5)
    assert ours_kid(pair) == pytest.approx(kernel_subsets(*pair, subsets=1, size=80), abs=1e-6)


def test_what_is_recorded_is_of_every_shipped_method_and_within_the_bounds() -> None:
    """Under a tenth of the slowest method's own run, and under half of the fastest's."""
    rows = json.loads((ROOT / "benchmarks/results/speed/metrics.json").read_text())["results"]
    own = {
        row["name"].split()[2]: row for row in rows if row["name"].startswith("suite / ") and "own run" in row["name"]
    }
    assert set(own) == {name for name in names() if shipped(name)}
    assert sorted(row["target"] for row in own.values()) == [FASTEST] * (len(own) - 1) + [SLOWEST]
    assert max(own.values(), key=lambda row: row["plain_ms"])["target"] == SLOWEST
    assert all(row["ratio"] > row["target"] for row in own.values())
