"""The command for a machine with a GPU runs: its dry run on the CPU does all it does there, tiny."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.gpu import COUNTED, PEAKS, TINY, StepCount, _text, main, utilization
from tests.fakes_ecdm import count
from zoo.models import build, names, resolve

PRESETS = ("paper", "nano")


@pytest.mark.slow
def test_the_dry_run_measures_and_benchmarks(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--dry-run"]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "mean nothing" in results["device"]
    trained = [(row["method"], row["preset"], row["stage"]) for row in results["fit"]]
    assert len(set(trained)) == len(trained)
    assert {what[:2] for what in trained} == set(product(names(), PRESETS))
    assert {(name, preset, resolve(name).stages[-1]) for name, preset in product(names(), PRESETS)} <= set(trained)
    assert all(row["images_per_second"] > 0 and row["loader_images_per_second"] > 0 for row in results["fit"])
    assert all(row["finite"] and row["steps"] == 2 and row["precision"] == "bf16-mixed" for row in results["fit"])
    counted = {(row["method"], row["preset"]): row for row in results["fit"] if "flops_per_step" in row}
    assert set(counted) == set(product(COUNTED, PRESETS))
    for row in counted.values():
        assert row["flops_per_step"] > 1e8
        assert row["seconds_per_step"] * row["images_per_second"] == pytest.approx(row["batch_size"])
        assert row["no_share"] == "no peak is stated for 'cpu' (benchmarks.gpu.PEAKS)"
        assert "share_of_peak" not in row
    assert results["benchmark"]["exit"] == 0
    methods = results["benchmark"]["summary"]["methods"]
    assert methods["truth"]["psnr"]["mean"] == 100


def test_ecdm_is_of_the_papers_size_and_small_in_a_dry_run() -> None:
    arguments = _text("ecdm", "paper")
    assert arguments["base"] == ""  # nothing from the hub
    with torch.device("meta"):
        module = build("ecdm", "paper", **arguments)
    found = {name: count(network) for name, network in module.named_children() if name != "text"}
    assert found == {"codec": 83_653_863, "unet": 859_520_964, "teacher": 361_279_120, "student": 370_279_952}
    assert module.text.model.get_input_embeddings().weight.shape == (49_408, 768)  # type: ignore[union-attr, operator]
    assert count(build("ecdm", "paper", **arguments, **TINY["ecdm", "paper"])) < 2e6


def test_the_share_of_the_peak_is_given_where_the_peak_is_known() -> None:
    found = utilization(10**13, 0.02, "NVIDIA H200")
    assert found == {"flops_per_step": 10**13, "peak_flops": 989.4e12, "share_of_peak": 5e14 / 989.4e12}
    unknown = utilization(10**13, 0.02, "NVIDIA H200 MIG 1g.18gb")
    assert set(unknown) == {"flops_per_step", "no_share"}
    assert "'NVIDIA H200 MIG 1g.18gb'" in unknown["no_share"]
    assert all(peak > 1e14 for peak in PEAKS.values())


class Product(LightningModule):
    """A product of 3x8 and 8x4, whose weights have a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        scores: Tensor = self.linear(batch)
        return scores.square().mean()


def test_the_operations_of_one_batch_are_counted() -> None:
    counter = StepCount()
    trainer = Trainer(
        accelerator="cpu", max_steps=3, callbacks=[counter], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Product(), DataLoader(torch.rand(9, 8), batch_size=3))  # type: ignore[arg-type]
    assert trainer.global_step == 3
    assert counter.operations == 2 * (2 * 3 * 8 * 4)  # forward, and the gradient of the weights
