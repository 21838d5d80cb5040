"""LPIPS and DISTS with trunks of numbers by a formula; `test_calibration` has their values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fakes_features
from zoo.errors import DataError
from zoo.metrics import perceptual
from zoo.metrics.perceptual import Dists, Lpips


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("features")
    yield fakes_features.write(folder, "alexnet", "vgg16")
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips(request: pytest.FixtureRequest, files: dict[str, str]) -> Lpips:
    return Lpips(request.param, Path(files["alexnet" if request.param == "alex" else "vgg16"]))


@pytest.fixture(scope="module")
def dists(files: dict[str, str]) -> Dists:
    return Dists(Path(files["vgg16"]))


def test_equals_the_forward_of_torchmetrics(lpips: Lpips) -> None:
    composite, truth, mask = fakes_features.photographs(2)
    theirs = lpips.network(composite.float() / 255, truth.float() / 255, normalize=True).flatten()
    assert lpips(composite, truth, mask)[lpips.name].tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_truth_is_at_no_distance_and_no_hole_has_no_value(lpips: Lpips, dists: Dists) -> None:
    composite, truth, mask = fakes_features.photographs(2)
    values = lpips(truth, truth, mask)
    assert [v.tolist() for v in values.values()] == [[0.0, 0.0]] * 2
    assert dists(truth, truth, mask)["dists"].abs().max() < 1e-5
    mask[0] = 0
    values = lpips(composite, truth, mask)
    assert values[f"{lpips.name}_hole"].isnan().tolist() == [True, False]
    assert not values[lpips.name].isnan().any()


def test_parts_of_a_batch_change_nothing(lpips: Lpips, dists: Dists, monkeypatch: pytest.MonkeyPatch) -> None:
    composite, truth, mask = fakes_features.photographs(3)
    together = lpips(composite, truth, mask) | dists(composite, truth, mask)
    monkeypatch.setattr(perceptual, "PIXELS", 1)
    apart = lpips(composite, truth, mask) | dists(composite, truth, mask)
    for name, value in together.items():
        assert apart[name].tolist() == pytest.approx(value.tolist(), rel=1e-4), name


def test_wrong_input_is_refused(lpips: Lpips, dists: Dists) -> None:
    composite, truth, mask = fakes_features.photographs(2)
    for network in (lpips, dists):
        with pytest.raises(DataError, match="8-bit images"):
            network(composite.float(), truth, mask)
        with pytest.raises(DataError, match="the mask is"):
            network(composite, truth, mask[:1])
        with pytest.raises(DataError, match="at least 32 pixels"):
            network(composite[..., :31], truth[..., :31], mask[..., :31])
