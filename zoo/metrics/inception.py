"""Features of images by the Inception network of 2015-12-05, the one that FID is defined with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.metrics.image import check_images

SIZE = 299
WIDTH = 2048
# torch-fidelity's own order, up to the pooled features. Its forward resizes by itself, and for clean-fid it must not.
LAYERS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a",
    "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip


class Inception(nn.Module):
    """torch-fidelity's network behind one of two ways to resize.

    Args:
        weights: The file of weights (`locate`).
        resize: `tf`, as torch-fidelity; `clean`, as clean-fid.
    """

    width = WIDTH

    def __init__(self, weights: Path, resize: Literal["tf", "clean"]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.resize = resize
        self.network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path=str(weights)
        )

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Features B x 2048, float32, of images B 3 H W uint8.

        Raises:
            DataError: Another shape or type.
        """
        check_images(image, image)
        if self.resize == "tf":
            features: Tensor = self.network(image)[0]
            return features
        x = (clean_resize(image) - 128) / 128
        for name in LAYERS:
            x = self.network.get_submodule(name)(x)
        return x.flatten(1)


def clean_resize(image: Tensor) -> Tensor:
    """clean-fid's resize to 299 pixels: Pillow's bicubic filter, channel by channel in floats, clipped, not rounded.

    Args:
        image: B 3 H W uint8.

    Returns:
        B 3 299 299 float32 in [0, 255], on the device of `image`.
    """
    from PIL import Image

    planes = image.cpu().numpy().astype(np.float32).reshape(-1, *image.shape[-2:])
    resized = [
        np.asarray(Image.fromarray(plane).resize((SIZE, SIZE), resample=Image.Resampling.BICUBIC)) for plane in planes
    ]
    stacked = np.stack(resized).clip(0, 255).reshape(len(image), -1, SIZE, SIZE)
    return torch.from_numpy(stacked).to(image.device)
