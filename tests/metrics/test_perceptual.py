"""LPIPS and DISTS against the libraries that define them, with trunks of the same numbers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fakes_features
from zoo.errors import DataError
from zoo.metrics import PUBLISHED, perceptual
from zoo.metrics.perceptual import Dists, Lpips
from zoo.metrics.sources import hub_holding

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "metrics.json").read_text())


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


def _theirs(net: str, trunk: dict[str, Tensor], spatial: bool) -> Any:
    """The network of the package `lpips`, whose own heads it ships, with our trunk."""
    import lpips as package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names arguments that torchvision renamed
        theirs = package.LPIPS(net=net, version="0.1", pnet_rand=True, spatial=spatial, verbose=False)
    for piece in (getattr(theirs.net, f"slice{k}") for k in range(1, 6)):
        for place, layer in piece.named_children():
            if f"features.{place}.weight" in trunk:
                layer.weight.data = trunk[f"features.{place}.weight"]
                layer.bias.data = trunk[f"features.{place}.bias"]
    return theirs.eval()


def test_equals_the_package_lpips(lpips: Lpips) -> None:
    net = lpips.name.removeprefix("lpips_")
    composite, truth, mask = fakes_features.photographs(2)
    trunk = fakes_features.alexnet_state() if net == "alex" else fakes_features.vgg16_state()
    a, b = (x.float() / 127.5 - 1 for x in (composite, truth))
    with torch.no_grad():
        whole = _theirs(net, trunk, False)(a, b).flatten()
        spatial = _theirs(net, trunk, True)(a, b)
    values = lpips(composite, truth, mask)
    assert values[lpips.name].tolist() == pytest.approx(whole.tolist(), rel=1e-4)
    over_hole = (spatial * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    assert values[f"{lpips.name}_hole"].tolist() == pytest.approx(over_hole.tolist(), rel=1e-4)


def test_equals_the_forward_of_torchmetrics(lpips: Lpips) -> None:
    composite, truth, mask = fakes_features.photographs(2)
    theirs = lpips.network(composite.float() / 255, truth.float() / 255, normalize=True).flatten()
    assert lpips(composite, truth, mask)[lpips.name].tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_dists_equals_torchmetrics_function(dists: Dists, files: dict[str, str]) -> None:
    from torchmetrics.functional.image.dists import deep_image_structure_and_texture_similarity

    composite, truth, mask = fakes_features.photographs(2)
    with hub_holding(Path(files["vgg16"]), PUBLISHED["vgg16"].name):
        theirs = deep_image_structure_and_texture_similarity(composite.float() / 255, truth.float() / 255)
    assert dists(composite, truth, mask)["dists"].tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_golden_values(lpips: Lpips, dists: Dists) -> None:
    composite, truth, mask = fakes_features.photographs()
    for name, value in (lpips(composite, truth, mask) | dists(composite, truth, mask)).items():
        assert value.tolist() == pytest.approx(GOLDEN["perceptual"][name], rel=1e-4), name
        assert value.dtype == torch.float64


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
