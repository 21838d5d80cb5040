"""StyleGAN2's synthesis against the plain formulation: `python -m benchmarks.speed.synthesis`.

The plain side makes the weights of each sample and runs the batch as groups of one convolution; it filters as zeros
between pixels, padding and a convolution. Either side is given the same frozen generator of full width, style vectors
and noise; gradients are those of the style vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.mminvertfill.generator import StyleGenerator
from zoo.models.mminvertfill.layers import StyledConv, ToRGB

SIZE, BATCH = 128, 2
CHANNELS: dict[int, int] | None = None  # the full width of config F
ROUNDS = 5
FORWARD, GRADIENT = 1.3, 1.8
TOLERANCE = 1e-4

Synthesis = Callable[[StyleGenerator, Tensor], Tensor]


def upfirdn(x: Tensor, up: int, before: int, after: int) -> Tensor:
    """Zeros between pixels, padding on both axes, and the filter [1, 3, 3, 1] of gain up² (4 where `up` is 1 too)."""
    b, c, h, w = x.shape
    stuffed = F.pad(x.view(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).view(b, c, h * up, w * up)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(taps, taps) / 16).repeat(c, 1, 1, 1)
    return F.conv2d(F.pad(stuffed, (before, after, before, after)), kernel, groups=c)


def weights_of_samples(layer: StyledConv | ToRGB, w: Tensor) -> Tensor:
    """B O I k k: modulated and, in a `StyledConv`, demodulated."""
    modulated = layer.scale * layer.weight * layer.affine(w)[:, None, :, None, None]
    if isinstance(layer, ToRGB):
        return modulated
    return modulated * torch.rsqrt(modulated.square().sum((2, 3, 4), keepdim=True) + 1e-8)


def plain_layer(layer: StyledConv, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """The layer with the batch as groups of one convolution."""
    b, c, h, _ = x.shape
    weights, x = weights_of_samples(layer, w), x.reshape(1, b * c, h, h)
    if layer.up:
        kernels = weights.transpose(1, 2).flatten(0, 1)
        y = F.conv_transpose2d(x, kernels, stride=2, groups=b)
        y = upfirdn(y.view(b, -1, *y.shape[-2:]), 1, 1, 1)
    else:
        y = F.conv2d(x, weights.flatten(0, 1), padding=1, groups=b)
        y = y.view(b, -1, h, h)
    y = y + layer.strength * noise
    return F.leaky_relu(y + layer.bias[:, None, None], 0.2) * 2**0.5


def plain_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """The map to RGB with the batch as groups of one convolution."""
    b, c, h, _ = x.shape
    y = F.conv2d(x.reshape(1, b * c, h, h), weights_of_samples(layer, w).flatten(0, 1), groups=b)
    return y.view(b, 3, h, h) + layer.bias[:, None, None]


def plain(generator: StyleGenerator, w: Tensor) -> Tensor:
    """The image, B 3 s s, of style vectors B L w."""
    layers: list[Any] = list(generator.layers)
    rgb: list[Any] = list(generator.rgb)
    x = plain_layer(layers[0], generator.constant.repeat(len(w), 1, 1, 1), w[:, 0], generator.fixed_noise()[0])
    image = plain_rgb(rgb[0], x, w[:, 1])
    for k in range(1, len(layers), 2):
        for layer in (k, k + 1):
            x = plain_layer(layers[layer], x, w[:, layer], generator.fixed_noise()[layer])
        image = upfirdn(image, 2, 2, 1) + plain_rgb(rgb[(k + 1) // 2], x, w[:, k + 2])
    return image


def ours(generator: StyleGenerator, w: Tensor) -> Tensor:
    """The same image by the project's generator."""
    return generator.synthesize(w, generator.fixed_noise())


def problem() -> tuple[StyleGenerator, Tensor]:
    """A frozen generator whose noise and biases matter, and style vectors B L w."""
    torch.manual_seed(0)
    generator = StyleGenerator(SIZE, channels=CHANNELS).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.startswith(("layers", "rgb")) and parameter.ndim < 2:
            parameter += 0.1 * torch.randn(parameter.shape)
    return generator, generator.mix(torch.randn(BATCH, generator.w))


def result(synthesis: Synthesis, generator: StyleGenerator, w: Tensor) -> tuple[Tensor, Tensor]:
    """The image, and the gradient of its mean square with respect to w."""
    w = w.clone().requires_grad_()
    image = synthesis(generator, w)
    (gradient,) = torch.autograd.grad(image.square().mean(), w)
    return image.detach(), gradient


def largest_differences(shift: float = 0.0) -> dict[str, float]:
    """Of images and gradients, beside the largest number of either.

    Args:
        shift: Added to the plain image, to see that the comparison notices.
    """
    generator, w = problem()
    pair = result(ours, generator, w), result(lambda g, v: plain(g, v) + shift, generator, w)
    return {
        what: float((a - b).abs().max() / b.abs().max())
        for what, a, b in zip(("image", "gradient"), *pair, strict=True)
    }


def measure() -> list[dict[str, Any]]:
    """Ratios of the fastest of several alternating rounds; then that results are equal."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    generator, w = problem()

    def forward(synthesis: Synthesis) -> None:
        with torch.no_grad():
            synthesis(generator, w)

    def gradient(synthesis: Synthesis) -> None:
        result(synthesis, generator, w)

    rows = []
    for name, work, target in (("synthesis", forward, FORWARD), ("image and gradient of w", gradient, GRADIENT)):
        seconds: dict[Synthesis, list[float]] = {ours: [], plain: []}
        for _ in range(ROUNDS):
            for synthesis, times in seconds.items():
                start = time.process_time()  # of one thread: what else the machine does is not counted
                work(synthesis)
                times.append(time.process_time() - start)
        row = _row(f"{name}, {SIZE} px, batch {BATCH}", 1.0, target)
        row["ours_ms"], row["plain_ms"] = (1000 * min(times) for times in seconds.values())
        rows.append(row | {"ratio": row["plain_ms"] / row["ours_ms"]})
    for name, difference in largest_differences().items():
        ratio = TOLERANCE / max(difference, 1e-12)
        rows.append({**_row(f"largest difference, {name}", ratio, 1.0), "difference": difference})
    return rows


def _row(name: str, ratio: float, target: float) -> dict[str, Any]:
    return {"name": name, "ours_ms": None, "plain_ms": None, "ratio": ratio, "target": target}


def main() -> int:
    """Prints the rows; 1 where one misses its target."""
    from benchmarks.speed.__main__ import table

    rows = measure()
    print(table(rows))
    return int(any(row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
