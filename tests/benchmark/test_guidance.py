"""Guidance that a method can do without is shown where the plan names it, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes_guided import Guided
from zoo.benchmark import make_plan, run
from zoo.benchmark.store import read_rows
from zoo.data import open_dataset
from zoo.data.edges import canny


@pytest.mark.parametrize("guidance", [(), ("edge",), ("segmentation",), ("edge", "segmentation")])
def test_the_benchmark_shows_what_the_plan_names(
    guidance: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    plain = Guided.inpaint

    def watched(self: Guided, batch: Any, noise: Any) -> torch.Tensor:
        seen.append(dict(batch))
        return plain(self, batch, noise)

    monkeypatch.setattr(Guided, "inpaint", watched)
    plan = make_plan(
        "shapes", "object", ["tests.fakes_guided.Guided"], limit=4, size=32, batch_size=4, guidance=guidance
    )
    result = run(plan, tmp_path / "run")
    assert (result.rows, result.failed) == (4, 0)
    assert all(row["guidance"] == sorted(guidance) for row in read_rows(result.folder))
    assert seen
    samples = [open_dataset("shapes", split="test", size=32, count=4).sample(index) for index in range(4)]
    for batch in seen:
        assert {"edge", "segmentation"} & batch.keys() == set(guidance)
        if "edge" in guidance:
            truth = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples]) / 255
            assert torch.equal(batch["edge"], canny(truth))
            assert not batch["edge_mask"].any()
        if "segmentation" in guidance:
            truth = torch.stack([torch.from_numpy(sample.segmentation).long() for sample in samples])
            assert torch.equal(batch["segmentation"], truth)
            assert not batch["segmentation_mask"].any()
