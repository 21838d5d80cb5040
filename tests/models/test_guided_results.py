"""What shipped weights that can be guided reach on 512 scenes: the rows that `python -m benchmarks.publish` stored."""

from __future__ import annotations

import pytest

from tests.results import interval, mean, rows


def test_under_brush_strokes_it_is_nearer_to_the_truth_than_diffusion() -> None:
    assert interval("freeform", "l1_hole", "mminvertfill")[1] < interval("freeform", "l1_hole", "telea")[0]


def test_edges_and_segmentation_tell_it_the_shape() -> None:
    guided, alone = (mean(name, "shape_fidelity", "mminvertfill") for name in ("object-guided", "object"))
    assert guided >= alone + 0.15
    assert mean("object-guided", "l1_hole", "mminvertfill") < mean("object", "l1_hole", "mminvertfill")


@pytest.mark.parametrize("control", ["mean", "telea"])
def test_controls_are_not_guided(control: str) -> None:
    alone = {row["id"]: row["l1_hole"] for row in rows("object", control)}
    assert all(row["l1_hole"] == alone[row["id"]] for row in rows("object-guided", control))
