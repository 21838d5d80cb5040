"""Names of tensors in CompVis checkpoints (Stable Diffusion 1, ControlNet, ECDM's code) and in diffusers.

The names here are turned into the names there; a table of a whole network, inverted, goes the other way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from zoo.errors import UsageError

# The first rule whose pattern matches the whole name, at one level after the other, tells the name there.
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
PLAIN = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0", "controlnet_cond_embedding.conv_in": "input_hint_block.0",
}  # fmt: skip
SECOND = {"k": "to_ki", "v": "to_vi"}
ATTENTION = r"down_blocks\.(\d+)\.attentions\.(\d+)\."


class Names:
    """The names of one network.

    Args:
        layers: Residual layers of a level; 2 in Stable Diffusion.
        hint_blocks: Convolutions of the hint's encoder between its first and last; 6 in ControlNet.
        plain_up: Up blocks without attention, whose upsampler stands one place earlier.
    """

    def __init__(self, layers: int = 2, hint_blocks: int = 6, plain_up: Iterable[int] = (0,)) -> None:
        self.layers, self.hint_blocks, self.plain_up = layers, hint_blocks, set(plain_up)
        self.rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
            (r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(\w+)", lambda m: f"{self._place(m)}.0.{RESNET[m[4]]}"),
            (r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.(.+)", lambda m: f"{self._place(m)}.1.{m[4]}"),
            (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{self._last(m[1]) + 1}.0.op"),
            (r"up_blocks\.(\d+)\.upsamplers\.0\.conv", self._upsampler),
            (r"mid_block\.resnets\.(\d)\.(\w+)", lambda m: f"middle_block.{2 * int(m[1])}.{RESNET[m[2]]}"),
            (r"mid_block\.attentions\.0\.(.+)", r"middle_block.1.{0[1]}".format),
            (r"controlnet_cond_embedding\.blocks\.(\d+)", lambda m: f"input_hint_block.{2 * int(m[1]) + 2}"),
            (r"controlnet_cond_embedding\.conv_out", lambda m: f"input_hint_block.{2 * self.hint_blocks + 2}"),
            (r"controlnet_down_blocks\.(\d+)", r"zero_convs.{0[1]}.0".format),
            (r"freq_encoder\.layers\.(\d+)", lambda m: f"context_hint_block.{2 * int(m[1])}"),
            (r"acda_kv\.down_blocks_(\d+)_attentions_(\d+)_transformer_blocks_(\d+)_(attn[12])\.([kv])", self._second),
        ]

    @classmethod
    def of(cls, network: nn.Module) -> Names:
        """Of a diffusers UNet, ControlNet or student."""
        config: Mapping[str, Any] = getattr(network, "config")  # noqa: B009 (no attribute of every nn.Module)
        hint: Sequence[int] = config.get("conditioning_embedding_out_channels") or ()
        up: Sequence[str] = config.get("up_block_types") or ()
        plain = [i for i, kind in enumerate(up) if not kind.startswith("CrossAttn")]
        return cls(config["layers_per_block"], 2 * len(hint) - 2, plain)

    def there(self, name: str) -> str:
        """The name in a CompVis checkpoint, without the network's prefix.

        Args:
            name: The name here, with `.weight` or `.bias`.

        Raises:
            UsageError: No such tensor in a network of Stable Diffusion 1.
        """
        layer, _, role = name.rpartition(".")
        if layer in PLAIN:
            return f"{PLAIN[layer]}.{role}"
        for pattern, rename in self.rules:
            match = re.fullmatch(pattern, layer)
            if match:
                return f"{rename(match)}.{role}"
        raise UsageError(f"'{name}' has no name in CompVis checkpoints", remedy="only Stable Diffusion 1 is known here")

    def table(self, names: Iterable[str]) -> dict[str, str]:
        """The names here by the names there.

        Args:
            names: Of all tensors here, or of some.

        Raises:
            UsageError: As of `there`, or two of them have one name there.
        """
        names = list(names)
        table = {self.there(name): name for name in names}
        if len(table) != len(names):
            raise UsageError("two tensors have one name in CompVis checkpoints", remedy="this is a bug of the table")
        return table

    def _last(self, block: str) -> int:
        """The place of a level's last residual layer, down."""
        return (self.layers + 1) * int(block) + self.layers

    def _place(self, m: re.Match[str]) -> str:
        if m[1] == "down":
            return f"input_blocks.{1 + (self.layers + 1) * int(m[2]) + int(m[3])}"
        return f"output_blocks.{(self.layers + 1) * int(m[2]) + int(m[3])}"

    def _upsampler(self, m: re.Match[str]) -> str:
        return f"output_blocks.{self._last(m[1])}.{1 if int(m[1]) in self.plain_up else 2}.conv"

    def _second(self, m: re.Match[str]) -> str:
        place = 1 + (self.layers + 1) * int(m[1]) + int(m[2])
        return f"input_blocks.{place}.1.transformer_blocks.{m[3]}.{m[4]}.{SECOND[m[5]]}"
