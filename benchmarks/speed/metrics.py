"""What the metric suite costs per image: against torchmetrics' functions, and against a method's own run.

`python -m benchmarks.speed.metrics`. The plain side is torchmetrics' functional calls in double precision, over the
whole image alone, while the suite takes three regions and the raw output's change besides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.batch import Batch
from zoo.metrics import interval, intervals, per_image, protocols, regions, ssim_map
from zoo.metrics.frechet import Features, frechet
from zoo.metrics.kernel import KernelFeatures, kernel_distance, kernel_subsets
from zoo.metrics.region import band_width
from zoo.module import InpaintingModule

FASTEST, SLOWEST = 2.0, 10.0  # how many times the suite's cost a method's own run must be
Images = tuple[Tensor, Tensor, Tensor, Tensor]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def milliseconds(work: Callable[[], object], images: int, repeats: int) -> float:
    """The median over `repeats` runs after one warm-up, per image."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / images


def row(name: str, ours: float, plain: float | None = None, target: float | None = None) -> dict[str, Any]:
    """One line of the table; `target` is the least ratio of plain to ours."""
    return {
        "name": name,
        "ours_ms": ours,
        "plain_ms": plain,
        "ratio": None if plain is None else plain / ours,
        "target": target,
    }


def photographs(size: int, batch: int) -> Images:
    """Smooth random images, damaged in a quarter of their area: composite, truth, mask, raw."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, size // 8, size // 8, generator=generator)
    truth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").mul(255).round()
    mask = torch.zeros(batch, 1, size, size)
    mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    noisy = (truth + 12 * torch.randn(truth.shape, generator=generator)).clamp(0, 255)
    composite = torch.where(mask > 0, noisy, truth).round().to(torch.uint8)
    return composite, truth.to(torch.uint8), mask, noisy / 255


def plain_suite(composite: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """L1, PSNR, SSIM and TV of the whole image by torchmetrics, per image, in double precision."""
    from torchmetrics.functional import mean_absolute_error
    from torchmetrics.functional.image import peak_signal_noise_ratio, total_variation

    a, b = composite.double(), truth.double()
    return {
        "l1": torch.stack([mean_absolute_error(x, y) for x, y in zip(a, b, strict=True)]),
        "psnr": peak_signal_noise_ratio(a, b, 255.0, dim=(1, 2, 3), reduction="none"),
        "ssim": plain_ssim(a, b),
        "tv": total_variation(a, reduction="none"),
    }


def plain_ssim(a: Tensor, b: Tensor) -> Tensor:
    """torchmetrics' SSIM per image, with its reflected borders."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity: Tensor = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    return similarity


def ours_ssim(a: Tensor, b: Tensor) -> list[Tensor]:
    """The SSIM map image by image, as the suite takes it on the CPU."""
    return [ssim_map(x, y) for x, y in zip(a, b, strict=True)]


def plain_band(mask: Tensor) -> Tensor:
    """The band by two square max-pools."""
    width = band_width(*mask.shape[-2:])
    both = torch.nn.functional.max_pool2d(torch.cat([mask, 1 - mask], 1), 2 * width + 1, 1, width)
    return both[:, :1] * both[:, 1:]


def measure_libraries(repeats: int, sizes: tuple[tuple[int, int], ...] = ((64, 32), (256, 4))) -> list[dict[str, Any]]:
    """The suite and its parts against torchmetrics and plain torch, per image."""
    rows = []
    for size, batch in sizes:
        images = photographs(size, batch)
        composite, truth, mask, _ = images
        a, b = composite.double(), truth.double()
        where = f"{size} px, batch {batch}"
        pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            ("suite / torchmetrics, image only", partial(per_image, *images), partial(plain_suite, composite, truth)),
            ("SSIM map / torchmetrics, float64", partial(ours_ssim, a, b), partial(plain_ssim, a, b)),
            ("regions / two max-pools", partial(regions, mask), partial(plain_band, mask)),
            ("SSIM map / torchmetrics, float32", partial(ours_ssim, a, b), partial(plain_ssim, a.float(), b.float())),
        ]
        for name, ours, plain in pairs:
            plain_ms = milliseconds(plain, batch, max(1, repeats // 3))
            rows.append(row(f"{name}, {where}", milliseconds(ours, batch, repeats), plain_ms))
    values = torch.rand(512, generator=torch.Generator().manual_seed(0)).numpy()
    rows.append(row("one bootstrap interval, n = 512 (ms)", milliseconds(lambda: interval(values), 1, repeats)))
    return rows


def features(n: int, width: int) -> Pair:
    """Composites and truths, N x D: not negative, of unequal spread, as a network's are."""
    generator = np.random.default_rng(0)
    truth = np.maximum(generator.normal(size=(n, width)), 0) * generator.gamma(1.0, 0.4, width)
    fake = np.maximum(truth + 0.1 * generator.normal(size=truth.shape), 0)
    return fake.astype(np.float32), truth.astype(np.float32)


def ours_fid(pair: Pair) -> float:
    """The Frechet distance as the suite takes it, with nothing kept from one call to the next."""
    return frechet(Features(pair[0]), Features(pair[1]))


def library_fid(pair: Pair) -> float:
    """torch-fidelity's: the eigenvalues of a product that is not symmetric."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in pair]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def root_fid(pair: Pair) -> float:
    """The textbook's and clean-fid's: scipy's root of a matrix."""
    from scipy.linalg import sqrtm

    (mean_a, a), (mean_b, b) = ((x.mean(0, dtype=np.float64), np.cov(x, rowvar=False)) for x in pair)
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real)


def ours_kid(pair: Pair) -> float:
    """All pairs, with nothing kept from one call to the next."""
    return kernel_distance(KernelFeatures(pair[0]), KernelFeatures(pair[1])).mean


def measure_sets(repeats: int, n: int = 2500, width: int = 2048, rows: int = 36_500) -> list[dict[str, Any]]:
    """The metrics of sets and the statistics against their libraries, in milliseconds for all images.

    Args:
        repeats: Runs per figure.
        n: Images, more than `width` for FID's usual case.
        width: Features of an image.
        rows: Images of the statistics.
    """
    pair, size = features(n, width), min(1000, n)
    subsets = partial(kernel_subsets, *pair, size=size)
    table = np.random.default_rng(0).random((rows, 65))  # five methods, 13 metrics
    few = table[:, :4]
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("FID / torch-fidelity", partial(ours_fid, pair), partial(library_fid, pair)),
        ("FID / scipy's sqrtm", partial(ours_fid, pair), partial(root_fid, pair)),
        (f"KID, all pairs / 50 subsets of {size}", partial(ours_kid, pair), subsets),
        ("4 intervals / one by one", partial(intervals, few), lambda: [interval(column) for column in few.T]),
    ]
    found = [
        row(f"{name}, n = {n if 'ID' in name else rows}", milliseconds(a, 1, repeats), milliseconds(b, 1, repeats))
        for name, a, b in pairs
    ]
    return [*found, row(f"65 intervals, n = {rows}", milliseconds(partial(intervals, table), 1, repeats))]


def measure_method(
    name: str, module: InpaintingModule, size: int, repeats: int, batch: int = 64
) -> list[dict[str, Any]]:
    """The suite, and the published codes, against a method's own run on the same images.

    A ratio over 2 means that the suite adds less than half to the run.
    """
    images = photographs(size, batch)
    truth, mask = images[1].float() / 255, images[2]
    inputs: Batch = {"id": [f"speed/{k}" for k in range(batch)], "image": truth, "mask": mask}
    if "caption" in module.needs:
        inputs["caption"] = ["a large red star on stripes"] * batch
    module.eval()
    run = milliseconds(lambda: module.complete(inputs.copy()), batch, max(1, repeats // 3))
    ours = milliseconds(lambda: per_image(*images), batch, repeats)
    codes = milliseconds(lambda: protocols(*images[:2]), batch, repeats)
    where = f"{name}'s own run, {size} px, batch {batch}"
    return [row(f"suite / {where}", ours, run, FASTEST), row(f"protocols / {where}", codes, run)]


def measure_methods(repeats: int) -> list[dict[str, Any]]:
    """The suite against the run of every method that ships weights: a tenth of the slowest's, half of the fastest's."""
    from zoo.models import load, names
    from zoo.weights import shipped

    there = [name for name in names() if shipped(name)]
    pairs = [measure_method(f"{name} nano", load(name), 64, repeats) for name in there]
    slowest = max(pairs, key=lambda rows: rows[0]["plain_ms"])
    slowest[0]["target"] = SLOWEST
    return [one for rows in pairs for one in rows]


def measure(repeats: int = 9) -> list[dict[str, Any]]:
    """All rows, in milliseconds per image, in one process with the caller's threads.

    Args:
        repeats: Runs per figure on our side; a third of them on the plain side, and one for the metrics of sets.
    """
    return [*measure_libraries(repeats), *measure_methods(repeats), *measure_sets(1)]


def main(argv: list[str] | None = None) -> int:
    """Prints the table, measured on one thread."""
    from benchmarks.speed.__main__ import table

    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.metrics", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(table(measure(arguments.repeats)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
