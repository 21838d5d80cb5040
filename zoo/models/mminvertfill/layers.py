"""StyleGAN2's layers (Karras et al. 2020) in plain torch: equalised linear and convolution, modulated convolution.

Weights are stored as N(0, 1), divided by the layer's learning rate, and scaled when used. Style, modulation and
demodulation are float32 under autocast too; only the convolutions themselves follow it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.mminvertfill.fir import blur, down2

SLOPE = 0.2
GAIN = math.sqrt(2.0)  # of every activation, so that it keeps the second moment
EPS = 1e-8


def full(x: Tensor) -> Tensor:
    """The tensor in float32 where it is of half precision, as it is otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def activate(x: Tensor) -> Tensor:
    """√2 · leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, SLOPE) * GAIN


class Linear(nn.Module):
    """An equalised linear layer, float32 always.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        lr: How fast it learns, beside other layers.
        bias: What its biases begin with.
        active: Whether the activation follows.
    """

    def __init__(self, inputs: int, outputs: int, lr: float = 1.0, bias: float = 0.0, active: bool = False) -> None:
        super().__init__()
        self.lr, self.active, self.scale = lr, active, lr / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y = F.linear(full(x) * self.scale, full(self.weight), full(self.bias) * self.lr)
        return activate(y) if self.active else y


class Conv(nn.Module):
    """An equalised convolution that keeps or halves the size.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: 1 or 3.
        down: Whether the filter and a stride of 2 halve the size.
        active: Whether there are biases and the activation.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, active: bool = True) -> None:
        super().__init__()
        self.kernel, self.down, self.scale = kernel, down, 1.0 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if active else None

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = 1, self.kernel // 2
        if self.down and self.kernel == 1:
            x = down2(x)  # then the product, of a quarter of the pixels
        elif self.down:
            x, stride, padding = blur(x, 2), 2, 0
        x = F.conv2d(x, self.weight * self.scale, self.bias, stride, padding)
        return x if self.bias is None else activate(x)


class StyledConv(nn.Module):
    """A modulated 3x3 convolution, noise, bias and activation.

    y = d ⊙ conv(s ⊙ x, W) is the convolution with the weights d_o s_i W_oi that are each sample's own, of norm 1 for
    each output, without ever making them.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        w: Width of a style vector.
        up: Whether the size is doubled.
    """

    def __init__(self, inputs: int, outputs: int, w: int, up: bool = False) -> None:
        super().__init__()
        self.up, self.scale = up, 1.0 / math.sqrt(9 * inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = Linear(w, inputs, bias=1.0)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def modulation(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The factors s (B I) of the inputs and d (B O) of the outputs, both for the weights as they are stored.

        Args:
            w: Style vectors, B w.
        """
        with torch.autocast(w.device.type, enabled=False):
            s = self.affine(w)
            # d takes back any factor of s: of this one, products in half precision cannot overflow
            s = s * (self.scale / s.detach().abs().amax(1, keepdim=True).clamp_min(EPS))
            d = torch.rsqrt(s.square() @ full(self.weight).square().sum((2, 3)).T + EPS)
        return s, d

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """B O h w, twice the size of x where `up`; float32 at least.

        Args:
            x: B I H W.
            w: Style vectors, B w.
            noise: B 1 h w or 1 1 h w; None adds none.
        """
        s, d = self.modulation(w)
        x = full(x) * s[..., None, None]
        if self.up:
            y = blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), 1, gain=4.0)
        else:
            y = F.conv2d(x, self.weight, padding=1)
        # the activation's gain is inside it, which saves a pass over the map; no gradient needs what is overwritten
        y, gain = full(y), d[..., None, None] * GAIN
        room = None if torch.is_grad_enabled() else y  # the gradient of d needs what the convolution gave
        y = torch.addcmul(full(self.bias)[:, None, None] * GAIN, y, gain, out=room)
        if noise is not None:
            y += noise * (self.strength * GAIN)
        return F.leaky_relu(y, SLOPE, inplace=True)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to an image, linear in the style: nothing is demodulated. Float32 always.

    Args:
        inputs: Channels of the input.
        w: Width of a style vector.
    """

    def __init__(self, inputs: int, w: int) -> None:
        super().__init__()
        self.scale = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.affine = Linear(w, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """B 3 H W, of x B I H W and style vectors B w."""
        with torch.autocast(x.device.type, enabled=False):
            weights = full(self.weight).flatten(1) * (self.affine(w) * self.scale)[:, None]  # B 3 I, small
            image = torch.baddbmm(full(self.bias)[:, None], weights, full(x).flatten(2))
        return image.view(len(x), 3, *x.shape[-2:])
