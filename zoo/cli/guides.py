"""The guidance of `zoo inpaint`: edge maps and segmentations that a user drew, paired with their images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, UsageError

if TYPE_CHECKING:
    from zoo.cli.inpaint import Job
    from zoo.module import InpaintingModule

Guides = Mapping[str, NDArray[np.uint8]]


def pair_guides(given: Mapping[str, str | None], jobs: Sequence[Job]) -> dict[str, dict[str, Path]]:
    """The guidance files of every image, by the image's name and then by kind.

    Args:
        given: Per kind ("edge", "segmentation") a file, for one image, or a folder whose pictures have the images'
            names without ending. An image that a folder has nothing for is completed without that guidance.
        jobs: The images.

    Raises:
        DataError: A path leads nowhere, or nothing in a folder belongs to any image.
        UsageError: One file for several images.
    """
    from zoo.cli.inpaint import pictures

    found: dict[str, dict[str, Path]] = {job.name: {} for job in jobs}
    for kind, text in given.items():
        if text is None:
            continue
        path = Path(text)
        if not path.exists():
            raise DataError(f"there is no {kind} here", where=text, remedy="check the path")
        if path.is_file() and len(jobs) > 1:
            raise UsageError(f"one {kind} for {len(jobs)} images", where=text, remedy="name a folder")
        maps = {jobs[0].name: path} if path.is_file() else pictures(path)
        if len(jobs) == 1 and len(maps) == 1:
            maps = dict.fromkeys(found, *maps.values())
        if not maps.keys() & found.keys():
            remedy = f"a {kind} has its image's name, such as cat.png for cat.jpg"
            raise DataError(f"no {kind} here belongs to any of the {len(jobs)} images", where=text, remedy=remedy)
        for name in maps.keys() & found.keys():
            found[name][kind] = maps[name]
    return found


def check_guides(kinds: Collection[str], module: InpaintingModule, method: str) -> None:
    """Refuses guidance that a method does not read: it would have no effect.

    Raises:
        UsageError: As said.
    """
    for kind in sorted(set(kinds) - module.uses - module.needs):
        raise UsageError(
            f"'{method}' reads no {kind}", where=f"--{kind}", remedy="leave it out, or see `uses` in zoo list models"
        )


def read_guides(paths: Mapping[str, Path], size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    """The guidance of one image, H x W uint8 each: edges in {0, 1}, white being the edge; class ids, 255 = unknown.

    Args:
        paths: Files by kind.
        size: Height and width of the image, which the maps must have.

    Raises:
        DataError: A map cannot be read, or has another size.
    """
    from zoo.data.image import read_mask, read_segmentation

    made = {}
    if "edge" in paths:
        made["edge"] = read_mask(paths["edge"], size, threshold=128, invert=False, what="edge")
    if "segmentation" in paths:
        made["segmentation"] = read_segmentation(paths["segmentation"], size)
    return made
