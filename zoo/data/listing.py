"""What datasets check alike: variants, folders, lists of files, and boxes around regions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.annotation_files import read_text
from zoo.data.image import EXTENSIONS
from zoo.errors import DataError, unknown_name

UNPACK_AGAIN = "unpack the archive of the images again, or ask for fewer (count takes the first ones)"


def check_variant(dataset: str, variant: str, known: Collection[str]) -> str:
    """A dataset's `variant`, if it is one of those known.

    Raises:
        UsageError: It is not.
    """
    if variant not in known:
        raise unknown_name(f"variant of {dataset}", variant, list(known))
    return variant


def first_folder(candidates: Sequence[Path], what: str, remedy: str) -> Path:
    """The first of some folders that is there.

    Args:
        candidates: Where it may be, the documented place first.
        what: What it holds, for the error.
        remedy: What to do where none is there.

    Raises:
        DataError: None of them is.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(f"the folder of {what}, '{candidates[0].name}', is missing", str(candidates[0]), remedy)


def file_names(folder: Path) -> set[str]:
    """The names of what lies in a folder, none of them looked at: quick for a hundred thousand."""
    return {entry.name for entry in os.scandir(folder)}


def pictures(folder: Path, remedy: str) -> dict[str, Path]:
    """Pictures of one folder by their name without ending, in order of it; folders below and other files are passed by.

    Raises:
        DataError: There are none, or two of one name.
    """
    found: dict[str, Path] = {}
    for name in sorted(file_names(folder)):
        path = folder / name
        if path.suffix.lower() not in EXTENSIONS or name.startswith("."):
            continue
        if path.stem in found:
            raise DataError(
                f"two pictures have the name '{path.stem}': {found[path.stem].name} and {name}",
                where=str(folder),
                remedy="remove one of them; the name without ending is the id",
            )
        found[path.stem] = path
    if not found:
        raise DataError("there are no images in this folder", where=str(folder), remedy=remedy)
    return dict(sorted(found.items()))


def check_pairs(images: Mapping[str, object], annotations: Collection[str], where: Path, remedy: str) -> None:
    """Checks that every image has its annotation, and every annotation its image.

    Args:
        images: Images by the name that their annotations have too.
        annotations: Names of annotations.
        where: The folder of the annotations, for the error.
        remedy: What to do.

    Raises:
        DataError: Some have none.
    """
    without = [name for name in images if name not in annotations]
    unknown = sorted(set(annotations) - set(images))
    for names, problem in ((without, "images have no annotation"), (unknown, "annotations are of no image")):
        if names:
            raise DataError(f"{len(names)} {problem}: {', '.join(names[:3])}", where=str(where), remedy=remedy)


def read_lines(path: Path, remedy: str) -> list[str]:
    """The lines of a list, without empty ones.

    Raises:
        DataError: It is missing, no text, or empty.
    """
    lines = [line for line in read_text(path, remedy).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path.name} is empty", where=str(path), remedy=remedy)
    return lines


def damaged(path: Path, detail: str) -> DataError:
    """The error for a list that is not as it should be: `detail` says how, and where in it."""
    return DataError(f"{path.name} is damaged: {detail}", where=str(path), remedy="unpack or download it again")


def read_numbers(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
    """A greyscale picture of 8 or 16 bits whose levels are numbers and no brightness, such as ids of instances.

    Args:
        path: The file.
        size: Height and width it must have, those of its image.

    Returns:
        H x W int32 in 0..65535.

    Raises:
        DataError: The file is missing, damaged, in colour, of more than 16 bits, or of another size than its image.
    """
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            numbers = np.asarray(opened).astype(np.int32)
    except Exception as error:  # decoders raise whatever a damaged file provokes
        raise DataError(
            f"the numbers of this annotation cannot be read: {error}", str(path), "replace this file"
        ) from error
    if mode not in ("L", "I", "I;16", "I;16B") or numbers.min() < 0 or numbers.max() > 65535:
        raise DataError(
            f"the annotation is a picture of mode {mode}, which has no numbers of 16 bits", str(path), "replace it"
        )
    if numbers.shape != tuple(size):
        raise DataError(
            f"the annotation is {numbers.shape[1]}x{numbers.shape[0]}, its image {size[1]}x{size[0]} (width x height)",
            where=str(path),
            remedy="use images and annotations as they are published, not resized ones",
        )
    return numbers


def tight_box(region: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box around a region, H x W bool: x0 y0 x1 y1 in pixels, the last row and column excluded; 0 where empty."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
