"""Which pictures stay. That a page of any number of processes is the same is in `test_loop`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.benchmark.gallery import DRAWN, FIRST, WORST, Keeper, drawn, kept_ids, picture_path
from zoo.benchmark.work import Picture


@pytest.mark.parametrize(("size", "count"), [(64, 635), (148, DRAWN), (149, DRAWN), (512, DRAWN)])
def test_of_small_images_more_are_kept(size: int, count: int) -> None:
    assert drawn(size) == count
    ids = [f"a/{k}" for k in range(1000)]
    kept = kept_ids(ids, size)
    assert kept[:FIRST] == ids[:FIRST]
    assert len(kept) == len(set(kept)) == FIRST + count
    assert set(kept_ids(ids[:100], size)) == set(ids[:100])


def picture(size: int) -> Picture:
    pixels = np.zeros((size, size, 3), np.uint8)
    return Picture(pixels, pixels)


@pytest.mark.parametrize(("size", "all_of_them"), [(64, True), (256, False)])
def test_a_method_keeps_all_small_pictures_and_of_large_ones_its_worst_too(
    size: int, all_of_them: bool, tmp_path: Path
) -> None:
    ids = [f"a/{k}" for k in range(200)]
    keeper = Keeper(tmp_path, "m", ids[:FIRST], size)
    for k, sample in enumerate(ids):
        keeper.keep({"id": sample, "l1_hole": k / 1000}, picture(size))
    there = {sample for sample in ids if picture_path(tmp_path, "m", sample).is_file()}
    expected = set(ids) if all_of_them else {*kept_ids(ids, size), *ids[-WORST:]}
    assert there == expected
    assert (len(there) < len(ids)) != all_of_them
