"""The controls of every run: the truth is perfect by every metric, and truth, telea, mean come in that order.

LPIPS and FID are of the small stand-in networks: what is tested is the way from images to numbers, not the networks.
The masks are strokes. Where a whole object is gone, neither control can know it, and by PSNR the two are level.
"""

from __future__ import annotations

from typing import Any

import pytest

from zoo.benchmark import make_plan, run, summarize, to_json

LPIPS, FID = "lpips_alex_stand-in", "fid_tf_stand-in"
CONTROLS = ("truth", "telea", "mean")
LIMIT = 48


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = make_plan("shapes", "freeform", CONTROLS, limit=LIMIT, metrics=(LPIPS, FID))
    result = run(made, tmp_path_factory.mktemp("controls") / "run")
    assert (result.rows, result.failed) == (3 * LIMIT, 0)
    methods: dict[str, Any] = to_json(summarize(result.folder))["methods"]
    return methods


@pytest.mark.parametrize(
    ("name", "value", "tolerance"),
    [
        (LPIPS, 0.0, 0.0), (FID, 0.0, 1e-6), ("l1", 0.0, 0.0), ("l1_hole", 0.0, 0.0), ("raw_known_l1", 0.0, 1e-7),
        ("psnr", 100.0, 0.0), ("ssim", 1.0, 1e-12), ("ssim_hole", 1.0, 1e-12),
    ],
)  # fmt: skip
def test_the_truth_is_perfect(name: str, value: float, tolerance: float, found: dict[str, Any]) -> None:
    assert found["truth"][name]["n"] == LIMIT
    assert found["truth"][name]["mean"] == pytest.approx(value, abs=tolerance, rel=0)


@pytest.mark.parametrize("name", ["l1_hole", "psnr", "ssim", LPIPS])
def test_truth_telea_mean(name: str, found: dict[str, Any]) -> None:
    means = [found[method][name]["mean"] for method in CONTROLS]
    assert means == sorted(means, reverse=name in ("psnr", "ssim"))
    assert len(set(means)) == 3


def test_a_distance_to_the_truth_is_seen(found: dict[str, Any]) -> None:
    truth, telea, mean = (found[method][FID]["mean"] for method in CONTROLS)
    assert mean > telea > 1e-5 > truth
