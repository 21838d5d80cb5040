"""The quick JPEG decoder gives Pillow's pixels, and never a picture for a file that ends too early."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from tests.fakes import photograph, picture
from zoo.data import image as image_module
from zoo.data.decode import decode_jpeg
from zoo.data.image import read_image
from zoo.errors import DataError


def _jpeg(pixels: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "jpeg", **options)
    return file.getvalue()


def _quick(content: bytes) -> np.ndarray | None:
    file = io.BytesIO(content)
    with Image.open(file) as header:
        place = file.tell()
        pixels = decode_jpeg(file, header)
        assert file.tell() == place
    return pixels


def _pillow(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("size", [(480, 640), (97, 131), (8, 8), (1, 1), (33, 500)])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 90},
        {"quality": 20, "subsampling": "4:2:0"},
        {"quality": 95, "subsampling": "4:2:2"},
        {"quality": 90, "subsampling": "4:4:4"},
        {"quality": 85, "progressive": True},
        {"quality": 85, "optimize": True, "restart_marker_blocks": 3},
        {"quality": 90, "keep_rgb": True},
    ],
    ids=str,
)
def test_pixels_are_pillows(size: tuple[int, int], options: dict[str, Any]) -> None:
    whole = photograph("coffee")
    content = _jpeg(np.asarray(Image.fromarray(whole).resize(size[::-1])), **options)
    pixels = _quick(content)
    assert pixels is not None
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert np.array_equal(pixels, _pillow(content))


def test_grey_becomes_three_channels() -> None:
    content = _jpeg(photograph("chelsea"), "L", quality=80)
    assert np.array_equal(_quick(content), _pillow(content))


def test_several_pictures_in_a_file() -> None:
    file = io.BytesIO()
    first, second = (Image.fromarray(picture(40, 50, seed)) for seed in (1, 2))
    first.save(file, "mpo", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(file.getvalue())).format == "MPO"
    assert np.array_equal(_quick(file.getvalue()), _pillow(file.getvalue()))


def test_what_is_left_to_pillow() -> None:
    assert _quick(_jpeg(picture(16, 16), "CMYK")) is None
    png = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(png, "png")
    assert _quick(png.getvalue()) is None
    exif = Image.Exif()
    exif[0x0112] = 3
    assert _quick(_jpeg(picture(16, 16), exif=exif)) is None
    exif[0x0112] = 1
    assert _quick(_jpeg(picture(16, 16), exif=exif)) is not None


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photograph(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = _jpeg(picture(24, 40), quality=95, exif=exif)
    (tmp_path / "a.jpg").write_bytes(content)
    pixels = read_image(tmp_path / "a.jpg")
    assert pixels.shape == ((24, 40, 3) if turn < 5 else (40, 24, 3))
    stored = _pillow(content)
    mirrored = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1]}
    turned = {5: np.rot90(stored[:, ::-1]), 6: np.rot90(stored, -1), 7: np.rot90(stored[::-1]), 8: np.rot90(stored)}
    assert np.array_equal(pixels, (mirrored | turned)[turn])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95, 0.999])
def test_a_truncated_file_is_an_error(tmp_path: Path, share: float, progressive: bool) -> None:
    content = _jpeg(photograph("coffee"), quality=90, progressive=progressive)
    short = content[: int(len(content) * share)]
    assert _quick(short) is None
    (tmp_path / "a.jpg").write_bytes(short)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("lost", [1, 2, 10])
def test_a_file_that_lacks_its_last_bytes_is_an_error(tmp_path: Path, lost: int) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg(photograph("chelsea"), quality=90)[:-lost])
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "a.jpg")


def test_a_file_cut_after_the_end_of_its_thumbnail_is_an_error(tmp_path: Path) -> None:
    thumbnail = _jpeg(picture(16, 16))
    content = _jpeg(photograph("coffee"), quality=90, exif=b"Exif\0\0" + thumbnail)
    end = content.index(thumbnail) + len(thumbnail)
    (tmp_path / "a.jpg").write_bytes(content[: end + 400] + b"\xff\xd9")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "a.jpg")


def test_damage_and_harmless_oddities_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    content = _jpeg(photograph("coffee"), quality=90)
    agreed = {"picture": 0, "error": 0}
    cases = [content + b"more behind the end", content[:-2] + b"\0\0" + content[-2:]]
    rng = np.random.default_rng(0)
    for place in rng.integers(200, len(content), 60):
        cases.append(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(case)
        try:
            want = _pillow(case)
        except Exception:
            with pytest.raises(DataError, match="cannot be read"):
                read_image(path)
            agreed["error"] += 1
        else:
            assert np.array_equal(read_image(path), want)
            agreed["picture"] += 1
    assert min(agreed.values()) > 0


def test_a_file_of_pixels_alone_is_not_read_whole_before_it_is_known_to_be_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture" * 1000)
    asked: list[int] = []
    monkeypatch.setattr(image_module, "decode_jpeg", lambda *_: asked.append(1))
    with pytest.raises(DataError):
        read_image(tmp_path / "a.jpg")
    assert asked == []


def test_the_limit_of_pixels_holds_for_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg(picture(100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    with pytest.raises(DataError, match="more pixels than is safe"):
        read_image(tmp_path / "a.jpg")


def test_the_quick_decoder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg(picture(30, 30)))
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda self: pytest.fail("Pillow decoded it"))
    assert read_image(tmp_path / "a.jpg").shape == (30, 30, 3)
