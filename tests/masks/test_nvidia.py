"""NVIDIA's irregular mask files, on a folder laid out as theirs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from every import nvidia_folder, plain

from zoo.errors import DataError, UsageError
from zoo.masks import draw_mask
from zoo.masks.nvidia import BORDER, default_root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvidia_folder(tmp_path_factory.mktemp("nvidia"))


@pytest.fixture(autouse=True)
def _named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_NVIDIA_MASKS", str(folder))


def files(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.png"))]


@pytest.mark.parametrize("bucket", ["1-10", "10-20", "20-30", "30-40", "40-50", "50-60"])
@pytest.mark.parametrize("size", [(128, 128), (64, 64), (48, 96)])
def test_ratios_lie_in_the_bucket_at_any_size(bucket: str, size: tuple[int, int]) -> None:
    low, high = (int(part) for part in bucket.split("-"))
    for index in range(12):
        mask = draw_mask(f"nvidia:{bucket}", plain(index, *size))
        assert mask.shape == size
        assert low < 100 * mask.mean() <= high


def test_white_is_the_hole_and_files_are_only_mirrored(folder: Path) -> None:
    known = {
        np.ascontiguousarray(levels[::down, ::right] > 0).tobytes(): (number, down, right)
        for number, levels in enumerate(files(folder))
        for down in (1, -1)
        for right in (1, -1)
    }
    chosen = [known[(draw_mask("nvidia:0-60", plain(index, 128)) > 0).tobytes()] for index in range(150)]
    assert {(down, right) for _, down, right in chosen} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert len({number for number, _, _ in chosen}) > 30, "any file that fits"


def test_with_and_without_holes_near_the_border() -> None:
    margin = round(BORDER * 128)
    for index in range(30):
        clear = draw_mask("nvidia:20-60:noborder", plain(index, 128))
        assert clear.sum() == clear[margin:-margin, margin:-margin].sum()
        near = draw_mask("nvidia:20-60:border", plain(index, 128))
        assert near.sum() > near[margin:-margin, margin:-margin].sum()


def test_a_missing_folder_is_one_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root, message in ((tmp_path / "none", "no folder"), (tmp_path, "no mask files")):
        monkeypatch.setenv("ZOO_NVIDIA_MASKS", str(root))
        with pytest.raises(DataError, match=message) as caught:
            draw_mask("nvidia:10-20", plain(0, 64))
        assert caught.value.where == str(root)
        assert "test_mask.zip" in caught.value.remedy


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_NVIDIA_MASKS")
    monkeypatch.setenv("ZOO_DATA", "/somewhere")
    assert default_root() == Path("/somewhere/nvidia_masks")
    monkeypatch.delenv("ZOO_DATA")
    assert default_root() == Path("data/nvidia_masks")


def test_what_no_file_can_give(folder: Path) -> None:
    with pytest.raises(DataError, match="none of 36 masks has a hole of 80 to 90 %"):
        draw_mask("nvidia:80-90", plain(0, 64))
    with pytest.raises(DataError, match="away from the border"):
        draw_mask("nvidia:80-90:noborder", plain(0, 64))
    with pytest.raises(UsageError, match="no number of pixels"):
        draw_mask("nvidia:10-10.001", plain(0, 8))


@pytest.mark.parametrize(("damage", "message"), [("torn", "cannot be read"), ("inverted", "looks inverted")])
def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, message: str) -> None:
    root = nvidia_folder(tmp_path)
    for path in root.rglob("*.png"):
        if damage == "torn":
            path.write_bytes(path.read_bytes()[:20])
        else:
            cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    monkeypatch.setenv("ZOO_NVIDIA_MASKS", str(root))
    with pytest.raises(DataError, match=message) as caught:
        draw_mask("nvidia:80-90", plain(0, 64))
    assert caught.value.where.endswith(".png")
