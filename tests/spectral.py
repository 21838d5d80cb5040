"""Spectral normalization whose power iteration has ended."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized


@torch.no_grad()
def settle(module: nn.Module) -> None:
    """Gives every spectral normalization the singular vectors it looks for: another round changes no weight."""
    for layer in module.modules():
        if is_parametrized(layer):
            normalization = layer.parametrizations.weight[0]
            weight = normalization._reshape_weight_to_matrix(layer.parametrizations.weight.original)
            left, _, right = torch.linalg.svd(weight, full_matrices=False)
            normalization._u.copy_(left[:, 0])
            normalization._v.copy_(right[0])
