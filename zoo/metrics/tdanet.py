"""The measures of two evaluation codes, bit for bit where they are well defined, so that published tables compare.

`tdanet_*` are those of TDANet's final code, on grey images: CMA's tables. `picnet_*` are those of PICNet's code, on
RGB in grey levels: NIGDT's table. Both look at the whole composite. Neither code's choice of the best of several
outputs, nor its masked input among the candidates, is made here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.metrics.definitions_learned import PROTOCOLS
from zoo.metrics.image import PSNR_CAP, check_images, exact_device

PROTOCOL_NAMES = tuple(PROTOCOLS)
GREY = (0.2125, 0.7154, 0.0721)
WINDOW = 7  # scikit-image's default
K1, K2 = 0.01, 0.03


@torch.no_grad()
def protocols(composite: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Measures each image of a batch by both codes; `zoo.metrics.DEFINITIONS` says what each value is.

    NaN where a value is undefined: both `_ssim` where a side that the window runs along is under 7 pixels or the
    composite has one level only, `tdanet_l1` where both images are black.

    Args:
        composite: B 3 H W uint8, the completed image.
        truth: B 3 H W uint8.

    Returns:
        The names of `PROTOCOL_NAMES` in order, each with B values, float64, on the device of `composite` (on the CPU
        for devices without double precision).

    Raises:
        DataError: Shapes or types differ from the above.
    """
    check_images(composite, truth)
    device = exact_device(composite.device)
    result, reference = (x.to(device).to(torch.float64) for x in (composite, truth))
    weights = result.new_tensor(GREY)[:, None, None] / 255
    grey, grey_truth = ((x * weights).sum(1, keepdim=True) for x in (result, reference))
    values = (
        100 * (grey - grey_truth).abs().sum((1, 2, 3)) / (grey + grey_truth).sum((1, 2, 3)),
        _psnr(grey, grey_truth, 1.0),
        100 * _uniform_ssim(grey, grey_truth, (WINDOW, 1)),
        100 * _wrapped_variation(grey),
        (result - reference).abs().mean((1, 2, 3)),
        _psnr(result, reference, 255.0),
        _uniform_ssim(result, reference, (WINDOW, WINDOW)),
        _wrapped_variation(result),
    )
    return dict(zip(PROTOCOL_NAMES, values, strict=True))


def _psnr(result: Tensor, reference: Tensor, top: float) -> Tensor:
    error = (result - reference).square().mean((1, 2, 3))
    return (10 * torch.log10(top**2 / error)).clamp(max=PSNR_CAP)


def _uniform_ssim(result: Tensor, reference: Tensor, window: tuple[int, int]) -> Tensor:
    """The mean SSIM of each image, by scikit-image's rules: uniform window, sample variances, valid windows.

    With a window of one column this is what those rules make of a grey image whose columns are taken for channels.

    Args:
        result: B C H W; the data range is that of each image.
        reference: B C H W.
        window: Its height and width.

    Returns:
        B values.
    """
    span = result.amax((1, 2, 3)) - result.amin((1, 2, 3))
    if result.shape[-2] < window[0] or result.shape[-1] < window[1]:
        return torch.full_like(span, torch.nan)
    # One image at a time stays in the CPU's cache: three times faster at 256 pixels.
    step = 1 if result.device.type == "cpu" else len(result)
    pieces = zip(*(torch.split(v, step) for v in (result, reference, span)), strict=True)
    parts = [_ssim_means(x, y, top, window) for x, y, top in pieces]
    return torch.cat(parts).masked_fill(span == 0, torch.nan)


def _ssim_means(x: Tensor, y: Tensor, span: Tensor, window: tuple[int, int]) -> Tensor:
    c1, c2 = ((k * span).square()[:, None, None, None] for k in (K1, K2))
    count = window[0] * window[1]
    sample = count / (count - 1)
    # Only the sum of the two variances enters, so their second moments are averaged as one plane.
    planes = torch.stack([x, y, x * x + y * y, x * y]).div_(count)
    mean_x, mean_y, squares, product = _box_sums(_box_sums(planes, -2, window[0]), -1, window[1])
    mean_product, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    similarity: Tensor = (2 * mean_product + c1) * (2 * sample * (product - mean_product) + c2)
    similarity /= (mean_squares + c1) * (sample * (squares - mean_squares) + c2)
    return similarity.mean((1, 2, 3))


def _box_sums(planes: Tensor, dimension: int, length: int) -> Tensor:
    """Sums of `length` neighbours along a dimension, windows wholly inside."""
    left = planes.shape[dimension] - length + 1
    total = planes.narrow(dimension, 0, left).clone()
    for shift in range(1, length):
        total += planes.narrow(dimension, shift, left)
    return total


def _wrapped_variation(result: Tensor) -> Tensor:
    steps = [result - result.roll(-1, dimension) for dimension in (-1, -2)]
    return (steps[0].square() + steps[1].square()).sqrt().mean((1, 2, 3))
