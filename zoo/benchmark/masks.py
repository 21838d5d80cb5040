"""The masks of a run: made once into the run folder, before any method runs, and shared by all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.plan import Plan
from zoo.benchmark.store import storing
from zoo.data.base import Dataset
from zoo.errors import DataError, UsageError, ZooError
from zoo.masks import draw_mixture, parse_mixture
from zoo.masks.manifest import Entry, Manifest, read, verify, write

FILE = "masks.jsonl.gz"
TRIED = 64
OF_OBJECTS = ("object", "instance")


def check_drawable(data: Dataset, mask: str, seed: int) -> None:
    """Tries a mask on the first images, so that what can work for none is said before any work.

    One image that can have it is enough, and images that cannot be read do not count: rows will say what is wrong.

    Args:
        data: The images.
        mask: The kind, or mixture.
        seed: The seed of the masks.

    Raises:
        UsageError: It cannot be drawn for any of them, or it is of objects and none of them has any: every mask would
            be the centre's.
    """
    from zoo.data.masked import canvas_of

    mixture = parse_mixture(mask)
    named = next((kind for kind in mixture.kinds if kind.partition(":")[0] in OF_OBJECTS), None)
    problem, read, drawn, peopled = None, 0, False, named is None
    for index in range(min(TRIED, len(data))):
        with suppress(Exception):
            canvas = canvas_of(data, data.sample(index))
            read += 1
            try:
                draw_mixture(mixture, canvas, seed)
            except ZooError as error:
                problem = problem or error
            else:
                drawn, peopled = True, peopled or len(canvas.boxes) > 0
        if drawn and peopled:
            return
    if problem is not None and not drawn:
        raise UsageError(problem.what, problem.where, problem.remedy)
    if drawn:
        what = f"none of the first {read} images of '{data.name}' has an object: masks '{named}' would be the centre's"
        remedy = "--mask center, freeform, or file for your own masks; see zoo list masks"
        raise UsageError(what, f"mask {mask}", remedy)


def covers(path: str | Path, ids: Sequence[str], mask: str, mask_seed: int, size: int) -> str:
    """What keeps a manifest from serving these images; empty where it does.

    Args:
        path: The manifest.
        ids: The images of a plan.
        mask: The kind, or mixture, that is asked for.
        mask_seed: Its seed.
        size: Height and width of the images.

    Raises:
        DataError: The manifest cannot be read, or a mask in it is damaged.
    """
    problems = verify(path)
    if problems:
        raise DataError(f"{len(problems)} damaged masks, the first: {problems[0]}", str(path), "make it again")
    manifest = read(path)
    if (manifest.kind, manifest.seed) != (mask, mask_seed):
        return f"it holds '{manifest.kind}' masks with seed {manifest.seed}, not '{mask}' with seed {mask_seed}"
    missing = [sample for sample in ids if sample not in manifest.entries]
    if missing:
        return f"it lacks {len(missing)} of {len(ids)} images, the first {missing[0]}"
    wrong = next((sample for sample in ids if manifest.entries[sample].size != (size, size)), None)
    return f"the mask of {wrong} is of another size than {size} x {size}" if wrong else ""


def ensure_masks(folder: Path, plan: Plan) -> None:
    """Writes the masks of a plan into its run folder, where they are not there yet.

    They come from the plan's manifest, or are drawn. An image that cannot be read has none, and is tried again at the
    next call.

    Raises:
        DataError: The manifest has changed since the plan was made, the masks in the folder are damaged, or the disk is
            full.
    """
    from zoo.data import open_dataset
    from zoo.weights import sha256

    path = folder / FILE
    entries = dict(read(path).entries) if path.exists() else {}
    if len(entries) == plan.count:
        return
    data = open_dataset(
        plan.dataset, split=plan.split, size=plan.size, root=plan.root, count=plan.count, **plan.data_options
    )
    ids = list(data.ids)[: plan.count]
    if plan.manifest_sha256:
        if not Path(plan.manifest).is_file() or sha256(plan.manifest) != plan.manifest_sha256:
            raise DataError("the manifest has changed since the plan was made", plan.manifest, "start the run again")
        given = read(plan.manifest).entries
        entries = {sample: given[sample] for sample in ids if sample in given}
    else:
        from zoo.data.masked import canvas_of

        mixture = parse_mixture(plan.mask)
        for index, sample in enumerate(ids):
            if sample not in entries:
                with suppress(Exception):  # its rows will say why: `loop.Reader` meets the same error
                    canvas = canvas_of(data, data.sample(index))
                    entries[sample] = Entry.of(sample, draw_mixture(mixture, canvas, plan.mask_seed))
    ordered = {sample: entries[sample] for sample in ids if sample in entries}
    with storing(path):
        write(path, Manifest(plan.dataset, plan.split, plan.mask, plan.mask_seed, ordered))


class Masks(Mapping[str, NDArray[np.uint8]]):
    """The masks of a manifest by id, H x W uint8, decoded when asked for."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def __getitem__(self, sample: str) -> NDArray[np.uint8]:
        return self.manifest.entries[sample].mask()

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.entries)

    def __len__(self) -> int:
        return len(self.manifest.entries)


def read_masks(folder: Path) -> Masks:
    """The masks of a run folder, in the order of its images.

    Raises:
        DataError: There are none, or the file is damaged.
    """
    return Masks(read(Path(folder) / FILE))
