"""L1, PSNR, SSIM and TV of each image of a batch, over the image, the hole and the band at the hole's edge.

Why not torchmetrics' functions: none takes a region; mean absolute error and SSIM differ in definition (pooled over the
batch, borders counted); and SSIM in double precision costs more than a small network's run. PSNR (`dim=(1, 2, 3)`,
`reduction="none"`) and, up to the division by the number of pairs, total variation agree, and the tests hold them
equal; here they share one subtraction. `zoo.metrics.ImageMetrics` is a `torchmetrics.Metric` over these values.
Measured by `python -m benchmarks.speed metrics`: 0.9 ms for a 64x64 image, a twelfth of DeepFill nano's own run.

The values of an image do not depend on the batch it is in: L1, PSNR and TV are sums of integers in double precision,
exact in any order; SSIM (on the CPU) and the raw output's change are summed image by image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.metrics.region import SUFFIXES, regions
from zoo.metrics.ssim import MARGIN, ssim_map

PSNR_CAP = 100.0
FAMILIES = ("l1", "psnr", "ssim", "tv")
NAMES = (*(family + suffix for family in FAMILIES for suffix in SUFFIXES), "raw_known_l1")


@torch.no_grad()
def per_image(composite: Tensor, truth: Tensor, mask: Tensor, raw: Tensor | None = None) -> dict[str, Tensor]:
    """Measures each image of a batch on its own; `zoo.metrics.DEFINITIONS` says what each value is.

    NaN where a value is undefined: `_hole` without a hole, `_band` where hole or known pixels are missing altogether,
    `ssim` on an image with a side under 11 pixels, `ssim_hole` and `ssim_band` where no centre of a window inside the
    image (5 pixels from the border) lies in the region, `tv` on an image with a side of one pixel, `raw_known_l1`
    where nothing is known.

    Args:
        composite: B 3 H W uint8, the completed image (`zoo.compose.to_uint8`).
        truth: B 3 H W uint8.
        mask: B 1 H W in {0, 1}, 1 = hole, any type.
        raw: B 3 H W float in [0, 1], the output before compositing; without it there is no `raw_known_l1`.

    Returns:
        The names of `NAMES` in order, each with B values, float64, on the device of `composite` (on the CPU for
        devices without double precision).

    Raises:
        DataError: Shapes or types differ from the above.
    """
    _check(composite, truth, mask, raw)
    device = exact_device(composite.device)
    result, reference = (x.to(device).to(torch.float64) for x in (composite, truth))
    where = regions(mask.to(device))
    weights = where.to(torch.float64)

    difference = (result - reference).abs_()
    errors = torch.stack([difference.sum(1), difference.square_().sum(1)], 1)
    absolute, squared = (_means(errors, weights) / 3).unbind(1)
    values = {
        "l1": absolute / 255,
        "psnr": (10 * torch.log10(255**2 / squared)).clamp(max=PSNR_CAP),
        "ssim": _ssim(result, reference, weights),
        "tv": _total_variation(result, weights) / 255,
    }
    named = {
        family + suffix: values[family][:, k].contiguous() for family in FAMILIES for k, suffix in enumerate(SUFFIXES)
    }
    if raw is not None:
        known = ~where[:, 1:2]
        change = (raw.to(device).to(torch.float64) - reference / 255).abs_()
        # By selection, so that a raw output that is not finite inside the hole does not count here.
        change = torch.stack([image.sum() for image in torch.where(known, change, 0.0)])
        named["raw_known_l1"] = change / (3 * known.sum((1, 2, 3)))
    return named


def _means(maps: Tensor, weights: Tensor) -> Tensor:
    """Means of K maps (B K H W) over R regions (B R H W in {0., 1.}): B K R, NaN over an empty region."""
    flat = weights.flatten(2)
    return maps.flatten(2) @ flat.transpose(1, 2) / flat.sum(-1)[:, None]


def _ssim(result: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    # One image at a time stays in the CPU's cache (1.6 times faster at 256 pixels) and out of its neighbours' rounding.
    step = 1 if result.device.type == "cpu" else max(1, len(result))
    centres = weights[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    parts = [
        _means(ssim_map(a, b).mean(1, keepdim=True), c)[:, 0]
        for a, b, c in zip(*(torch.split(x, step) for x in (result, reference, centres)), strict=True)
    ]
    return torch.cat(parts)


def _total_variation(result: Tensor, weights: Tensor) -> Tensor:
    total = result.new_zeros(weights.shape[:2])
    for dimension in (-1, -2):
        length = result.shape[dimension] - 1
        steps = (result.narrow(dimension, 1, length) - result.narrow(dimension, 0, length)).abs_().sum(1, keepdim=True)
        pairs = torch.maximum(weights.narrow(dimension, 1, length), weights.narrow(dimension, 0, length))
        total += _means(steps, pairs)[:, 0] / 3
    return total


def exact_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where it has no double precision (Apple's GPUs)."""
    return torch.device("cpu") if device.type == "mps" else device


def check_images(composite: Tensor, truth: Tensor) -> None:
    """Refuses what is not a batch of 8-bit images and its truth.

    Args:
        composite: Must be B 3 H W uint8.
        truth: Must be of the same shape and type.

    Raises:
        DataError: They are not.
    """
    shape = tuple(composite.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise DataError(f"metrics need images of B 3 H W, got {shape}")
    for name, image in (("composite", composite), ("truth", truth)):
        if image.dtype != torch.uint8:
            raise DataError(
                f"metrics are taken on 8-bit images, the {name} is {image.dtype}", remedy="use zoo.compose.to_uint8"
            )
    check_shape("truth", truth, shape, composite)


def check_shape(name: str, value: Tensor, expected: tuple[int, ...], composite: Tensor) -> None:
    """Refuses a tensor that does not fit the composite.

    Raises:
        DataError: Its shape is another.
    """
    if tuple(value.shape) != expected:
        raise DataError(f"the {name} is {tuple(value.shape)} beside a composite of {tuple(composite.shape)}")


def _check(composite: Tensor, truth: Tensor, mask: Tensor, raw: Tensor | None) -> None:
    check_images(composite, truth)
    shape = tuple(composite.shape)
    check_shape("mask", mask, (shape[0], 1, *shape[2:]), composite)
    if raw is not None:
        check_shape("raw", raw, shape, composite)
        if not raw.is_floating_point():
            raise DataError(f"the raw output must be float in [0, 1], got {raw.dtype}")
