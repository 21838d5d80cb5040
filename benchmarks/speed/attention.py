"""Contextual attention in factored form against the per-sample convolution formulation, and its memory on large images.

    python -m benchmarks.speed.attention

The plain formulation is timed as it is usually written, with propagation along the flattened index; where the factored
form is compared with it, both that form and the one without wrapping row ends must agree to 1e-5.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.deepfill.attention import AttentionOptions, ContextualAttention

BATCH, CHANNELS, SIZE = 4, 96, 64  # the features of a 256 x 256 image in the paper's network
ROUNDS = 9
FORWARD, BOTH = 3.5, 2.7
TOLERANCE = 1e-5
LARGE, LIMIT_MIB = 1024, 1024


def plain_attention(foreground: Tensor, background: Tensor, mask: Tensor, wrap: bool = True) -> Tensor:
    """The usual formulation: the patches of each sample are the kernels of convolutions over that sample.

    Args:
        foreground: B C H W.
        background: B C H W.
        mask: B 1 H/2 W/2, 1 = hole.
        wrap: Let the identity kernel run from the end of a row into the next, as it does on the flattened matrix.
    """
    channels, (height, width) = background.shape[1], background.shape[-2:]
    n, m, results = height // 2, width // 2, []
    low_foreground, low_background = foreground[..., ::2, ::2], background[..., ::2, ::2]
    covered = F.fold(foreground.new_ones(1, 16, n * m), (height, width), 4, padding=1, stride=2)
    for i in range(len(background)):
        raw = F.unfold(background[i : i + 1], 4, stride=2, padding=1).view(channels, 4, 4, n * m).permute(3, 0, 1, 2)
        keys = F.unfold(low_background[i : i + 1], 3, padding=1).view(channels, 3, 3, n * m).permute(3, 0, 1, 2)
        keys = keys / keys.flatten(1).norm(dim=1).clamp_min(1e-4).view(-1, 1, 1, 1)
        valid = (F.max_pool2d(mask[i : i + 1], 3, 1, 1) < 0.5).view(1, n * m, 1, 1)
        scores = F.conv2d(low_foreground[i : i + 1], keys, padding=1).view(n, m, n, m)
        scores = _propagate(scores, wrap).permute(1, 0, 3, 2)
        scores = _propagate(scores, wrap).permute(1, 0, 3, 2).reshape(1, n * m, n, m)
        weights = torch.softmax((10.0 * scores).masked_fill(~valid, -1e30), 1) * valid
        results.append(F.conv_transpose2d(weights, raw, stride=2, padding=1) / covered)
    return torch.cat(results)


def _propagate(scores: Tensor, wrap: bool) -> Tensor:
    """The 3x3 identity kernel over the matrix of flattened cells; an empty column between rows stops it wrapping."""
    n, m = scores.shape[:2]
    identity = torch.eye(3, dtype=scores.dtype).view(1, 1, 3, 3)
    columns = m if wrap else m + 1
    if not wrap:
        scores = F.pad(scores, (0, 1, 0, 0, 0, 1))
    matrix = scores.reshape(1, 1, n * columns, n * columns)
    return F.conv2d(matrix, identity, padding=1).view(n, columns, n, columns)[:, :m, :, :m]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Features after a ReLU, one hole per sample, and a gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, CHANNELS, SIZE, SIZE)
    features = (0.05 * torch.randn(shape, generator=generator)).relu()
    mask = torch.zeros(BATCH, 1, SIZE // 2, SIZE // 2)
    for i in range(BATCH):
        mask[i, :, 6 + i : 16 + 2 * i, 8 - i : 18] = 1
    return features, mask, torch.randn(shape, generator=generator)


def largest_differences(shift: float = 0.0) -> dict[str, float]:
    """Of results and gradients, the factored form against the plain one, with and without wrapping.

    Args:
        shift: Added to the plain result, to see that the comparison notices.
    """
    features, mask, gradient = inputs()
    differences = {}
    for wrap in (False, True):
        factored, results = ContextualAttention(AttentionOptions(fuse_wrap=wrap)), []
        for attend in (factored, lambda f, b, m, wrap=wrap: plain_attention(f, b, m, wrap) + shift):
            x = features.clone().requires_grad_()
            out = attend(x, x, mask)
            out.backward(gradient)
            results.append((out.detach(), x.grad))
        name = "wrapping" if wrap else "default"
        for what, (ours, plain) in zip(("result", "gradient"), zip(*results, strict=True), strict=True):
            differences[f"{name} {what}"] = float((ours - plain).abs().max() / plain.abs().max().clamp_min(1.0))
    return differences


def measure() -> list[dict[str, Any]]:
    """Ratios of the fastest of several alternating rounds; then equality; then the memory of one large image."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    features, mask, gradient = inputs()
    features.requires_grad_()
    factored = ContextualAttention()

    def forward(attend: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            attend(features, features, mask)

    def both(attend: Callable[..., Tensor]) -> None:
        features.grad = None
        attend(features, features, mask).backward(gradient)

    rows = []
    for name, work, target in (("forward", forward, FORWARD), ("forward and backward", both, BOTH)):
        seconds: dict[Callable[..., Tensor], list[float]] = {factored: [], plain_attention: []}
        for _ in range(ROUNDS):
            for attend, times in seconds.items():
                start = time.perf_counter()
                work(attend)
                times.append(time.perf_counter() - start)
        ours, plain = (1000 * min(times[1:]) for times in seconds.values())
        what = f"{name}, {SIZE}x{SIZE}x{CHANNELS}, batch {BATCH}"
        rows.append({"name": what, "ours_ms": ours, "plain_ms": plain, "ratio": plain / ours, "target": target})
    for name, difference in largest_differences().items():
        rows.append(_row(f"largest difference, {name}", TOLERANCE / max(difference, 1e-12), 1.0, difference=difference))
    used, total = peak_memory()
    what = f"memory, {LARGE}x{LARGE} image: 1 GiB over {used:.0f} MiB"
    rows.append(_row(what, LIMIT_MIB / used, 1.0, used_mib=used, process_mib=total))
    return rows


def _row(name: str, ratio: float, target: float, **more: float) -> dict[str, Any]:
    return {"name": name, "ours_ms": None, "plain_ms": None, "ratio": ratio, "target": target, **more}


_LARGE_RUN = """
import torch
from zoo.models.deepfill.attention import ContextualAttention
torch.set_num_threads(1)

def status(field):  # getrusage would answer with the parent's peak
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

before = status("VmRSS")
features = torch.rand(1, {channels}, {side}, {side})
mask = torch.zeros(1, 1, {side}, {side})
mask[..., {side} // 4 : {side} // 2, {side} // 4 : {side} // 2] = 1
with torch.no_grad():
    ContextualAttention()(features, features, mask)
print(status("VmHWM") - before, status("VmHWM"))
"""


def peak_memory(side: int = LARGE // 4, channels: int = CHANNELS) -> tuple[float, float]:
    """Peak resident memory, in MiB, of one image's attention: beyond the imported libraries, and with them (Linux).

    Args:
        side: Of the feature map; a quarter of the image's.
        channels: Of the feature map.
    """
    script = _LARGE_RUN.format(side=side, channels=channels)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    used, total = map(float, done.stdout.split())
    return used, total


def main(argv: list[str] | None = None) -> int:
    """Prints the rows; 1 where one misses its target."""
    missed = 0
    for row in measure():
        missed += row["ratio"] < row["target"]
        times = "" if row["ours_ms"] is None else f"  {row['ours_ms']:.1f} ms against {row['plain_ms']:.1f} ms"
        print(f"{row['name']}: ratio {row['ratio']:.2f}, target {row['target']}{times}")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
