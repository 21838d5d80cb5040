"""The command for a machine with a GPU runs: its dry run on the CPU does all it does there, tiny."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu import main
from zoo.models import names, resolve


def test_the_dry_run_measures_and_benchmarks(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--dry-run"]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "mean nothing" in results["device"]
    trained = [(row["method"], row["preset"], row["stage"]) for row in results["fit"]]
    measured = [name for name in names() if name != "ecdm"]  # its student at 512 is not part of this command yet
    stages = {name: resolve(name).stages if name == "mminvertfill" else resolve(name).stages[-1:] for name in measured}
    assert sorted(trained) == sorted((m, p, s) for m in measured for p in ("paper", "nano") for s in stages[m])
    assert all(row["images_per_second"] > 0 and row["loader_images_per_second"] > 0 for row in results["fit"])
    assert all(row["finite"] and row["steps"] == 2 and row["precision"] == "bf16-mixed" for row in results["fit"])
    assert results["benchmark"]["exit"] == 0
    methods = results["benchmark"]["summary"]["methods"]
    assert methods["truth"]["psnr"]["mean"] == 100
