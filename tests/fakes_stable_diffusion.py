"""A random Stable Diffusion of a few thousand parameters, on disk as the published one is laid out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

LENGTH = 12
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_VOCABULARY = [*_LETTERS, *(f"{c}</w>" for c in _LETTERS), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
IDS = len(_VOCABULARY)
_OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def unet(channels: int = 4) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip


def autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8), latent_channels=4, norm_num_groups=4, sample_size=32, scaling_factor=0.18215,
    )  # fmt: skip


def save_pipeline(folder: Path, channels: int = 4, seed: int = 0) -> Path:
    """Writes a whole pipeline; its text encoder and its autoencoder under the tensor names of the published files."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet(channels).save_pretrained(folder / "unet")
        autoencoder().save_pretrained(folder / "vae")
        config = CLIPTextConfig(
            vocab_size=IDS, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=LENGTH, bos_token_id=IDS - 2, eos_token_id=IDS - 1, pad_token_id=IDS - 1,
            projection_dim=16,
        )  # fmt: skip
        CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    _rename(folder / "text_encoder" / "model.safetensors", lambda name: f"text_model.{name}")
    _rename(folder / "vae" / "diffusion_pytorch_model.safetensors", _old)
    save_tokenizer(folder / "tokenizer")
    return folder


def save_control(folder: Path, seed: int = 1, hint_widths: tuple[int, ...] = (4, 8, 8)) -> Path:
    """Writes a ControlNet for that UNet, its zero convolutions randomized so that it does something."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        control = ControlNetModel.from_unet(unet(), conditioning_embedding_out_channels=hint_widths)
        for parameter in control.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
        control.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True)
    names = {"bos_token": _VOCABULARY[-2], "eos_token": _VOCABULARY[-1]}
    names |= dict.fromkeys(("pad_token", "unk_token"), _VOCABULARY[-1])
    config = {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **names}
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(_VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _old(name: str) -> str:
    if ".attentions." not in name:
        return name
    for new, old in _OLD.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def _rename(path: Path, rename: Any) -> None:
    tensors = {rename(name.removeprefix("text_model.")): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
