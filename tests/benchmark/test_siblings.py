"""Runs of other masks, side by side, take the features of their truths once, and give what each gives by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from tests.benchmark.test_plan import FAKE
from tests.fakes_benchmark import DATA
from zoo.benchmark import Plan, make_plan, run
from zoo.benchmark.features import TRUTH, read_stores
from zoo.benchmark.plan import FILE
from zoo.benchmark.siblings import Siblings
from zoo.metrics import Suite
from zoo.metrics.store import pixel_digest

SETS = ("fid_tf_stand-in", "kid_stand-in")
MIXING = FAKE + "Mixing"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")


def masked(kind: str, **options: Any) -> Plan:
    return make_plan(DATA, kind, [MIXING], metrics=SETS, **{"batch_size": 4, "size": 32, **options})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of all images that features are computed of from now on."""
    found: list[str] = []
    real = Suite.features

    def features(suite: Suite, image: Tensor) -> dict[str, NDArray[np.float32]]:
        found.extend(map(pixel_digest, image))
        return real(suite, image)

    monkeypatch.setattr(Suite, "features", features)
    return found


def truths(folder: Path) -> dict[str, dict[str, str]]:
    return {name: store.known(TRUTH) for name, store in read_stores(folder).items()}


def test_truths_are_taken_once_and_nothing_else_changes(tmp_path: Path, seen: list[str]) -> None:
    first = run(masked("center"), tmp_path / "runs" / "center").folder
    known = truths(first)
    digests = {digest for found in known.values() for digest in found.values()}
    assert len(digests) == 21
    assert digests <= set(seen)
    seen.clear()
    second = run(masked("half"), tmp_path / "runs" / "half").folder
    assert not digests & set(seen), "they are those of the run beside"
    assert truths(second) == known
    seen.clear()
    alone = run(masked("half"), tmp_path / "elsewhere" / "half").folder
    assert digests <= set(seen)
    for name, store in read_stores(second).items():
        for part in (TRUTH, f"method-{MIXING}"):
            assert np.array_equal(store.read(part).values, read_stores(alone)[name].read(part).values)


@pytest.mark.parametrize(
    "change", [{"size": 24}, {"batch_size": 8}, {"threads": 2}, {"split": "val"}, {"data_options": {"silent": True}}]
)
def test_truths_that_are_computed_otherwise_are_not_shared(change: dict[str, Any], tmp_path: Path) -> None:
    made = masked("center")
    folder = run(made, tmp_path / "center").folder
    stores = read_stores(folder)
    ids = [f"dots/{k}" for k in range(4)]
    (name, *_) = stores
    digests = [stores[name].known(TRUTH)[sample] for sample in ids]
    beside = tmp_path / "beside"
    found = Siblings(made, beside, stores, TRUTH).truths(name, ids, digests)
    assert found is not None
    assert np.array_equal(found, stores[name].read(TRUTH, ids).values)
    assert Siblings(replace(made, **change), beside, stores, TRUTH).truths(name, ids, digests) is None
    same = Siblings(made, beside, stores, TRUTH)
    assert same.truths(name, ids, [*digests[:3], "0" * 16]) is None, "other pixels"
    assert same.truths(name, ids[:3], digests[:3]) is None, "another block"
    assert Siblings(made, folder, stores, TRUTH).truths(name, ids, digests) is None, "its own are no sibling's"


def test_what_lies_damaged_beside_a_run_is_not_its_affair(tmp_path: Path, seen: list[str]) -> None:
    first = run(masked("center"), tmp_path / "center").folder
    known = truths(first)
    for path in first.rglob("truth/*.safetensors"):
        path.write_bytes(b"damaged")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_text("{")
    seen.clear()
    second = run(masked("half"), tmp_path / "half")
    assert second.failed == 0
    assert {digest for found in known.values() for digest in found.values()} <= set(seen)
    assert truths(second.folder) == known
