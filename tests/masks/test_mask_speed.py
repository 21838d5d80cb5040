"""What `benchmarks.speed masks` measures: every kind without annotations, against generators of the same law."""

from __future__ import annotations

import numpy as np
import pytest
from every import holes

from benchmarks.speed import masks
from benchmarks.speed.plain_masks import PLAIN
from zoo.masks import examples

SAME_LAW = [kind for kind in PLAIN if not kind.startswith("irregular")]


@pytest.mark.parametrize("kind", SAME_LAW)
def test_the_plain_generator_has_the_same_law(kind: str) -> None:
    """Written twice, piece by piece and at once, so that an error in one shows; mean and spread of 400 holes."""
    rng = np.random.default_rng(1)
    plain = np.array([np.asarray(PLAIN[kind](rng)).mean() for _ in range(400)])
    ours = holes(kind, 400)
    error = float(np.hypot(plain.std(), ours.std())) / 20
    assert ours.mean() == pytest.approx(plain.mean(), abs=4 * error)
    assert ours.std() == pytest.approx(plain.std(), rel=0.25)


def test_every_kind_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "milliseconds", lambda draw, count: float(draw(0) is not None))
    rows = masks.measure(2)
    assert [row["name"] for row in rows] == [f"{kind}, 256" for kind in examples() if kind not in masks.NEED_MORE]
    assert {row["name"].partition(",")[0] for row in rows if "ratio" in row} == set(PLAIN)
    assert [row["name"] for row in rows if row.get("target")] == [f"{kind}, 256" for kind in masks.TARGETS]
