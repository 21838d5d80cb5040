"""The controls, and how methods are found by name."""

from __future__ import annotations

import pytest
import torch

from tests.test_module import batch
from tests.toys import Toy
from zoo.batch import Batch
from zoo.errors import UsageError
from zoo.models import CONTROLS, class_path, load, names, resolve
from zoo.models.controls import Mean, Telea, Truth
from zoo.module import InpaintingModule


def test_truth_is_the_truth() -> None:
    made = Truth().complete(batch())
    assert torch.equal(made.image, batch()["image"])
    assert torch.equal(made.raw, batch()["image"])


def test_mean_is_the_mean_of_known_pixels() -> None:
    full = batch()
    raw = Mean().complete(full).raw
    known = full["mask"][0, 0] < 0.5
    for channel in range(3):
        assert raw[0, channel, 5, 5].item() == pytest.approx(full["image"][0, channel][known].mean().item(), abs=1e-5)
    everything = Mean().complete(Batch({**full, "mask": torch.ones_like(full["mask"])}))  # type: ignore[typeddict-item]
    assert (everything.image == 0.5).all()


def test_telea_continues_a_flat_image() -> None:
    full = batch()
    flat = Batch({**full, "image": torch.full_like(full["image"], 51 / 255)})  # type: ignore[typeddict-item]
    # OpenCV's own rounding puts it up to three grey levels off even here.
    assert torch.allclose(Telea().complete(flat).image, flat["image"], atol=3.1 / 255)


@pytest.mark.parametrize("control", [Mean, Telea])
def test_controls_see_no_truth(control: type[InpaintingModule]) -> None:
    full = batch()
    blind = Batch({**full, "image": full["image"].masked_fill(full["mask"] > 0.5, float("nan"))})  # type: ignore[typeddict-item]
    method = control(size=16)
    assert torch.equal(method.complete(full).image, method.complete(blind).image)
    every = Batch({**full, "mask": torch.ones_like(full["mask"])})  # type: ignore[typeddict-item]
    assert method.complete(every).image.isfinite().all()


def test_names_resolve() -> None:
    assert all(issubclass(resolve(n), InpaintingModule) for n in (*names(), *CONTROLS))
    assert resolve("tests.toys.Toy") is resolve("tests.toys:Toy") is Toy
    assert class_path("toys:Toy") == "toys.Toy"
    assert isinstance(load("telea"), Telea)


@pytest.mark.parametrize(
    ("name", "text"),
    [("deepfil", "did you mean 'deepfill'"), ("no.such.Thing", "cannot import"), ("pathlib.Path", "not a method")],
)
def test_wrong_names_are_usage_errors(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        resolve(name)
