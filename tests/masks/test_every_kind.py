"""What holds of every kind: golden hashes, the same mask however it is reached, no hang, the references' means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every import (
    COUNT,
    NAMES,
    Pictures,
    canvas,
    fingerprint,
    holes,
    mixture_fingerprint,
    nvidia_folder,
    plain,
    shas,
)
from torch.utils.data import ConcatDataset, DataLoader

from zoo.data.masked import EvaluationSet, collate
from zoo.errors import UsageError
from zoo.masks import check_kind, draw_mask, kinds
from zoo.masks.manifest import bits_sha
from zoo.masks.mixtures import MIXTURES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "masks.json").read_text())
REFERENCE = {
    "lama:thin": 0.295, "lama:medium": 0.234, "lama:thick": 0.394, "lama:train": 0.355, "lama:outpaint": 0.278,
    "freeform": 0.154, "deepfill": 0.310, "mat": 0.401, "comodgan": 0.729, "mmagic": 0.347,
    "picnet:irregular": 0.521, "picnet:regular": 0.315, "center": 0.25,
}  # fmt: skip
ANNOTATED = {"object", "object:segmentation", "instance", "class:thing", "file"}
OTHERS = [name for name in NAMES if name not in REFERENCE and name not in ANNOTATED]
KEYED = [
    name for name in NAMES
    if name.partition(":")[0] not in ("center", "file", "class", "outpaint", "half") or "random" in name
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _nvidia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_NVIDIA_MASKS", str(nvidia_folder(tmp_path_factory.mktemp("nvidia"))))
        yield


def test_golden_values_are_of_every_kind() -> None:
    assert set(GOLDEN["hashes"]) == set(NAMES)
    assert set(GOLDEN["means"]) == set(OTHERS)
    assert set(GOLDEN["mixtures"]) == set(MIXTURES)
    assert {name.partition(":")[0] for name in NAMES} == {
        name for name, _ in kinds() if not name.startswith("mixture:")
    }


@pytest.mark.parametrize("kind", NAMES)
def test_golden_hashes(kind: str) -> None:
    assert fingerprint(kind) == GOLDEN["hashes"][kind]


@pytest.mark.parametrize("name", MIXTURES)
def test_golden_hashes_of_mixtures(name: str) -> None:
    assert mixture_fingerprint(name) == GOLDEN["mixtures"][name]


@pytest.mark.parametrize("kind", NAMES)
def test_a_mask_is_binary_and_has_a_hole(kind: str) -> None:
    for index in range(COUNT):
        mask = draw_mask(kind, canvas(index), 1)
        assert mask.shape == (64, 64)
        assert mask.dtype == np.uint8
        assert mask.flags.c_contiguous
        assert mask.any()
        assert mask.max() == 1


@pytest.mark.parametrize("kind", KEYED)
def test_another_seed_gives_other_masks(kind: str) -> None:
    assert shas(kind) != shas(kind, seed=1)
    assert len(set(shas(kind).values())) > 1


# --- the same mask, however it is reached -----------------------------------------------------------------------------


def test_the_same_masks_on_two_ranks_in_processes_of_their_own() -> None:
    """Each process draws every other image, one of them backwards, with another salt of Python's own hash."""
    command = [sys.executable, str(ROOT / "tests" / "masks" / "every.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen([*command, rank], env=environment | {"PYTHONHASHSEED": rank}, stdout=subprocess.PIPE)
        for rank in ("0", "1")
    ]
    answers = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    for kind in NAMES:
        assert answers[0][kind] | answers[1][kind] == shas(kind), kind


def loaded(order: list[int], batch_size: int, workers: int, context: str | None) -> dict[int, str]:
    """Hashes by position in the sets of all kinds, end to end, as a loader with these settings reads them."""
    sets = ConcatDataset([EvaluationSet(Pictures(), kind) for kind in NAMES])
    loader: DataLoader[Any] = DataLoader(
        sets, batch_size, sampler=order, num_workers=workers, multiprocessing_context=context, collate_fn=collate
    )
    masks = [mask[0].numpy() for batch in loader for mask in batch["mask"]]
    return {position: bits_sha(mask) for position, mask in zip(order, masks, strict=True)}


def test_the_same_masks_over_workers_batch_sizes_orders_and_spawned_processes() -> None:
    wanted = dict(enumerate(sha for kind in NAMES for sha in shas(kind).values()))
    order = list(wanted)
    mixed = torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).tolist()
    for positions, batch_size, workers, context in (
        (order, 1, 0, None),
        (order[::-1], 7, 0, None),
        (mixed, 5, 2, "fork"),
        (order[1::2], 16, 1, "spawn"),  # one rank of two
    ):
        found = loaded(positions, batch_size, workers, context)
        assert found == {position: wanted[position] for position in positions}, (batch_size, workers, context)


# --- how large the holes are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFERENCE)
def test_mean_ratios_are_those_of_the_references(kind: str) -> None:
    assert holes(kind, 2000).mean() == pytest.approx(REFERENCE[kind], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFERENCE)
def test_mean_ratios_over_many_draws(kind: str) -> None:
    assert holes(kind, 10_000).mean() == pytest.approx(REFERENCE[kind], abs=0.01)


@pytest.mark.parametrize("kind", OTHERS)
def test_golden_means(kind: str) -> None:
    assert holes(kind, 200).mean() == pytest.approx(GOLDEN["means"][kind], abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in REFERENCE if kind != "center"])
def test_holes_keep_their_share_at_512(kind: str) -> None:
    """Where strokes are in absolute pixels they do not: LaMa's training holes shrink from .355 to .133."""
    spread = holes(kind, 300, 256)
    assert holes(kind, 300, 512).mean() == pytest.approx(spread.mean(), abs=0.02)


# --- no hang ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (64, 512), (512, 64), (1024, 1024), (1, 40)])
def test_extreme_sizes_end(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    for kind in NAMES:
        if kind in ANNOTATED:
            continue
        if min(size) < 64 and "-" in kind:  # a bucket may have no whole number of pixels
            with suppress(UsageError):
                draw_mask(kind, plain(0, *size))
            continue
        masks = [draw_mask(kind, plain(index, *size)) for index in range(3)]
        assert all(mask.shape == size and mask.any() for mask in masks), kind
    assert time.perf_counter() - start < 60


BUCKETS = ["0-1", "1-10", "10-11", "50-60", "90-100", "99-100", "0-100", "33.3-33.4"]


def possible(family: str, low: float, high: float, size: tuple[int, int]) -> bool:
    """Whether any hole of an image this small lies in a bucket."""
    area = size[0] * size[1]
    counts = [n for n in range(1, area + 1) if low * area < 100 * n <= high * area]
    if family == "irregular":
        return bool(counts)
    return any(n % h == 0 and n // h <= size[1] for n in counts for h in range(1, size[0] + 1))


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (64, 512), (1024, 1024)])
@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("family", ["irregular", "rectangle"])
def test_buckets_are_exact_and_end(family: str, bucket: str, size: tuple[int, int]) -> None:
    low, high = (float(part) for part in bucket.split("-"))
    kind = f"{family}:{bucket}"
    if size[0] * size[1] < 5000 and not possible(family, low, high, size):
        with pytest.raises(UsageError, match="lies in"):
            draw_mask(kind, plain(0, *size))
        return
    for index in range(20 if size[0] < 512 else 3):
        ratio = 100 * draw_mask(kind, plain(index, *size)).mean()
        assert low < ratio <= high + 1e-9


def test_names_that_are_shown_are_names() -> None:
    for kind in NAMES:
        check_kind(kind)
