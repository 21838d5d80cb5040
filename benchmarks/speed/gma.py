"""Gated mask-aware attention: memory and time of a training step at a 512 x 512 image, against explicit N x N scores.

    python -m benchmarks.speed.gma

The largest stage is measured, where maps have half the image's size. The plain side is the same module whose attention
is written out: scores, plus log g, softmax, times V.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from zoo.models.mminvertfill.attention import GMA, attend

CHANNELS, GUIDES = 64, 128  # of x and a at the last stage of the paper's network
LARGE, SMALL = 256, 64  # sides of the map at 512 pixels, and where results are compared and timed
ROUNDS = 5
TOLERANCE = 1e-4
LIMIT_MIB = 2048


def plain_attend(q: Tensor, k: Tensor, v: Tensor, log_g: Tensor | None, scale: float) -> Tensor:
    """The formula as it is written, with a matrix of N x N numbers; arguments as of `attend`."""
    scores = q @ k.mT * scale
    if log_g is not None:
        scores = scores + log_g[:, None]
    return scores.softmax(-1) @ v


SIDES = {"ours": attend, "plain": plain_attend}


def training_step(side: str, size: int, channels: int = CHANNELS, guides: int = GUIDES) -> dict[str, Tensor]:
    """One forward and backward pass of a GMA; its output and the gradients of its inputs and parameters.

    Args:
        side: Of `SIDES`, whose attention is used.
        size: Side of the map.
        channels: Of x.
        guides: Channels of a.
    """
    torch.manual_seed(0)
    gma = GMA(channels, guides)
    gma.attention.attend = SIDES[side]
    x = torch.randn(1, channels, size, size, requires_grad=True)
    a = torch.randn(1, guides, size, size, requires_grad=True)
    M = torch.zeros(1, 1, size, size)
    M[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    out = gma(x, a, M)
    out.square().mean().backward()
    gradients = {"x": x, "a": a, **dict(gma.named_parameters())}
    return {"out": out.detach(), **{n: t.grad for n, t in gradients.items() if t.grad is not None}}


def largest_differences(size: int = SMALL, shift: float = 0.0) -> dict[str, float]:
    """Between both sides, of the result and of gradients, each against the largest plain number (or 1 for results).

    Args:
        size: Side of the map.
        shift: Added to the plain results, to see that the comparison notices.
    """
    ours, plain = (training_step(side, size) for side in SIDES)
    difference = {n: float((ours[n] - plain[n] - shift).abs().max() / plain[n].abs().max()) for n in plain}
    return {"result": difference.pop("out"), "gradients": max(difference.values())}


_STEPS = """
import time
from benchmarks.speed import gma
import torch
torch.set_num_threads(1)

def status(field):  # getrusage would answer with the parent's peak
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

for side in gma.SIDES:  # the one with the higher peak last, which then is the peak of the process
    gma.training_step(side, 8)
    before, start = status("VmRSS"), time.perf_counter()
    gma.training_step(side, {size}, {channels}, {guides})
    print(status("VmHWM") - before, time.perf_counter() - start)
"""


def peaks(size: int = LARGE, channels: int = CHANNELS, guides: int = GUIDES) -> dict[str, tuple[float, float]]:
    """Of a step of each side: peak resident memory (MiB, beyond what was there before; Linux) and seconds.

    Both run in one new process, ours first.

    Args:
        size: Side of the map.
        channels: Of x.
        guides: Channels of a.
    """
    script = _STEPS.format(size=size, channels=channels, guides=guides)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {side: (float(used), float(seconds)) for side, (used, seconds) in zip(SIDES, lines, strict=True)}


def measure() -> list[dict[str, Any]]:
    """Times, fastest of alternating rounds; equality; then memory and time of the large map, in a new process.

    Raises:
        ArithmeticError: Both sides compute different things, so that their times mean nothing.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side, times in seconds.items():
            start = time.perf_counter()
            training_step(side, SMALL)
            times.append(time.perf_counter() - start)
    ours, plain = (1000 * min(times) for times in seconds.values())
    rows = [_row(f"training step, {2 * SMALL}x{2 * SMALL} image", plain / ours, None, ours_ms=ours, plain_ms=plain)]
    for name, difference in largest_differences(SMALL).items():
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"largest difference of {name}: {difference}, more than {TOLERANCE}")
        rows.append(_row(f"largest difference, {name}", TOLERANCE / difference, 1.0, difference=difference))
    (used, ours), (plain_used, plain) = peaks().values()
    image = f"{2 * LARGE}x{2 * LARGE} image"
    times_ms = {"ours_ms": 1000 * ours, "plain_ms": 1000 * plain}
    rows.append(_row(f"training step, {image}", plain / ours, None, **times_ms))
    rows.append(_row(f"memory, {image}: 2 GiB over {used:.0f} MiB", LIMIT_MIB / used, 1.0, used_mib=used))
    what = f"memory, {image}: plain {plain_used:.0f} MiB over ours"
    rows.append(_row(what, plain_used / used, None, used_mib=used, plain_mib=plain_used))
    return rows


def _row(name: str, ratio: float, target: float | None, **more: float) -> dict[str, Any]:
    return {"name": name, "ours_ms": None, "plain_ms": None, "ratio": ratio, "target": target, **more}


def main() -> int:
    """Prints the rows; 1 where one misses its target."""
    from benchmarks.speed.__main__ import table

    rows = measure()
    print(table(rows))
    return int(any(row["target"] is not None and row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
