"""The CLIP score: the crop's rule, open_clip's own pieces, what is undefined; `test_calibration` has its values."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from tests import fakes_features
from tests.metrics.tiny_clip import CAPTIONS, tiny_clip
from zoo.errors import DataError
from zoo.metrics.text import Box, ClipScore, hole_box


@pytest.fixture(scope="module")
def score() -> ClipScore:
    return tiny_clip()


def _hole(top: int, left: int, height: int, width: int, size: tuple[int, int] = (40, 60)) -> Box | None:
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return hole_box(mask)


@pytest.mark.parametrize(
    ("hole", "box"),
    [
        ((10, 20, 8, 8), (10, 20, 8, 8)),
        ((10, 20, 4, 8), (8, 20, 8, 8)),
        ((10, 20, 8, 4), (10, 18, 8, 8)),
        ((0, 20, 2, 10), (0, 20, 10, 10)),  # moved into the image from above
        ((38, 20, 2, 10), (30, 20, 10, 10)),  # and from below
        ((10, 58, 12, 2), (10, 48, 12, 12)),
        ((5, 3, 6, 50), (0, 3, 40, 50)),  # the square is larger than the image is high
        ((0, 0, 40, 60), (0, 0, 40, 60)),
        ((7, 9, 1, 1), (7, 9, 1, 1)),
    ],
)
def test_the_crop(hole: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> None:
    assert _hole(*hole) == Box(*box)


def test_the_crop_of_several_holes_holds_them_all() -> None:
    mask = np.zeros((40, 60), bool)
    mask[3, 5] = mask[20, 9] = True
    assert hole_box(mask) == Box(3, 0, 18, 18)
    assert hole_box(np.zeros((4, 4), bool)) is None


def test_the_preprocessing_is_open_clips(score: ClipScore) -> None:
    white = score.preprocess(Image.new("RGB", (50, 40), "white"))
    assert white.shape == (3, 32, 32)
    mean, std = (torch.tensor(v) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    assert torch.allclose(white[:, 5, 5], (1 - mean) / std, atol=1e-5)


def test_the_real_model_is_one_that_open_clip_has() -> None:
    assert "ViT-B-32-quickgelu" in open_clip.list_models()
    assert "openai" in open_clip.list_pretrained_tags_by_model("ViT-B-32-quickgelu")
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    assert config is not None
    assert config["quick_gelu"] is True


class _Drawn(nn.Module):
    """A network whose images are red or not, and whose captions speak of red or do not."""

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        red = (batch[:, 0].mean((1, 2)) > batch[:, 2].mean((1, 2))).float()
        return torch.stack([red, 1 - red], 1)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([tokens.float(), 1 - tokens.float()], 1)


def test_whole_and_hole_are_scored_apart_and_undefined_is_nan() -> None:
    def preprocess(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture.resize((8, 8)))).permute(2, 0, 1).float()

    score = ClipScore(_Drawn(), preprocess, lambda captions: torch.tensor(["red" in text for text in captions]))
    image = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    image[:, 2] = 200
    mask = torch.zeros(4, 1, 16, 16)
    mask[:, :, 4:8, 4:8] = 1
    image[:, :, 4:8, 4:8] = torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None]  # the hole alone is red
    mask[3] = 0
    values = score(image, mask, ["a red thing", "a blue thing", "  ", "a red thing"])
    assert values["clip"].nan_to_num(-1).tolist() == [0.0, 100.0, -1.0, 0.0]
    assert values["clip_hole"].nan_to_num(-1).tolist() == [100.0, 0.0, -1.0, -1.0]
    assert tuple(score(image, mask, [""] * 4, whole=False)) == ("clip_hole",)
    assert tuple(score(image, mask, [""] * 4, hole=False)) == ("clip",)


def test_wrong_input_is_refused(score: ClipScore) -> None:
    composite, _, mask = fakes_features.photographs(2)
    with pytest.raises(DataError, match="1 captions for 2 images"):
        score(composite, mask, CAPTIONS[:1])
    with pytest.raises(DataError, match="8-bit"):
        score(composite.float(), mask, CAPTIONS)
    with pytest.raises(DataError, match="the mask is"):
        score(composite, mask[:1], CAPTIONS)
