"""A stand-in for the published weights of Inception-v3: torchvision's names and shapes, and numbers by a formula."""

from __future__ import annotations

import torch
from torch import Tensor

# Of torchvision 0.29's `inception_v3`: the convolutions up to the pooled features, and the shapes of their weights.
LAYERS = """
    Conv2d_1a_3x3:32,3,3,3 Conv2d_2a_3x3:32,32,3,3 Conv2d_2b_3x3:64,32,3,3 Conv2d_3b_1x1:80,64,1,1
    Conv2d_4a_3x3:192,80,3,3 Mixed_5b.branch1x1:64,192,1,1 Mixed_5b.branch5x5_1:48,192,1,1
    Mixed_5b.branch5x5_2:64,48,5,5 Mixed_5b.branch3x3dbl_1:64,192,1,1 Mixed_5b.branch3x3dbl_2:96,64,3,3
    Mixed_5b.branch3x3dbl_3:96,96,3,3 Mixed_5b.branch_pool:32,192,1,1 Mixed_5c.branch1x1:64,256,1,1
    Mixed_5c.branch5x5_1:48,256,1,1 Mixed_5c.branch5x5_2:64,48,5,5 Mixed_5c.branch3x3dbl_1:64,256,1,1
    Mixed_5c.branch3x3dbl_2:96,64,3,3 Mixed_5c.branch3x3dbl_3:96,96,3,3 Mixed_5c.branch_pool:64,256,1,1
    Mixed_5d.branch1x1:64,288,1,1 Mixed_5d.branch5x5_1:48,288,1,1 Mixed_5d.branch5x5_2:64,48,5,5
    Mixed_5d.branch3x3dbl_1:64,288,1,1 Mixed_5d.branch3x3dbl_2:96,64,3,3 Mixed_5d.branch3x3dbl_3:96,96,3,3
    Mixed_5d.branch_pool:64,288,1,1 Mixed_6a.branch3x3:384,288,3,3 Mixed_6a.branch3x3dbl_1:64,288,1,1
    Mixed_6a.branch3x3dbl_2:96,64,3,3 Mixed_6a.branch3x3dbl_3:96,96,3,3 Mixed_6b.branch1x1:192,768,1,1
    Mixed_6b.branch7x7_1:128,768,1,1 Mixed_6b.branch7x7_2:128,128,1,7 Mixed_6b.branch7x7_3:192,128,7,1
    Mixed_6b.branch7x7dbl_1:128,768,1,1 Mixed_6b.branch7x7dbl_2:128,128,7,1 Mixed_6b.branch7x7dbl_3:128,128,1,7
    Mixed_6b.branch7x7dbl_4:128,128,7,1 Mixed_6b.branch7x7dbl_5:192,128,1,7 Mixed_6b.branch_pool:192,768,1,1
    Mixed_6c.branch1x1:192,768,1,1 Mixed_6c.branch7x7_1:160,768,1,1 Mixed_6c.branch7x7_2:160,160,1,7
    Mixed_6c.branch7x7_3:192,160,7,1 Mixed_6c.branch7x7dbl_1:160,768,1,1 Mixed_6c.branch7x7dbl_2:160,160,7,1
    Mixed_6c.branch7x7dbl_3:160,160,1,7 Mixed_6c.branch7x7dbl_4:160,160,7,1 Mixed_6c.branch7x7dbl_5:192,160,1,7
    Mixed_6c.branch_pool:192,768,1,1 Mixed_6d.branch1x1:192,768,1,1 Mixed_6d.branch7x7_1:160,768,1,1
    Mixed_6d.branch7x7_2:160,160,1,7 Mixed_6d.branch7x7_3:192,160,7,1 Mixed_6d.branch7x7dbl_1:160,768,1,1
    Mixed_6d.branch7x7dbl_2:160,160,7,1 Mixed_6d.branch7x7dbl_3:160,160,1,7 Mixed_6d.branch7x7dbl_4:160,160,7,1
    Mixed_6d.branch7x7dbl_5:192,160,1,7 Mixed_6d.branch_pool:192,768,1,1 Mixed_6e.branch1x1:192,768,1,1
    Mixed_6e.branch7x7_1:192,768,1,1 Mixed_6e.branch7x7_2:192,192,1,7 Mixed_6e.branch7x7_3:192,192,7,1
    Mixed_6e.branch7x7dbl_1:192,768,1,1 Mixed_6e.branch7x7dbl_2:192,192,7,1 Mixed_6e.branch7x7dbl_3:192,192,1,7
    Mixed_6e.branch7x7dbl_4:192,192,7,1 Mixed_6e.branch7x7dbl_5:192,192,1,7 Mixed_6e.branch_pool:192,768,1,1
    Mixed_7a.branch3x3_1:192,768,1,1 Mixed_7a.branch3x3_2:320,192,3,3 Mixed_7a.branch7x7x3_1:192,768,1,1
    Mixed_7a.branch7x7x3_2:192,192,1,7 Mixed_7a.branch7x7x3_3:192,192,7,1 Mixed_7a.branch7x7x3_4:192,192,3,3
    Mixed_7b.branch1x1:320,1280,1,1 Mixed_7b.branch3x3_1:384,1280,1,1 Mixed_7b.branch3x3_2a:384,384,1,3
    Mixed_7b.branch3x3_2b:384,384,3,1 Mixed_7b.branch3x3dbl_1:448,1280,1,1 Mixed_7b.branch3x3dbl_2:384,448,3,3
    Mixed_7b.branch3x3dbl_3a:384,384,1,3 Mixed_7b.branch3x3dbl_3b:384,384,3,1 Mixed_7b.branch_pool:192,1280,1,1
    Mixed_7c.branch1x1:320,2048,1,1 Mixed_7c.branch3x3_1:384,2048,1,1 Mixed_7c.branch3x3_2a:384,384,1,3
    Mixed_7c.branch3x3_2b:384,384,3,1 Mixed_7c.branch3x3dbl_1:448,2048,1,1 Mixed_7c.branch3x3dbl_2:384,448,3,3
    Mixed_7c.branch3x3dbl_3a:384,384,1,3 Mixed_7c.branch3x3dbl_3b:384,384,3,1 Mixed_7c.branch_pool:192,2048,1,1
"""


def numbers(shape: list[int], seed: int) -> Tensor:
    """Numbers in [-1, 1) that look like noise and are the same everywhere."""
    count = int(torch.tensor(shape).prod())
    wave = torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + seed) * 43758.5453
    return (2.0 * (wave - wave.floor()) - 1.0).float().reshape(shape)


def inception_state() -> dict[str, Tensor]:
    """Tensors of the trunk; batch normalization does something, and keeps values in range."""
    state = {}
    for seed, entry in enumerate(LAYERS.split()):
        name, _, sizes = entry.partition(":")
        shape = [int(size) for size in sizes.split(",")]
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.conv.weight"] = numbers(shape, seed) * (3.0 / fan) ** 0.5
        state[f"{name}.bn.weight"] = 1.0 + 0.2 * numbers(shape[:1], 1000 + seed)
        state[f"{name}.bn.bias"] = 0.2 * numbers(shape[:1], 2000 + seed)
        state[f"{name}.bn.running_mean"] = 0.2 * numbers(shape[:1], 3000 + seed)
        state[f"{name}.bn.running_var"] = 0.5 + 0.2 * numbers(shape[:1], 4000 + seed)
    return state
