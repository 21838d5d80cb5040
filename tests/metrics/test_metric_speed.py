"""The speed table of the metrics runs, and its plain side computes the same things."""

from __future__ import annotations

import torch

from benchmarks.speed.metrics import measure_libraries, measure_method, photographs, plain_band, plain_suite
from zoo.metrics import per_image, regions
from zoo.models.controls import Mean


def test_rows() -> None:
    rows = [*measure_libraries(1, ((32, 2),)), measure_method("mean", Mean(size=32), 32, 1, batch=2)]
    assert all(set(r) == {"name", "ours_ms", "plain_ms", "ratio", "target"} and r["ours_ms"] > 0 for r in rows)
    assert len({r["name"] for r in rows}) == len(rows) == 6
    assert rows[-1]["ratio"] == rows[-1]["plain_ms"] / rows[-1]["ours_ms"]


def test_plain_side_is_the_same_measure() -> None:
    composite, truth, mask, raw = photographs(64, 2)
    values, plain = per_image(composite, truth, mask, raw), plain_suite(composite, truth)
    assert torch.allclose(values["l1"], plain["l1"] / 255)
    assert torch.allclose(values["psnr"], plain["psnr"])
    # The plain side counts the windows centred within 5 pixels of the border, and these images are undamaged there.
    assert torch.allclose(values["ssim"] * 54**2 + (64**2 - 54**2), plain["ssim"] * 64**2)
    assert torch.allclose(values["tv"], plain["tv"] / (3 * 64 * 63 * 255))
    assert torch.equal(regions(mask)[:, 2:], plain_band(mask) > 0)
