"""L1, PSNR, TV and the raw output's change: golden values, naive loops, undefined cases."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import zoo.metrics
from zoo.errors import DataError
from zoo.metrics import DEFINITIONS, NAMES, per_image
from zoo.metrics.image import exact_device
from zoo.metrics.region import SUFFIXES, regions

ROOT = Path(__file__).resolve().parents[2]


def golden() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, z and the mask of the agreed values, 1 x C x 96 x 80."""
    i, j, c = np.meshgrid(np.arange(96), np.arange(80), np.arange(3), indexing="ij")
    x = ((3 * i + 5 * j + 40 * c) % 256).astype(np.uint8)
    y = np.round(np.clip(x + 12 * np.sin(i / 5) * np.cos(j / 7), 0, 255)).astype(np.uint8)
    mask = np.zeros((96, 80, 1), np.uint8)
    mask[20:70, 10:50] = 1
    x, y, z, mask = (torch.from_numpy(a).permute(2, 0, 1)[None] for a in (x, y, np.where(mask > 0, y, x), mask))
    return x, y, z, mask


def scene(seed: int, batch: int = 3, height: int = 20, width: int = 17) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random composites that equal the truth outside random blobs: composite, truth, mask, raw."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    mask = (torch.rand(batch, 1, height, width, generator=generator) > 0.93).float()
    mask = torch.nn.functional.max_pool2d(mask, 3, 1, 1)
    raw = torch.rand(batch, 3, height, width, generator=generator)
    composite = torch.where(mask > 0, raw.mul(255).round().to(torch.uint8), truth)
    return composite, truth, mask, raw


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (1, {"l1": 0.01806542756, "l1_hole": 0.01956078431, "psnr": 32.84022032944, "ssim": 0.97900678742}),
        (2, {"l1": 0.00509395425, "l1_hole": 0.01956078431, "psnr": 38.16859130255, "ssim": 0.98966292334}),
        (1, {"tv": 0.05975608563}),
        (2, {"tv": 0.06053361739}),
    ],
)
def test_agreed_values(which: int, expected: dict[str, float]) -> None:
    images = golden()
    values = per_image(images[which], images[0], images[3])
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value, abs=1e-9), name


def _naive(a: NDArray[np.int64], b: NDArray[np.int64], region: NDArray[np.bool_]) -> dict[str, float]:
    """L1, PSNR and TV over a region of one image (3 H W), pixel by pixel."""
    height, width = region.shape
    inside = [(i, j) for i in range(height) for j in range(width) if region[i, j]]
    errors = [float(a[c, i, j] - b[c, i, j]) for i, j in inside for c in range(3)]
    steps: dict[str, list[float]] = {"down": [], "right": []}
    for i in range(height):
        for j in range(width):
            for name, k, m in (("down", i + 1, j), ("right", i, j + 1)):
                if k < height and m < width and (region[i, j] or region[k, m]):
                    steps[name] += [abs(float(a[c, k, m] - a[c, i, j])) for c in range(3)]
    mse = sum(e * e for e in errors) / len(errors)
    return {
        "l1": sum(abs(e) for e in errors) / len(errors) / 255,
        "psnr": 100.0 if mse == 0 else 20 * math.log10(255 / math.sqrt(mse)),
        "tv": sum(sum(s) / len(s) for s in steps.values()) / 255,
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_region_equals_a_naive_loop(seed: int) -> None:
    composite, truth, mask, _ = scene(seed)
    values, where = per_image(composite, truth, mask), regions(mask)
    for n in range(len(mask)):
        for k, suffix in enumerate(SUFFIXES):
            naive = _naive(composite[n].long().numpy(), truth[n].long().numpy(), where[n, k].numpy())
            for family, value in naive.items():
                assert values[family + suffix][n].item() == pytest.approx(value, rel=1e-12), family + suffix


def test_change_of_the_raw_output_counts_known_pixels_alone() -> None:
    composite, truth, mask, raw = scene(5)
    known = (mask == 0).expand(-1, 3, -1, -1)
    expected = [
        (r[k].double() - t[k].double() / 255).abs().mean().item() for r, t, k in zip(raw, truth, known, strict=True)
    ]
    broken = raw.masked_fill(~known, float("nan"))
    for given in (raw, broken):
        assert per_image(composite, truth, mask, given)["raw_known_l1"].tolist() == pytest.approx(expected, rel=1e-12)
    exact = per_image(composite, truth, mask, truth.double() / 255)
    assert exact["raw_known_l1"].tolist() == [0.0] * 3


def test_names_types_and_definitions() -> None:
    composite, truth, mask, raw = scene(0)
    values = per_image(composite, truth, mask, raw)
    assert tuple(values) == NAMES
    assert tuple(per_image(composite, truth, mask)) == NAMES[:-1]
    assert set(NAMES) < set(DEFINITIONS)
    assert all(v.dtype == torch.float64 and v.shape == (3,) for v in values.values())
    assert all(d.text and d.better in ("lower", "higher", "none") and d.digits > 0 for d in DEFINITIONS.values())
    assert zoo.metrics.versions()["torch"] == torch.__version__.split("+")[0]


def test_identical_images_score_the_cap() -> None:
    _, truth, mask, _ = scene(1, height=24, width=24)
    values = per_image(truth, truth, mask, truth.double() / 255)
    for suffix in SUFFIXES:
        assert values["l1" + suffix].tolist() == [0.0] * 3
        assert values["psnr" + suffix].tolist() == [100.0] * 3
        assert values["ssim" + suffix].tolist() == [1.0] * 3


def test_psnr_never_exceeds_the_cap() -> None:
    truth = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    one_level = truth.clone()
    one_level[0, 0, 0, 0] = 1  # 101 dB, more than identical images may score
    assert per_image(one_level, truth, torch.zeros(1, 1, 256, 256))["psnr"].item() == 100.0


@pytest.mark.parametrize(
    ("fill", "undefined"),
    [
        (0, {f + s for f in ("l1", "psnr", "ssim", "tv") for s in ("_hole", "_band")}),
        (1, {f + "_band" for f in ("l1", "psnr", "ssim", "tv")} | {"raw_known_l1"}),
    ],
    ids=["no hole", "all hole"],
)
def test_what_is_undefined_is_nan_and_nothing_else(fill: int, undefined: set[str]) -> None:
    composite, truth, _, raw = scene(2)
    values = per_image(composite, truth, torch.full((3, 1, 20, 17), float(fill)), raw)
    assert {name for name, v in values.items() if v.isnan().all()} == undefined
    assert all(bool(v.isfinite().all()) for name, v in values.items() if name not in undefined)
    if fill == 1:
        for family in ("l1", "psnr", "ssim", "tv"):
            assert torch.equal(values[family], values[family + "_hole"])


def test_one_pixel_hole() -> None:
    truth = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8, 7] = 1
    composite = torch.where(mask > 0, torch.tensor(151, dtype=torch.uint8), truth)
    values = {name: v.item() for name, v in per_image(composite, truth, mask).items()}
    assert values["l1_hole"] == pytest.approx(51 / 255)
    assert values["l1"] == pytest.approx(51 / 255 / 256)
    assert values["l1_band"] == pytest.approx(51 / 255 / 25)  # the band reaches two pixels to each side
    assert values["psnr_hole"] == pytest.approx(20 * math.log10(5))
    assert values["tv_hole"] == pytest.approx(2 * 51 / 255)
    assert 0 < values["ssim_hole"] < values["ssim"] < 1


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (1, 1), (2, 2)])
def test_images_smaller_than_the_window_have_no_ssim(height: int, width: int) -> None:
    composite, truth, _, raw = scene(3, 2, height, width)
    values = per_image(composite, truth, torch.ones(2, 1, height, width), raw)
    assert all(values["ssim" + suffix].isnan().all() for suffix in SUFFIXES)
    assert bool(values["l1_hole"].isfinite().all())
    assert bool(values["tv"].isnan().all()) == (height == 1)


def test_a_hole_in_the_border_has_no_window_of_its_own() -> None:
    composite, truth, _, _ = scene(4)
    mask = torch.zeros(3, 1, 20, 17)
    mask[..., :5, :] = 1
    values = per_image(composite, truth, mask)
    assert bool(values["ssim_hole"].isnan().all())
    assert bool(values["l1_hole"].isfinite().all())


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = scene(6, batch=9, height=33, width=40)
    together = per_image(*images)
    for n in range(9):
        alone = per_image(*(x[n : n + 1] for x in images))
        for name in NAMES:
            assert torch.equal(alone[name], together[name][n : n + 1]), name


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float32, torch.int64])
def test_the_mask_may_have_any_type(kind: torch.dtype) -> None:
    composite, truth, mask, raw = scene(7, height=24, width=24)
    reference, values = per_image(composite, truth, mask, raw), per_image(composite, truth, mask.to(kind), raw)
    assert all(torch.equal(reference[name], values[name]) for name in NAMES)


def test_wrong_input_is_refused() -> None:
    composite, truth, mask, raw = scene(0)
    with pytest.raises(DataError, match=r"8-bit images, the composite is torch\.float32"):
        per_image(composite.float(), truth, mask)
    with pytest.raises(DataError, match="8-bit images, the truth"):
        per_image(composite, truth.float() / 255, mask)
    with pytest.raises(DataError, match="the truth is"):
        per_image(composite, truth[:1], mask)
    with pytest.raises(DataError, match="the mask is"):
        per_image(composite, truth, mask.expand(-1, 3, -1, -1))
    with pytest.raises(DataError, match="the raw is"):
        per_image(composite, truth, mask, raw[..., 1:])
    with pytest.raises(DataError, match="must be float"):
        per_image(composite, truth, mask, truth)
    with pytest.raises(DataError, match="B 3 H W"):
        per_image(composite[:, :1], truth[:, :1], mask)


def test_devices_without_double_precision_fall_back_to_the_cpu() -> None:
    assert exact_device(torch.device("mps")) == torch.device("cpu")
    assert exact_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "heavy"), [("per_image", ("torchmetrics", "lightning", "scipy")), ("DEFINITIONS", ("torch", "numpy"))]
)
def test_importing_the_metrics_is_light(name: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; from zoo.metrics import {name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_found() -> None:
    assert all(getattr(zoo.metrics, name) is not None for name in zoo.metrics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        zoo.metrics.nonsense  # noqa: B018
