"""Every kind of picture file is read alike, or refused with one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import picture
from zoo.data.image import looks_inverted, read_image, read_mask
from zoo.errors import DataError, UsageError

GREEN = (10, 200, 30)


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_comes_back_exactly(tmp_path: Path) -> None:
    pixels = picture(9, 12)
    image = read_image(_save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (*GREEN, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = read_image(_save(tmp_path / "a.png", image))
    assert tuple(pixels[0, 0]) == GREEN
    assert tuple(pixels[0, 1]) == (255, 255, 255)
    assert abs(int(pixels[0, 2, 0]) - 127) <= 1


def test_palette_and_transparent_palette(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *GREEN])
    assert tuple(read_image(_save(tmp_path / "a.png", image))[2, 2]) == GREEN
    image.putpixel((0, 0), 0)
    assert tuple(read_image(_save(tmp_path / "b.png", image, transparency=0))[0, 0]) == (255, 255, 255)


def test_sixteen_bits_become_eight_by_rounding(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    path = _save(tmp_path / "a.png", Image.fromarray(levels))
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert read_image(path).shape == (1, 6, 3)


def test_sixteen_bit_tiff_of_either_byte_order(tmp_path: Path) -> None:
    levels = np.array([[0, 65535]], np.uint16)
    little = _save(tmp_path / "a.tif", Image.fromarray(levels))
    assert read_image(little)[0, :, 1].tolist() == [0, 255]
    content = bytearray(_save(tmp_path / "b.png", Image.fromarray(levels)).read_bytes())
    assert read_image(tmp_path / "b.png")[0, :, 2].tolist() == [0, 255]
    assert content[24] == 16  # the bit depth in the header: it was a 16-bit file


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    assert read_image(_save(tmp_path / "a.png", Image.new("L", (3, 2), 77)))[0, 0].tolist() == [77] * 3
    assert read_image(_save(tmp_path / "b.png", Image.new("1", (3, 2), 1)))[0, 0].tolist() == [255] * 3


def test_cmyk(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    red, green, blue = read_image(path)[8, 8].astype(int)
    assert red > 240
    assert max(green, blue) < 15


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    pixels = picture(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = _save(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(pixels, -1))


def test_floating_point_has_no_levels(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.tif", Image.fromarray(np.full((2, 2), 0.5, np.float32)))
    with pytest.raises(DataError, match="8-bit or 16-bit"):
        read_image(path)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "tif"])
def test_truncated(tmp_path: Path, extension: str) -> None:
    path = _save(tmp_path / f"a.{extension}", Image.fromarray(picture(60, 60)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path)


def test_damaged_in_the_middle_never_crashes(tmp_path: Path) -> None:
    good = _save(tmp_path / "a.png", Image.fromarray(picture(40, 40))).read_bytes()
    refused = 0
    for place in range(20, len(good), 97):
        (tmp_path / "b.png").write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
        try:
            assert read_image(tmp_path / "b.png").shape[2] == 3
        except DataError:
            refused += 1
    assert refused > 0


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="no image here"):
            read_image(path)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.png", Image.new("L", (100, 100)))
    for limit in (9000, 4000):  # Pillow warns above the limit, and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="more pixels than is safe"):
            read_image(path)


# --- masks -----------------------------------------------------------------------------------------------------------


def _square(white: int = 255, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[5:12, 6:15] = white
    return mask


@pytest.mark.parametrize("white", [255, 1])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA"])
def test_black_and_white_masks(tmp_path: Path, white: int, mode: str) -> None:
    path = _save(tmp_path / "m.png", Image.fromarray(_square(white)).convert(mode))
    mask = read_mask(path, (20, 20))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, _square(1))


def test_one_bit_and_sixteen_bit_masks(tmp_path: Path) -> None:
    assert np.array_equal(read_mask(_save(tmp_path / "a.png", Image.fromarray(_square() > 0))), _square(1))
    deep = Image.fromarray(_square(1).astype(np.uint16) * 65535)
    assert np.array_equal(read_mask(_save(tmp_path / "b.png", deep)), _square(1))


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.png", Image.fromarray(np.zeros((20, 30), np.uint8)))
    with pytest.raises(DataError, match="30x20, its image 20x30"):
        read_mask(path, (30, 20))


def test_a_grey_mask_needs_a_threshold(tmp_path: Path) -> None:
    grey = _square()
    grey[5, 6:10] = (1, 127, 128, 254)
    path = _save(tmp_path / "m.png", Image.fromarray(grey))
    with pytest.raises(DataError, match="grey") as caught:
        read_mask(path)
    assert "threshold" in caught.value.remedy
    assert read_mask(path, threshold=128)[5, 6:10].tolist() == [0, 0, 1, 1]
    assert read_mask(path, threshold=1)[5, 6:10].tolist() == [1, 1, 1, 1]
    for wrong in (0, 256):
        with pytest.raises(UsageError):
            read_mask(path, threshold=wrong)


def test_coloured_and_transparent_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colours"):
        read_mask(_save(tmp_path / "a.png", Image.new("RGB", (4, 4), (255, 0, 0))))
    with pytest.raises(DataError, match="transparent"):
        read_mask(_save(tmp_path / "b.png", Image.new("RGBA", (4, 4), (255, 255, 255, 0))))


def test_an_edge_map_is_called_one(tmp_path: Path) -> None:
    red = _save(tmp_path / "a.png", Image.new("RGB", (4, 4), (255, 0, 0)))
    with pytest.raises(DataError, match="the edge has colours") as caught:
        read_mask(red, what="edge")
    assert caught.value.remedy.endswith("white = edge")
    small = _save(tmp_path / "b.png", Image.new("L", (4, 4), 255))
    with pytest.raises(DataError, match="the edge is 4x4"):
        read_mask(small, (5, 5), what="edge")


def test_an_inverted_mask_is_refused_until_told(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.png", Image.fromarray(255 - _square()))
    with pytest.raises(DataError, match="looks inverted") as caught:
        read_mask(path)
    assert "mask_invert" in caught.value.remedy
    assert np.array_equal(read_mask(path, invert=True), _square(1))
    assert np.array_equal(read_mask(path, invert=False), 1 - _square(1))


def test_all_hole_and_no_hole_are_masks(tmp_path: Path) -> None:
    for value in (0, 255):
        path = _save(tmp_path / "m.png", Image.fromarray(np.full((8, 8), value, np.uint8)))
        assert (read_mask(path) == value // 255).all()


def test_what_looks_inverted() -> None:
    mask = np.ones((100, 100), np.uint8)
    assert not looks_inverted(mask)  # all hole
    mask[0, :3] = 0
    assert looks_inverted(mask)  # 99.97 % hole
    half = np.zeros((100, 100), np.uint8)
    half[:, :70] = 1
    assert not looks_inverted(half)  # the known part reaches the border
    assert not looks_inverted(1 - half)


def test_a_damaged_mask(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.png", Image.fromarray(_square()))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="the mask cannot be read"):
        read_mask(path)
    with pytest.raises(DataError, match="no mask here"):
        read_mask(tmp_path / "none.png")
