"""The vision-and-language encoder (Sec. 2.1, Eq. 1 and 2): ViLT of transformers, fed with patches in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.words import Tokens

RULES = ("any", "all", "majority", "soft")


class Encoded(NamedTuple):
    """What the encoder makes of a caption and an image.

    Attributes:
        text: T̂, B L e.
        patches: V̂, B N e, row by row.
    """

    text: Tensor
    patches: Tensor


@dataclass(frozen=True)
class EncoderOptions:
    """The sizes of the encoder; the defaults are ViLT-B/32's.

    Attributes:
        patch: P, side of a patch in pixels.
        table: Patches a side that the position table holds; other grids interpolate it.
        hidden: e.
        layers: How many transformer layers.
        heads: Attention heads.
        intermediate: Width of the feed-forward layers.
        text_length: L, the most tokens of a caption.
        init_std: Standard deviation of the initial weights, where nothing pretrained is loaded.
    """

    patch: int = 32
    table: int = 12
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    text_length: int = 40
    init_std: float = 0.02


def masked_patches(mask: Tensor, patch: int, rule: str = "any") -> Tensor:
    """How far each patch is replaced by [Vmask], B N in [0, 1], row by row.

    The paper says "for a masked patch" and leaves open what a partly masked one is.

    Args:
        mask: B 1 H W, 1 = hole.
        patch: P.
        rule: `any` hole pixel makes a masked patch, `all` must be, `majority` half of them, or `soft`: the share of
            hole pixels.

    Raises:
        UsageError: An unknown rule.
    """
    if rule == "any":
        share = F.max_pool2d(mask, patch)
    elif rule == "all":
        share = 1.0 - F.max_pool2d(1.0 - mask, patch)
    elif rule in ("majority", "soft"):
        share = F.avg_pool2d(mask, patch)
        share = (share >= 0.5).to(mask.dtype) if rule == "majority" else share
    else:
        raise UsageError(f"unknown rule for masked patches '{rule}'", remedy=f"one of {', '.join(RULES)}")
    return share.flatten(1)


class VisionLanguageEncoder(nn.Module):
    """ViLT with the token [Vmask] in the place of masked patches.

    Patches are embedded here and handed over as `image_embeds`: transformers' own `pixel_values` path puts the patches
    of every image into a random order, and no caller can undo that.

    Args:
        words: Size of the word table.
        options: The other sizes.
    """

    def __init__(self, words: int, options: EncoderOptions) -> None:
        from transformers import ViltConfig, ViltModel  # takes seconds

        super().__init__()
        self.options = options
        config = ViltConfig(
            vocab_size=words, max_position_embeddings=options.text_length, hidden_size=options.hidden,
            num_hidden_layers=options.layers, num_attention_heads=options.heads,
            intermediate_size=options.intermediate, image_size=options.table * options.patch, patch_size=options.patch,
            initializer_range=options.init_std,
            # Deviation: no dropout; the two passes are compared element by element.
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.vilt = ViltModel(config, add_pooling_layer=False)
        self.v_mask = nn.Parameter(torch.empty(options.hidden))
        embeddings = self.vilt.embeddings
        for table in (self.v_mask, embeddings.cls_token, embeddings.position_embeddings):
            nn.init.trunc_normal_(table, std=options.init_std)  # transformers leaves the last two at zero

    def forward(self, image: Tensor, masked: Tensor, tokens: Tokens) -> Encoded:
        """Eq. 2: [T̂; V̂] = Trans-Enc([T̄; V̄]).

        Args:
            image: B 3 H W in [-1, 1], H and W multiples of P, the hole zero; wholly masked patches are not looked at.
            masked: B N in [0, 1], see `masked_patches`.
            tokens: The captions.
        """
        patches = self.embed(image, masked)
        seen = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        out = self.vilt(
            input_ids=tokens.ids, attention_mask=tokens.known.long(), image_embeds=patches, pixel_mask=seen
        ).last_hidden_state
        length = tokens.ids.shape[1]
        return Encoded(out[:, :length], out[:, length + 1 :])  # the image's [CLS] lies between them

    def matrices(self) -> list[nn.Parameter]:
        """The weights of attention and feed-forward networks: no tables, biases, norms, nor the patch projection."""
        return [p for p in self.vilt.encoder.parameters() if p.ndim == 2]

    def embed(self, image: Tensor, masked: Tensor) -> Tensor:
        """Eq. 1 with [Vmask] and positions: B 1+N e, the image's [CLS] first."""
        embeddings = self.vilt.embeddings
        maps = embeddings.patch_embeddings.projection(image)
        height, width = maps.shape[-2:]
        projected = maps.flatten(2).transpose(1, 2)
        # Deviation: a partly masked patch is a masked one.
        patches = torch.lerp(projected, self.v_mask.to(projected.dtype), masked[..., None].to(projected.dtype))
        class_token = embeddings.cls_token.expand(len(image), -1, -1)
        return torch.cat([class_token, patches], 1) + self._positions(height, width)

    def _positions(self, height: int, width: int) -> Tensor:
        """The position table at another grid, 1 1+N e; interpolated as ViLT does."""
        table = self.vilt.embeddings.position_embeddings
        side = self.options.table
        if (height, width) == (side, side):
            return table
        grid = table[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        grid = F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
