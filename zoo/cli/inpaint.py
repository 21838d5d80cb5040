"""`zoo inpaint`: complete your own images, at their own size, known pixels untouched."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.cli.captions import Captions, read_captions, unknown_words
from zoo.cli.evaluate import own_path
from zoo.cli.expand import check_preset, one
from zoo.cli.files import save_png
from zoo.cli.guides import Guides, check_guides, pair_guides, read_guides
from zoo.cli.progress import Meter
from zoo.data.base import GUIDES
from zoo.errors import EXIT_FAILED_ROWS, EXIT_OK, DataError, UsageError, WeightsError, ZooError

if TYPE_CHECKING:
    from zoo.module import InpaintingModule

NOTHING: Mapping[str, Any] = MappingProxyType({})
SHOWN = 8  # unknown words


@dataclass(frozen=True)
class Job:
    """One image to complete.

    Attributes:
        name: Its path in the folder without ending; keys the method's noise and names the result.
        image: The image file.
        mask: The mask file.
        outs: The files to write, one per sample.
    """

    name: str
    image: Path
    mask: Path
    outs: tuple[Path, ...]


def run(arguments: Namespace) -> int:
    """Completes the images; exit 5 where some of a folder could not be."""
    from zoo.data.image import reduced

    name = one(arguments.model, "--model")
    for option, value in (
        ("--model", name),
        ("--image", arguments.image),
        ("--mask", arguments.mask),
        ("--out", arguments.out),
    ):
        if value is None:
            raise UsageError(f"zoo inpaint needs {option}", remedy="zoo inpaint --help")
    check_preset(arguments.preset, str(name))
    jobs = pair(Path(arguments.image), Path(arguments.mask), Path(arguments.out), arguments.samples)
    _check_samples(str(name), arguments.samples)
    module = load_method(str(name), arguments.preset, arguments.weights, arguments.accelerator)
    captions = _captions(arguments, module, jobs)
    guides = pair_guides({kind: getattr(arguments, kind) for kind in GUIDES}, jobs)
    _spare([*(path for paths in guides.values() for path in paths.values()), *_caption_files(arguments.caption)], jobs)
    check_guides({kind for paths in guides.values() for kind in paths}, module, str(name))
    failures = 0
    with Meter("inpaint", len(jobs)) as meter:
        for index, job in enumerate(jobs, 1):
            try:
                if lost := reduced(job.image):
                    meter.say(f"zoo inpaint: {job.name}: {lost}, also in the known pixels of the result")
                complete(module, job, captions.get(job.name, ""), arguments, guides[job.name])
            except DataError as error:
                if len(jobs) == 1:
                    raise
                failures += 1
                meter.say(f"zoo: {job.name} is left out: {error}")
                continue
            meter.update(index, str(job.outs[-1]))
    times = f", {arguments.samples} samples of each" if arguments.samples > 1 else ""
    print(f"{len(jobs) - failures} of {len(jobs)} images completed{times}: {arguments.out}")
    return EXIT_FAILED_ROWS if failures else EXIT_OK


def load_method(name: str, preset: str | None, weights: str | None, accelerator: str) -> InpaintingModule:
    """A method with its weights, and a line on stderr that says which.

    Raises:
        WeightsError: There are none, or they are of another method.
    """
    from zoo.models import class_path, load, resolve
    from zoo.weights import find_weights, read_header

    device = "cuda" if accelerator == "gpu" else "cpu"
    _check_device(device)
    if not resolve(name).trainable:
        return load(name, device=device)
    path = own_path(weights, name) if weights else None
    for choice in (preset,) if preset else ("paper", "nano"):
        path = path or find_weights(name, choice)
    if path is None:
        remedy = f"zoo weights list shows what is here; train them with zoo fit --model {name}, or give --weights FILE"
        raise WeightsError(f"no {preset or ''} weights of '{name}' are here".replace("  ", " "), remedy=remedy)
    header = read_header(path)
    resolve(name).check_available(header.arguments)
    module = load(name, weights=path, device=device)
    data = header.provenance.get("data")
    trained = data.get("name", "?") if isinstance(data, dict) else data or "?"
    about = f"preset {header.preset}, trained on {trained} at {module.size} pixels"
    print(f"zoo inpaint: {class_path(name)}, {about}: {path}", file=sys.stderr)
    return module


def _check_samples(name: str, samples: int) -> None:
    if samples == 1:
        return
    from zoo.models import resolve

    if not resolve(name).stochastic:
        what = f"'{name}' is not stochastic: its {samples} completions of an image would be equal"
        raise UsageError(what, where="--samples", remedy="leave it out")


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no GPU is here", remedy="leave out --accelerator gpu")


def _captions(arguments: Namespace, module: InpaintingModule, jobs: Sequence[Job]) -> Captions:
    wanted = "caption" in module.needs
    if arguments.caption is None:
        if wanted:
            raise UsageError("this method needs a caption", remedy="--caption TEXT, or a captions.jsonl")
        return {}
    if not wanted:
        print("zoo inpaint: this method reads no captions; --caption has no effect", file=sys.stderr)
    captions = read_captions(arguments.caption, {job.name: job.image.name for job in jobs})
    unknown = unknown_words(module.hparams, captions.values()) if wanted else []
    if unknown:
        some = ", ".join(unknown[:SHOWN]) + f" and {len(unknown) - SHOWN} more" * (len(unknown) > SHOWN)
        print(f"zoo inpaint: the captions have words that these weights do not know: {some}", file=sys.stderr)
    return captions


def _caption_files(text: str | None) -> list[Path]:
    """The file that `--caption` names; none where it is the caption itself (`read_captions`)."""
    return [Path(text)] if text is not None and Path(text).suffix in (".jsonl", ".txt") else []


def pair(image: Path, mask: Path, out: Path, samples: int = 1) -> list[Job]:
    """Which mask belongs to which image, and where the results go; everything is checked before any work.

    Args:
        image: A file, or a folder whose pictures are paired by their names without ending.
        mask: A file (for every image), or a folder.
        out: A folder.
        samples: Results of each image: NAME.png for one, NAME-1.png, NAME-2.png, ... for more. Two images never share
            a result, since what precedes the last hyphen is the name.

    Raises:
        DataError: Something is missing, or an image has no mask.
        UsageError: A result would overwrite an input.
    """
    for path, what in ((image, "image"), (mask, "mask")):
        if not path.exists():
            raise DataError(f"there is no {what} here", where=str(path), remedy="check the path")
    if out.is_file():
        raise UsageError("--out is a file", where=str(out), remedy="name a folder")
    images = pictures(image, leave_out=mask)
    masks = pictures(mask) if mask.is_dir() else dict.fromkeys(images, mask)
    if mask.is_dir() and image.is_file() and len(masks) == 1:
        masks = dict.fromkeys(images, *masks.values())
    without = sorted(images.keys() - masks.keys())
    if without:
        raise DataError(
            f"{len(without)} of {len(images)} images have no mask: {', '.join(without[:3])}",
            where=str(mask),
            remedy="a mask has its image's name, such as cat.png for cat.jpg",
        )
    endings = [""] if samples == 1 else [f"-{number}" for number in range(1, samples + 1)]
    jobs = [
        Job(name, path, masks[name], tuple(out / f"{name}{ending}.png" for ending in endings))
        for name, path in images.items()
    ]
    _spare([path for job in jobs for path in (job.image, job.mask)], jobs)
    return jobs


def _spare(files: Iterable[Path], jobs: Sequence[Job]) -> None:
    """Refuses results that would overwrite any of these files."""
    inputs = {path.resolve() for path in files}
    for result in (result for job in jobs for result in job.outs):
        if result.resolve() in inputs:
            raise UsageError("the result would overwrite an input", where=str(result), remedy="another --out")


def pictures(path: Path, leave_out: Path | None = None) -> dict[str, Path]:
    """Picture files by their relative path without ending."""
    from zoo.data.image import EXTENSIONS

    if path.is_file():
        return {path.stem: path}
    found: dict[str, Path] = {}
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if not file.is_file() or file.suffix.lower() not in EXTENSIONS or any(p.startswith(".") for p in inside.parts):
            continue
        if leave_out is not None and leave_out != path and file.is_relative_to(leave_out):
            continue
        name = inside.with_suffix("").as_posix()
        if name in found:
            raise DataError(f"two pictures have the name '{name}'", where=str(path), remedy="rename one of them")
        found[name] = file
    if not found:
        raise DataError("there are no pictures in this folder", where=str(path), remedy=" ".join(sorted(EXTENSIONS)))
    return found


def complete(
    module: InpaintingModule, job: Job, caption: str, arguments: Namespace, guides: Mapping[str, Path] = NOTHING
) -> None:
    """Completes one image and writes it; several samples have the seeds `--seed`, `--seed` + 1, ...

    Args:
        module: The method, in evaluation mode.
        job: The image.
        caption: What it shows.
        arguments: The command line.
        guides: Files of its edges and its segmentation, where they are given.

    Raises:
        DataError: The image or its mask cannot be used.
        OSError: A result cannot be written; nothing of it is left behind.
    """
    from zoo.data.image import read_image, read_mask

    image = read_image(job.image)
    size = (image.shape[0], image.shape[1])
    mask = read_mask(job.mask, size, threshold=arguments.mask_threshold, invert=arguments.invert_mask)
    maps = read_guides(guides, size)
    if arguments.size is not None:
        maps = {kind: scale_guide(kind, guide, arguments.size) for kind, guide in maps.items()}
        image, mask = scale(image, mask, arguments.size)
    for number, out in enumerate(job.outs):
        try:
            with module.sampling() if len(job.outs) > 1 else nullcontext():
                result = paint(module, job.name, image, mask, caption, arguments.seed + number, maps)
        except ZooError:
            raise
        except RuntimeError as error:
            if "out of memory" not in str(error).lower() and "can't allocate" not in str(error):
                raise
            remedy = f"scale it down: --size {module.size}"
            raise DataError("the image is too large for this machine's memory", str(job.image), remedy) from error
        save_png(result, out)


def scale(image: NDArray[np.uint8], mask: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scales an image and its mask so that the shorter side is `size`; nothing is cropped.

    Args:
        image: H x W x 3 uint8, scaled by antialiased bicubic as datasets are.
        mask: H x W in {0, 1}; a pixel is a hole if it overlaps any hole pixel.
        size: Pixels of the shorter side.
    """
    from dataclasses import replace

    from zoo.data.transforms import fit

    placed = fit(image.shape[0], image.shape[1], size)
    placed = replace(placed, top=0, left=0, size=placed.scaled)
    return placed.image(image), placed.mask(mask)


def scale_guide(kind: str, guide: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scales a map with its image (see `scale`): edges as masks are, class ids by the nearest.

    Args:
        kind: "edge" or "segmentation".
        guide: H x W uint8.
        size: Pixels of the shorter side.
    """
    from dataclasses import replace

    from zoo.data.transforms import fit

    placed = fit(guide.shape[0], guide.shape[1], size)
    placed = replace(placed, top=0, left=0, size=placed.scaled)
    return placed.mask(guide) if kind == "edge" else placed.labels(guide)


def paint(
    module: InpaintingModule,
    name: str,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    caption: str = "",
    seed: int = 0,
    guides: Guides = NOTHING,
) -> NDArray[np.uint8]:
    """The composite, H x W x 3 uint8; pixels outside the hole are the input's.

    Args:
        module: The method, in evaluation mode.
        name: Keys the method's noise, with `seed`.
        image: H x W x 3 uint8.
        mask: H x W in {0, 1}, 1 = hole.
        caption: What the image shows.
        seed: Another seed gives another completion, where the method draws noise.
        guides: H x W uint8: edges in {0, 1}, class ids; shown whole.
    """
    import torch

    from zoo.batch import Batch
    from zoo.compose import to_uint8

    if not mask.any():
        return image
    device = module.device
    batch = Batch(
        id=[name],
        image=(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255.0).to(device),
        mask=torch.from_numpy(mask.copy())[None, None].float().to(device),
    )
    if "caption" in module.needs:
        batch["caption"] = [caption]
    if "edge" in guides:
        batch["edge"] = torch.from_numpy(guides["edge"].copy())[None, None].float().to(device)
    if "segmentation" in guides:
        batch["segmentation"] = torch.from_numpy(guides["segmentation"].copy())[None].long().to(device)
    painted = (
        to_uint8(module.complete(batch, seed=seed, guidance=tuple(guides)).image)[0].permute(1, 2, 0).cpu().numpy()
    )
    return np.where(mask[:, :, None] > 0, painted, image).astype(np.uint8)
