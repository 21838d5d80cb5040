"""The papers' tables: what they were measured with, and how the same is measured here."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from zoo.errors import DataError
from zoo.resources import resource

FILE = "benchmarks/published/results.csv"
COLUMNS = ("paper", "table", "dataset", "mask", "hole_ratio", "method", "metric", "value", "note")


class Measure(NamedTuple):
    """How a published metric is measured here.

    Attributes:
        theirs: The metric that follows the paper's definition.
        scale: What its values are multiplied by to have the paper's unit.
        ours: The metric of our own definition that comes nearest.
    """

    theirs: str
    scale: float
    ours: str


class Paper(NamedTuple):
    """A paper with tables.

    Attributes:
        protocol: The name of the protocol that follows it (`zoo list protocols`).
        about: Its protocol in words.
        measures: By published metric; what is not there cannot be measured.
        images: By dataset, how many images the paper states.
        options: By dataset, the arguments that choose the paper's images, where the protocol has a choice.
    """

    protocol: str
    about: str
    measures: dict[str, Measure]
    images: dict[str, int]
    options: Mapping[str, Mapping[str, str]] = MappingProxyType({})


PAPERS: dict[str, Paper] = {
    "cma": Paper(
        "tdanet",
        "256 px, whole composite, TDANet's code: grey images, relative L1, SSIM of columns, wrapped TV",
        {
            "l1_percent": Measure("tdanet_l1", 1, "l1"),
            "psnr_db": Measure("tdanet_psnr", 1, "psnr"),
            "ssim_percent": Measure("tdanet_ssim", 1, "ssim"),
            "tv_percent": Measure("tdanet_tv", 1, "tv"),
            "fid": Measure("fid_tf", 1, "fid_tf"),
            "kid_x100": Measure("kid_subsets", 100, "kid"),
        },
        {},
    ),
    "nigdt": Paper(
        "tdanet",
        "256 px, whole composite, PICNet's code: RGB in grey levels, uniform SSIM, wrapped TV",
        {
            "l1_percent": Measure("picnet_l1", 1, "l1"),
            "psnr_db": Measure("picnet_psnr", 1, "psnr"),
            "ssim": Measure("picnet_ssim", 1, "ssim"),
            "tv_percent": Measure("picnet_tv", 1, "tv"),
        },
        {},
        {"coco": {"variant": "2014"}},
    ),
    "ecdm": Paper(
        "ecdm",
        "512 px, no evaluation code published: the usual definitions, LPIPS by AlexNet",
        {
            "l1": Measure("l1", 1, "l1"),
            "psnr_db": Measure("psnr", 1, "psnr"),
            "ssim": Measure("ssim", 1, "ssim"),
            "lpips": Measure("lpips_alex", 1, "lpips_alex"),
        },
        {"coco": 5000, "openimages": 1500},
    ),
    "mminvertfill": Paper(
        "mminvertfill",
        "irregular masks in three buckets, no evaluation code published: the usual definitions, LPIPS by AlexNet",
        {
            "ssim": Measure("ssim", 1, "ssim"),
            "lpips": Measure("lpips_alex", 1, "lpips_alex"),
            "fid": Measure("fid_tf", 1, "fid_tf"),
            "p_ids_percent": Measure("p_ids", 100, "p_ids"),
            "u_ids_percent": Measure("u_ids", 100, "u_ids"),
        },
        {"places2": 36_500},
    ),
}
METHODS = {
    "CMA": "cma",
    "NIGDT": "nigdt",
    "ECDM": "ecdm",
    "MMInvertFill": "mminvertfill",
    "GC": "deepfill",
    "Stable Diffusion inpainting": "sd_inpaint",
    "ControlNet inpainting": "controlnet_inpaint",
}
"""As the tables name them, and as they are named here. `GC` is gated convolution, DeepFill-v2."""


class Cell(NamedTuple):
    """One published value, as `benchmarks/published/README.md` describes it; `value` is its text."""

    paper: str
    table: str
    dataset: str
    mask: str
    hole_ratio: str
    method: str
    metric: str
    value: str
    note: str

    @property
    def suspect(self) -> bool:
        """Whether the paper contradicts itself here."""
        return "suspect" in self.note

    @property
    def setting(self) -> str:
        """What it was measured on."""
        share = f" {self.hole_ratio} %" if self.hole_ratio[:1].isdigit() else f" {self.hole_ratio}"
        return f"{self.dataset}, {self.mask or 'mask not stated'}{share if self.hole_ratio else ''}"


def read_published(path: Path | None = None) -> list[Cell]:
    """The published values.

    Args:
        path: Another file of the same columns.

    Raises:
        DataError: The columns differ, or a value is no number.
    """
    path = resource(FILE) if path is None else path
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError("these are no published values", str(path), f"the columns are {', '.join(COLUMNS)}")
        cells = [Cell(**line) for line in reader]
    for number, cell in enumerate(cells, 2):
        try:
            float(cell.value)
        except ValueError:
            raise DataError(f"'{cell.value}' is not a number", f"{path}:{number}") from None
    return cells


def compared(cells: list[Cell]) -> list[Cell]:
    """Those that can stand beside a run: neither ablations nor user studies."""
    return [cell for cell in cells if "ablation" not in cell.note and not cell.metric.startswith("rank_")]
