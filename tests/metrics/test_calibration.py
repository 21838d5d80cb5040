"""Every metric against its trusted library, computed now, and against a number stored before.

The two catch different things. Where a library changes a default, our value may change with it: the stored number then
differs. Where our own code changes, the library's value differs. A metric that is defined and is not here fails.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests import fakes_features
from tests.metrics.tiny_clip import CAPTIONS, tiny_clip
from zoo.benchmark.edits import movement
from zoo.data.shapes import Shapes, draw_scene
from zoo.data.shapes.draw import draw
from zoo.keyed import numpy_generator
from zoo.metrics import DEFINITIONS, PUBLISHED, Interval, Stored, distribution, per_image, protocols
from zoo.metrics.perceptual import Dists, Lpips
from zoo.metrics.sources import hub_holding
from zoo.metrics.text import hole_box

GOLDEN_FILE = Path(__file__).resolve().parents[1] / "golden" / "metrics.json"
GOLDEN: dict[str, list[float]] = json.loads(GOLDEN_FILE.read_text())["calibration"]
Values = dict[str, list[float]]
Array = NDArray[Any]


@dataclass(frozen=True)
class Family:
    """Metrics that are calibrated together.

    Attributes:
        ours: The values of fixed images, by metric.
        library: The same by whoever defines them.
        relative: How far either may be off, relative and absolute.
        absolute: See `relative`.
    """

    ours: Callable[[], Values]
    library: Callable[[], Values]
    relative: float = 1e-9
    absolute: float = 1e-12


def listed(values: dict[str, Tensor]) -> Values:
    return {name: value.tolist() for name, value in values.items()}


@functools.cache
def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Composite, truth and mask, 48 pixels square, and a raw output."""
    composite, truth, mask = fakes_features.photographs()
    return composite, truth, mask, (composite.float() + 3 * torch.sin(truth.float())).clamp(0, 255) / 255


def arrays() -> Iterator[tuple[Array, Array, Array, Array]]:
    """The same, image by image: H x W x 3, and the hole H x W."""
    for composite, truth, mask, raw in zip(*images(), strict=True):
        x, y, r = (one.permute(1, 2, 0).numpy() for one in (composite, truth, raw))
        yield x, y, mask[0].numpy() > 0, r


def by_name(rows: list[dict[str, float]]) -> Values:
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


# --- of single images: scikit-image, scikit-learn, torchmetrics, SciPy ------------------------------------------------


def pixels_by_libraries() -> Values:
    from scipy.ndimage import maximum_filter, minimum_filter
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from sklearn.metrics import mean_absolute_error
    from torchmetrics.functional.image import total_variation

    rows = []
    for (x, y, hole, raw), composite in zip(arrays(), images()[0], strict=True):
        band = maximum_filter(hole, 5, mode="nearest") & ~minimum_filter(hole, 5, mode="nearest")
        wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        ssim, ssim_map = structural_similarity(y, x, channel_axis=-1, full=True, **wang)
        inside = np.zeros_like(hole)
        inside[5:-5, 5:-5] = True
        row = {"ssim": ssim, "tv": float(total_variation(composite[None].double())) / (3 * 48 * 47 * 255)}
        for suffix, region in {"": np.ones_like(hole), "_hole": hole, "_band": band}.items():
            row["l1" + suffix] = mean_absolute_error(y[region], x[region]) / 255
            row["psnr" + suffix] = peak_signal_noise_ratio(y[region], x[region], data_range=255)
            if suffix:
                row["ssim" + suffix] = ssim_map[region & inside].mean()
                row["tv" + suffix] = sum(_steps(x, region, axis) for axis in (0, 1))
        row["raw_known_l1"] = mean_absolute_error(y[~hole] / 255, raw[~hole].astype(np.float64))
        rows.append(row)
    return by_name(rows)


def _steps(image: Array, region: Array, axis: int) -> float:
    """The mean step along an axis over the pairs of neighbours that touch a region."""
    steps = np.abs(np.diff(image.astype(np.float64), axis=axis)) / 255
    touched = np.maximum(*(np.take(region, range(k, 47 + k), axis) for k in (0, 1)))
    return float(np.average(steps.mean(-1), weights=touched))


def protocols_by_libraries() -> Values:
    from scipy.spatial.distance import braycurtis
    from skimage.color import rgb2gray
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from sklearn.metrics import mean_absolute_error

    def variation(image: Array) -> float:
        return float(np.hypot(*(np.roll(image, -1, axis) - image for axis in (0, 1))).mean())

    rows = []
    for x, y, *_ in arrays():
        a, b = rgb2gray(x / 255), rgb2gray(y / 255)
        levels = x.astype(np.float64)
        # The columns of a grey image taken for channels: what `multichannel=True` made of it.
        columns, colour = (
            structural_similarity(truth, image, channel_axis=-1, data_range=np.ptp(image))
            for image, truth in ((a, b), (levels, y.astype(np.float64)))
        )
        rows.append({
            "tdanet_l1": 100 * braycurtis(a.ravel(), b.ravel()),
            "tdanet_psnr": peak_signal_noise_ratio(b, a, data_range=1),
            "tdanet_ssim": 100 * columns,
            "tdanet_tv": 100 * variation(a),
            "picnet_l1": mean_absolute_error(y.reshape(-1, 3), x.reshape(-1, 3)),
            "picnet_psnr": peak_signal_noise_ratio(y, x, data_range=255),
            "picnet_ssim": colour,
            "picnet_tv": variation(levels),
        })  # fmt: skip
    return by_name(rows)


def movement_by_libraries() -> Values:
    from sklearn.metrics import mean_absolute_error

    rows = [
        {
            "moved": float(not np.array_equal(x, y)),
            "moved_hole": mean_absolute_error(y[hole], x[hole]) / 255,
            "moved_known": mean_absolute_error(y[~hole], x[~hole]) / 255,
        }
        for x, y, hole, _ in arrays()
    ]
    return by_name(rows)


# --- the judge: what was drawn is known -------------------------------------------------------------------------------


def judged() -> Values:
    """The truth, another object in its place, nothing in its place; the caption asks for the other one."""
    scene = next(s for s in (draw_scene("test", k) for k in range(50)) if len(s.objects) == 1)
    (target,) = scene.objects
    other = replace(
        target,
        colour="blue" if target.colour == "red" else "red",
        shape="circle" if target.shape == "square" else "square",
        fill="solid",
    )
    data = Shapes("test", size=64)
    mask = np.zeros((64, 64), np.uint8)
    left, top, right, bottom = (round(64 * edge) for edge in target.box)
    mask[top - 2 : bottom + 2, left - 2 : right + 2] = 1
    painted = [draw(replace(scene, objects=objects), 64)[0] for objects in ((target,), (other,), ())]
    caption = f"a large solid {other.colour} {other.shape}"
    rows = [data.judge(scene.id, image, mask, caption) for image in painted]
    return by_name([{name: value for name, value in row.items() if name != "objects"} for row in rows])


def drawn() -> Values:
    own, given = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    return {"colour_fidelity": own, "shape_fidelity": own, "colour_given": given, "shape_given": given}


# --- feature networks of numbers by a formula: lpips, torchmetrics, open_clip -----------------------------------------


@functools.cache
def trunks() -> dict[str, Path]:
    folder = Path(tempfile.mkdtemp(prefix="calibration-"))
    return {key: Path(path) for key, path in fakes_features.write(folder, "alexnet", "vgg16").items()}


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> Iterator[None]:
    yield
    if trunks.cache_info().currsize:
        shutil.rmtree(trunks()["vgg16"].parent)


def perceptual() -> Values:
    composite, truth, mask, _ = images()
    networks = (Lpips("alex", trunks()["alexnet"]), Lpips("vgg", trunks()["vgg16"]), Dists(trunks()["vgg16"]))
    return {name: value for network in networks for name, value in listed(network(composite, truth, mask)).items()}


def perceptual_by_libraries() -> Values:
    from torchmetrics.functional.image.dists import deep_image_structure_and_texture_similarity

    composite, truth, mask, _ = images()
    found = {}
    for net, state in (("alex", fakes_features.alexnet_state()), ("vgg", fakes_features.vgg16_state())):
        a, b = (x.float() / 127.5 - 1 for x in (composite, truth))
        network = _lpips(net, state)
        with torch.no_grad():
            spatial = network(a, b)
            network.spatial = False
            found[f"lpips_{net}"] = network(a, b).flatten().tolist()
        found[f"lpips_{net}_hole"] = ((spatial * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).tolist()
    with hub_holding(trunks()["vgg16"], PUBLISHED["vgg16"].name):
        value = deep_image_structure_and_texture_similarity(composite.float() / 255, truth.float() / 255)
    return found | {"dists": value.tolist()}


def _lpips(net: str, trunk: dict[str, Tensor]) -> Any:
    """The network of the package `lpips`, whose own heads it ships, with our trunk; it gives the map of distances."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names arguments that torchvision renamed
        network = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, spatial=True, verbose=False)
    for piece in (getattr(network.net, f"slice{k}") for k in range(1, 6)):
        for place, layer in piece.named_children():
            if f"features.{place}.weight" in trunk:
                layer.weight.data = trunk[f"features.{place}.weight"]
                layer.bias.data = trunk[f"features.{place}.bias"]
    return network.eval()


def clip() -> Values:
    composite, _, mask, _ = images()
    return listed(tiny_clip()(composite[:2], mask[:2], CAPTIONS))


def clip_by_open_clip() -> Values:
    import open_clip
    from PIL import Image

    score = tiny_clip()
    tokens, rows = open_clip.get_tokenizer("tiny-clip")(CAPTIONS), []
    for n, (x, _, hole, _) in enumerate(list(arrays())[:2]):
        box = hole_box(hole)
        assert box is not None
        row = {}
        crop = x[box.top : box.top + box.height, box.left : box.left + box.width]
        for name, shown in (("clip", x), ("clip_hole", crop)):
            with torch.no_grad():
                image = score.network.encode_image(score.preprocess(Image.fromarray(shown))[None], normalize=True)
                words = score.network.encode_text(tokens[n : n + 1], normalize=True)
            row[name] = 100 * max(0.0, float((image * words).sum()))
        rows.append(row)
    return by_name(rows)


# --- of sets of images, from features: torch-fidelity, clean-fid, torchmetrics, scikit-learn --------------------------

MANY = ("kid_subsets", "p_ids", "u_ids")  # not computed for fewer than thousands of images
FEW = ("fid_tf", "fid_clean", "kid", "p_ids_cross", "u_ids_cross")


def features(n: int, width: int) -> tuple[Array, Array]:
    """Composites and truths: not negative, of unequal spread, as a network's are."""
    generator = np.random.default_rng(0)
    truth = np.maximum(generator.normal(size=(n, width)), 0) * np.geomspace(0.3, 2, width)
    return np.maximum(truth + 0.3 * generator.normal(size=(n, width)), 0).astype(np.float32), truth.astype(np.float32)


def sets() -> Values:
    found: Values = {}
    for names, (n, width) in ((FEW, (300, 16)), (MANY, (4096, 8))):
        ids = [f"{k:04d}" for k in range(n)]
        composite, truth = (Stored(ids, values, ids) for values in features(n, width))
        for name, value in distribution(names, composite, truth, resamples=0).items():
            assert isinstance(value, Interval), value
            found[name] = [value.mean]
    return found


def sets_by_libraries() -> Values:
    from cleanfid.fid import fid_from_feats
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import poly_mmd

    few, many = features(300, 16), features(4096, 8)
    statistics = [fid_features_to_statistics(torch.from_numpy(x).double()) for x in few]
    subsets = kid_features_to_metric(
        *map(torch.from_numpy, many), kid_subsets=50, kid_subset_size=1000, rng_seed=2020, verbose=False
    )
    return {
        "fid_tf": [fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]],
        "fid_clean": [float(fid_from_feats(*(x.astype(np.float64) for x in few)))],
        "kid": [float(poly_mmd(*(torch.from_numpy(x).double() for x in few)))],
        "kid_subsets": [float(subsets["kernel_inception_distance_mean"])],
        **_separated("", *many),
        **_separated("_cross", *few),
    }


def _separated(suffix: str, fake: Array, real: Array) -> Values:
    """P-IDS and U-IDS by scikit-learn alone: on what was fitted, or by its own cross-validation."""
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.svm import LinearSVC

    n, svm = len(fake), LinearSVC(dual=False, C=1.0, tol=1e-8)
    x, labels = np.vstack([real, fake]).astype(np.float64), np.repeat([1, 0], n)
    if suffix:
        half = np.zeros(n, int)
        half[numpy_generator("halves", 0, n).permutation(n)[n // 2 :]] = 1
        scores = cross_val_predict(svm, x, labels, cv=PredefinedSplit(np.tile(half, 2)), method="decision_function")
    else:
        scores = svm.fit(x, labels).decision_function(x)
    mistaken = ((scores > 0) != labels).mean()
    return {f"p_ids{suffix}": [float((scores[n:] > scores[:n]).mean())], f"u_ids{suffix}": [float(mistaken)]}


# --- the table --------------------------------------------------------------------------------------------------------

FAMILIES = {
    "pixels": Family(lambda: listed(per_image(*images())), pixels_by_libraries),
    "protocols": Family(lambda: listed(protocols(*images()[:2])), protocols_by_libraries),
    "movement": Family(lambda: listed(movement(*images()[:3])), movement_by_libraries),
    "judge": Family(judged, drawn),
    "perceptual": Family(perceptual, perceptual_by_libraries, relative=1e-4),
    "clip": Family(clip, clip_by_open_clip, relative=1e-4, absolute=1e-3),
    "sets": Family(sets, sets_by_libraries, relative=1e-5, absolute=1e-6),
}


@functools.cache
def measured(family: str) -> Values:
    return FAMILIES[family].ours()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_equal_to_the_library(family: str) -> None:
    table = FAMILIES[family]
    ours, theirs = measured(family), table.library()
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values == pytest.approx(theirs[name], rel=table.relative, abs=table.absolute), name


@pytest.mark.parametrize("family", list(FAMILIES))
def test_equal_to_the_stored_number(family: str) -> None:
    table = FAMILIES[family]
    for name, values in measured(family).items():
        # The stored numbers have nine digits.
        assert values == pytest.approx(GOLDEN[name], rel=max(table.relative, 1e-8), abs=table.absolute), name


def test_every_metric_is_calibrated() -> None:
    names = [name for family in FAMILIES for name in measured(family)]
    assert len(names) == len(set(names))
    assert set(names) == set(DEFINITIONS) == set(GOLDEN)
