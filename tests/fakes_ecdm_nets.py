"""Small random networks of ECDM, in the sizes of `nano`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from zoo.models.ecdm.controlnet import ECDMControlNet

SIZE, LATENT, CHANNELS, TOKENS, TEXT = 64, 16, 8, 5, 64
UNET: dict[str, Any] = {
    "sample_size": LATENT, "in_channels": CHANNELS, "out_channels": CHANNELS, "layers_per_block": 1,
    "block_out_channels": (32, 64), "norm_num_groups": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2, "cross_attention_dim": TEXT, "attention_head_dim": 4,
}  # fmt: skip
HINT = (16, 32, 64)  # two halvings, as of the codec
ACDA = (16, 32, 64, 64)
DEEP: dict[str, Any] = {  # as deep as Stable Diffusion 1, and narrow
    "sample_size": LATENT, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16, 24, 24),
    "norm_num_groups": 4, "cross_attention_dim": 12, "attention_head_dim": 2,
}  # fmt: skip


def unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**UNET, **changes}).eval()


def fill(network: nn.Module, seed: int = 0, std: float = 0.05) -> nn.Module:
    """Numbers where there are zeros, so that every part has a say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=std, generator=generator)
    return network


def student(base: UNet2DConditionModel | None = None, filled: bool = True, **options: Any) -> ECDMControlNet:
    torch.manual_seed(1)
    options = {"conditioning_embedding_out_channels": HINT, "acda_channels": ACDA, **options}
    made = ECDMControlNet.from_unet(base or unet(), **options).eval()
    return fill(made) if filled else made  # type: ignore[return-value]


def teacher(base: UNet2DConditionModel | None = None, filled: bool = True) -> ControlNetModel:
    torch.manual_seed(2)
    made = ControlNetModel.from_unet(base or unet(), conditioning_embedding_out_channels=HINT).eval()
    return fill(made) if filled else made  # type: ignore[return-value]


def inputs(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, time steps, text and hints with a hole of -1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, CHANNELS, LATENT, LATENT, generator=generator)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    c = torch.randn(batch, TOKENS, TEXT, generator=generator)
    hint = torch.rand(batch, 3, SIZE, SIZE, generator=generator)
    hint[:, :, 20:44, 12:40] = -1.0
    return x, t, c, hint


def residuals(network: nn.Module, *arguments: Tensor, **named: Any) -> list[Tensor]:
    """Of the down path, and last of the middle."""
    down, mid = network(*arguments, return_dict=False, **named)
    return [*down, mid]
