"""The datamodule: every dataset reaches a method as the contract says, in one process and in two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from tests import data_ddp
from tests.fakes import tiny_coco
from tests.processes import call_apart
from tests.toys import Toy
from zoo.batch import check_batch
from zoo.compose import to_uint8
from zoo.data.edges import canny
from zoo.data.module import InpaintingData
from zoo.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def _first(data: InpaintingData, stage: str = "val") -> Any:
    raw = next(iter(getattr(data, f"{stage}_dataloader")()))
    return data.on_after_batch_transfer(raw, 0)


@pytest.mark.parametrize("stage", ["train", "val", "test", "predict"])
def test_shapes_arrive_under_the_contract(stage: str) -> None:
    data = InpaintingData(size=32, batch_size=3, train_count=6, val_count=4, test_count=4, edges=True)
    batch = _first(data, stage)
    check_batch(batch, ("image", "mask", "caption", "segmentation", "edge"))
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["id"][0].startswith(f"shapes/{'test' if stage == 'predict' else stage}/")
    assert data.provides == {"image", "mask", "caption", "segmentation", "edge"}


def test_batches_travel_as_bytes() -> None:
    raw = next(iter(InpaintingData(size=32, batch_size=2, val_count=2).val_dataloader()))
    assert raw["image"].dtype == raw["mask"].dtype == raw["segmentation"].dtype == torch.uint8


def test_the_same_evaluation_whatever_the_batch_size_and_the_workers() -> None:
    found = []
    for batch_size, workers in ((2, 0), (5, 2)):
        data = InpaintingData(size=32, batch_size=batch_size, workers=workers, test_count=5, mask="freeform")
        batches = list(data.test_dataloader())
        found.append({i: m for b in batches for i, m in zip(b["id"], b["mask"], strict=True)})
    assert list(found[0]) == list(found[1]) == [f"shapes/test/{n:06d}" for n in range(5)]
    assert all(torch.equal(found[0][i], found[1][i]) for i in found[0])


def test_coco_and_folder_arrive_under_the_contract(tmp_path: Path) -> None:
    root = tiny_coco(tmp_path / "coco")
    batch = _first(InpaintingData("coco", root=str(root), size=32, batch_size=2))
    check_batch(batch, ("caption", "segmentation"))
    assert batch["caption"] == ["caption 0 of image 42", "caption 0 of image 43"]
    folder = InpaintingData("folder", root=str(root / "val2017"), size=32, batch_size=2, mask="center")
    batch = _first(folder)
    check_batch(batch)
    assert "caption" not in batch
    assert "caption" not in folder.provides


def test_masks_of_ones_own_and_how_they_are_read(tmp_path: Path) -> None:
    for name in ("images", "holes"):
        (tmp_path / name).mkdir()
    mask = np.full((32, 32), 200, np.uint8)
    mask[8:16, 4:20] = 10
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "holes" / "a.png")
    options: dict[str, Any] = {
        "root": str(tmp_path / "images"),
        "mask_root": str(tmp_path / "holes"),
        "size": 32,
        "batch_size": 1,
        "mask": "file",
    }
    with pytest.raises(DataError, match="grey"):
        _first(InpaintingData("folder", **options))
    batch = _first(InpaintingData("folder", **options, mask_threshold=128, mask_invert=True))
    assert np.array_equal(batch["mask"][0, 0].numpy(), mask < 128)


def test_training_masks_change_and_evaluation_masks_stay() -> None:
    data = InpaintingData(size=32, batch_size=4, train_count=4, val_count=4, train_mask="freeform", mask="freeform")
    train, val = data.train_dataloader(), data.val_dataloader()
    first, second = ({i: m for b in train for i, m in zip(b["id"], b["mask"], strict=True)} for _ in range(2))
    assert set(first) == set(second)
    assert any(not torch.equal(first[i], second[i]) for i in first)
    assert all(torch.equal(a["mask"], b["mask"]) for a, b in zip(val, val, strict=True))


def test_setup_opens_what_a_stage_needs() -> None:
    for stage, splits in {"fit": {"train", "val"}, "validate": {"val"}, "test": {"test"}, "predict": {"test"}}.items():
        data = InpaintingData()
        data.setup(stage)
        assert set(data._datasets) == splits


def test_missing_files_stop_a_run_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train2017"):
        InpaintingData("coco", root=str(tiny_coco(tmp_path, ("val2017",)))).setup("fit")


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"workers": -1}, {"cache_mb": -1}, {"mask": "no-such-mask"}, {"train_mask": "center,no-such"}],
    ids=str,
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        InpaintingData(**options)


def test_options_of_another_dataset() -> None:
    with pytest.raises(UsageError, match="has no option mask_threshold"):
        InpaintingData("shapes", mask_threshold=128).setup("fit")
    with pytest.raises(UsageError, match="unknown dataset"):
        InpaintingData("shapse").setup("fit")


# --- edges -----------------------------------------------------------------------------------------------------------


def test_edges_lie_where_the_image_steps() -> None:
    image = torch.zeros(2, 3, 24, 24)
    image[0, :, :, 12:] = 1.0
    edges = canny(image)
    assert edges.shape == (2, 1, 24, 24)
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    columns = edges[0, 0, 4:20].amax(0).nonzero().flatten().tolist()
    assert columns
    assert set(columns) <= {11, 12}
    assert edges[1].sum() == 0


def test_edges_do_not_depend_on_the_batch_or_the_precision() -> None:
    image = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    together = canny(image)
    assert torch.equal(together[3:4], canny(image[3:4]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(together, canny(image))


@pytest.mark.parametrize(("low", "high", "blur"), [(0.1, 0.2, 5), (0.2, 0.6, 1), (100 / 255, 200 / 255, 1)])
def test_edges_are_kornias_with_its_own_hysteresis(low: float, high: float, blur: int) -> None:
    from kornia.filters import canny as kornia_canny

    coarse = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    _, expected = kornia_canny(image, low, high, (blur, blur), (1.0, 1.0))
    _, before = kornia_canny(image, low, high, (blur, blur), (1.0, 1.0), hysteresis=False)
    assert torch.equal(canny(image, low, high, blur), (expected > 0.5).float())
    assert (before == 1).sum() < expected.sum()  # some weak edges are linked to strong ones


def test_edges_only_where_a_method_needs_them() -> None:
    class NeedsEdges(Toy):
        needs: ClassVar[frozenset[str]] = frozenset({"image", "mask", "edge"})

    class Attached:
        def __init__(self, module: Toy) -> None:
            self.lightning_module = module

    data = InpaintingData(size=32, batch_size=2, val_count=2)
    for trainer, want in ((None, False), (Attached(Toy()), False), (Attached(NeedsEdges()), True)):
        data.trainer = trainer  # type: ignore[assignment]
        raw = {"id": ["a"], "image": torch.zeros(1, 3, 16, 16), "mask": torch.zeros(1, 1, 16, 16)}
        assert ("edge" in data.on_after_batch_transfer(raw, 0)) == want
    assert "edge" not in InpaintingData(edges=False).on_after_batch_transfer(raw, 0)


# --- the dataset's own judge -----------------------------------------------------------------------------------------


def test_the_judge_sees_the_truth_and_the_grey_hole() -> None:
    data = InpaintingData(size=64, batch_size=16, test_count=16, mask="object")
    batch = _first(data, "test")
    truth = data.judge(batch, to_uint8(batch["image"]))
    grey = data.judge(batch, to_uint8(torch.where(batch["mask"] > 0.5, 0.5, batch["image"])))
    assert {"colour_fidelity", "shape_fidelity"} <= set(truth)
    assert all(len(values) == 16 for values in truth.values())
    assert np.nanmean(truth["colour_fidelity"]) > 0.9
    assert np.nanmean(grey["shape_fidelity"]) < 0.5


def test_no_verdict_is_nan_and_no_judge_is_nothing(tmp_path: Path) -> None:
    data = InpaintingData(size=64, batch_size=4, test_count=4, mask="object")
    batch = _first(data, "test")
    batch["mask"][1] = 0.0
    verdict = data.judge(batch, to_uint8(batch["image"]))
    assert np.isnan(verdict["colour_fidelity"]).tolist() == [False, True, False, False]
    pictures = InpaintingData("tests.fakes:Pictures", size=16, batch_size=2, mask="center")
    batch = _first(pictures)
    assert pictures.judge(batch, to_uint8(batch["image"])) == {}


# --- two processes ---------------------------------------------------------------------------------------------------


def test_two_processes_train_and_evaluate_on_what_one_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    data_ddp.main(tmp_path / "one", 1, 8)
    call_apart(data_ddp.main, tmp_path / "two", 2, 4)
    one = json.loads((tmp_path / "one" / "rank0.json").read_text())
    two = [json.loads((tmp_path / "two" / f"rank{rank}.json").read_text()) for rank in range(2)]
    for whole, first, second in zip(one["train"], two[0]["train"], two[1]["train"], strict=True):
        assert sorted(whole) == sorted(first + second)
    evaluated = sorted(i for rank in two for batch in rank["val"] for i in batch)
    assert evaluated == sorted(i for batch in one["val"] for i in batch)  # 9 images: nothing twice, nothing left out
    assert len(evaluated) == 18
