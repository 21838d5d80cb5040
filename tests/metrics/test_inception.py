"""The two ways to Inception's features: torch-fidelity's and clean-fid's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from tests import fakes_features
from zoo.errors import DataError
from zoo.metrics.inception import LAYERS, Inception, clean_resize

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("inception")
    path = Path(fakes_features.write(folder, "inception")["inception"])
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def tf(weights: Path) -> Inception:
    return Inception(weights, "tf")


@pytest.fixture(scope="module")
def clean(weights: Path) -> Inception:
    return Inception(weights, "clean")


def test_tf_is_torch_fidelity(tf: Inception, weights: Path) -> None:
    images = fakes_features.photographs(1)[0]
    theirs = FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=str(weights))
    found = tf(images)
    assert found.shape == (1, 2048)
    assert found.dtype == torch.float32
    assert torch.equal(found, theirs(images)[0])


def test_the_layers_by_name_are_its_forward(tf: Inception) -> None:
    images = fakes_features.photographs(1)[0]
    x = (interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False) - 128) / 128
    for name in LAYERS:
        x = tf.network.get_submodule(name)(x)
    assert torch.equal(x.flatten(1), tf(images))


@pytest.mark.parametrize("size", [48, 320])
def test_clean_is_the_resize_of_clean_fid(size: int) -> None:
    images = fakes_features.photographs(2, size)[0]
    theirs = make_resizer("PIL", False, "bicubic", (299, 299))
    for image, found in zip(images, clean_resize(images), strict=True):
        expected = theirs(image.permute(1, 2, 0).numpy())
        assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
        assert not np.array_equal(expected, expected.round())  # it is not rounded to 8 bits


def test_clean_features_are_those_of_the_resized_image(tf: Inception, clean: Inception) -> None:
    # At 299 pixels nothing is resized either way, and both must agree.
    images = fakes_features.photographs(1, 299)[0]
    assert torch.allclose(clean(images), tf(images), rtol=1e-4, atol=1e-5)
    small = fakes_features.photographs(1)[0]
    assert (clean(small) - tf(small)).abs().mean() > 0.01


def test_golden_values(tf: Inception, clean: Inception) -> None:
    images = fakes_features.photographs(1)[0]
    for network, name in ((tf, "inception_tf"), (clean, "inception_clean")):
        assert network(images)[0, ::256].tolist() == pytest.approx(GOLDEN["features"][name], rel=1e-3, abs=1e-4), name


def test_wrong_input_is_refused(tf: Inception, clean: Inception) -> None:
    for network in (tf, clean):
        with pytest.raises(DataError, match="8-bit images"):
            network(torch.rand(1, 3, 40, 40))
