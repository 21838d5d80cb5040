"""Asymmetric cross-domain attention (Sec. 4.2, Fig. 3, Eq. 10 and 11): the token encoder and the attention itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

KeyValue = tuple[Tensor, Tensor]  # K' and V', B N c each
CHANNELS = (16, 32, 96, 256)


class FrequencyEncoder(nn.Module):
    """Makes tokens of the frequency map: 3x3 convolutions, two for each halving, with SiLU between them.

    The last convolution begins at zero, and with it the second term of the attention.

    Args:
        width: Of a token; the text's.
        in_channels: Of the map.
        channels: A number for each halving; the last convolution's is `width`.
    """

    def __init__(self, width: int = 768, in_channels: int = 6, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        pairs = []
        for before, after in zip((in_channels, *channels), channels, strict=False):
            pairs += [nn.Conv2d(before, after, 3, 2, 1), nn.Conv2d(after, after, 3, 1, 1)]
        pairs[-1] = last = nn.Conv2d(channels[-1], width, 3, 1, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.ModuleList(pairs)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Tokens, B N width, row by row, N = ⌈H / 2^n⌉ ⌈W / 2^n⌉ for n halvings.

        Args:
            spectrum: B in_channels H W, of any precision.
        """
        x = spectrum.to(next(self.parameters()).dtype)
        for i, layer in enumerate(self.layers):
            x = layer(F.silu(x) if i else x)
        return x.flatten(2).transpose(1, 2)


class ACDAProcessor:
    """What one attention layer of the student computes: Eq. 10 where it has a key, plain attention elsewhere.

    A plain object without parameters, so that the layer's own keep their names. Arguments are named in `__call__`,
    because diffusers asks its signature which of them to pass.

    Args:
        key: The layer's place in `freq_kv`; None where it has none.
        doubled: Projections `k` and `v` for a second term over the layer's own input; the released code's
            self-attention. None where there is none.
    """

    def __init__(self, key: str | None = None, doubled: nn.ModuleDict | None = None) -> None:
        self.key, self.doubled = key, doubled

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        freq_kv: Mapping[str, KeyValue] | None = None,
    ) -> Tensor:
        """Attention of pixels to text, and to frequencies besides: B N c.

        Args:
            attn: The layer.
            hidden_states: B N c.
            encoder_hidden_states: B T c', what is attended to; None for self-attention.
            attention_mask: Additive, as diffusers prepares it.
            temb: Not used.
            freq_kv: K' and V' by the layers' keys, of the same batch.
        """
        x = hidden_states
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None:
            bias = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
            attention_mask = bias.view(len(context), attn.heads, -1, bias.shape[-1])
        q, k, v = (_heads(t, attn.heads) for t in (attn.to_q(x), attn.to_k(context), attn.to_v(context)))
        # Deviation: Eq. 10 has no bias b, because no layer of Stable Diffusion's attention has one.
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        second = freq_kv.get(self.key) if freq_kv and self.key else None
        if self.doubled is not None:
            second = self.doubled["k"](x), self.doubled["v"](x)
        if second is not None:
            # Deviation: the second term of Eq. 10 weighs values of the frequency tokens, V', and not the text's.
            # Deviation: one query serves both terms of Eq. 10.
            k, v = (_heads(t, attn.heads) for t in second)
            y = y + F.scaled_dot_product_attention(q, k, v)
        out: Tensor = attn.to_out[1](attn.to_out[0](y.transpose(1, 2).flatten(2)))
        return out


def _heads(x: Tensor, heads: int) -> Tensor:
    """B N c to B heads N c / heads."""
    return x.view(len(x), -1, heads, x.shape[-1] // heads).transpose(1, 2)
