"""Stable Diffusion's frozen UNet in two parts, so that its encoder runs once and its decoder twice (Sec. 4.1, Fig. 2c).

Together they are `UNet2DConditionModel.forward`, bit for bit, for UNets of the kind of Stable Diffusion 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from zoo.errors import UsageError

BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


class Encoded(NamedTuple):
    """What the encoder and the middle of the UNet make; the decoder only reads it.

    Attributes:
        h: B C h w, of the middle.
        skips: Of the input convolution and of each layer down, in order.
        temb: B c, of the time step.
        text: B T c'.
    """

    h: Tensor
    skips: tuple[Tensor, ...]
    temb: Tensor
    text: Tensor


def check(unet: UNet2DConditionModel) -> None:
    """Refuses a UNet that has parts the split does not know.

    Raises:
        UsageError: It has other blocks than Stable Diffusion 1, or more conditions.
    """
    config = unet.config
    others = [n for n in (*config["down_block_types"], *config["up_block_types"]) if n not in BLOCKS]
    conditions = (
        "class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn",
        "center_input_sample", "addition_time_embed_dim",
    )  # fmt: skip
    others += [name for name in conditions if config.get(name)]
    if others:
        remedy = "use a UNet of the kind of Stable Diffusion 1"
        raise UsageError(f"this UNet cannot be split: it has {', '.join(others)}", remedy=remedy)


def encode(unet: UNet2DConditionModel, x: Tensor, t: Tensor | int, c: Tensor) -> Encoded:
    """The part before residuals are added.

    Args:
        unet: One that passes `check`.
        x: B C h w, noisy latents.
        t: Time steps, one or B.
        c: B T c', the text.
    """
    temb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))
    h = unet.conv_in(x)
    skips: tuple[Tensor, ...] = (h,)
    for block in unet.down_blocks:
        if getattr(block, "has_cross_attention", False):
            h, made = block(hidden_states=h, temb=temb, encoder_hidden_states=c)
        else:
            h, made = block(hidden_states=h, temb=temb)
        skips += made
    if unet.mid_block is not None:
        attends = getattr(unet.mid_block, "has_cross_attention", False)
        h = unet.mid_block(h, temb, encoder_hidden_states=c) if attends else unet.mid_block(h, temb)
    return Encoded(h, skips, temb, c)


def decode(
    unet: UNet2DConditionModel, state: Encoded, down: Sequence[Tensor] | None = None, mid: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The predicted noise, B C h w, and the features of the output blocks, twelve in Stable Diffusion 1.

    An output block is a residual layer, with its attention where the level has any, and with the upsampler where it is
    the last of its level.

    Args:
        unet: The same as of `encode`.
        state: Of `encode`; it may be decoded again.
        down: Residuals to add to the skips, as many; None adds nothing.
        mid: The residual to add to the middle; None adds nothing.
    """
    h, skips = state.h, list(state.skips)
    if down is not None:  # never in place: the state is decoded twice
        skips = [skip + residual for skip, residual in zip(skips, down, strict=True)]
    if mid is not None:
        h = h + mid
    odd = any(side % 2**unet.num_upsamplers for side in skips[0].shape[-2:])
    features = []
    for block in unet.up_blocks:
        attentions = block.attentions if getattr(block, "has_cross_attention", False) else [None] * len(block.resnets)
        for i, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True)):
            h = _residual(block, resnet, torch.cat([h, skips.pop()], 1), state.temb)
            if attention is not None:
                h = attention(h, encoder_hidden_states=state.text, return_dict=False)[0]
            if i == len(block.resnets) - 1 and block.upsamplers is not None:
                for upsampler in block.upsamplers:
                    h = upsampler(h, skips[-1].shape[2:] if odd else None)
            features.append(h)
    h = unet.conv_act(unet.conv_norm_out(h)) if unet.conv_norm_out is not None else h
    return unet.conv_out(h), features


def _residual(block: Any, resnet: Any, h: Tensor, temb: Tensor) -> Tensor:
    if torch.is_grad_enabled() and block.gradient_checkpointing:
        h = block._gradient_checkpointing_func(resnet, h, temb)
    else:
        h = resnet(h, temb)
    return h
