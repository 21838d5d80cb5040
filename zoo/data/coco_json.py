"""COCO's annotation files, read into a compact form and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.karpathy import Described
from zoo.errors import DataError


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotated region.

    Attributes:
        box: x0 y0 x1 y1 in pixels of the whole image.
        category: COCO's category id.
        area: Its area in pixels; orders overlapping regions.
        crowd: Whether it is a crowd of things and no single object.
        outline: Its polygons or run lengths, as JSON text: a hundred thousand images' worth of Python floats would
            take gigabytes, and every worker process a copy.
    """

    box: tuple[float, float, float, float]
    category: int
    area: float
    crowd: bool
    outline: bytes

    def decode(self, height: int, width: int) -> NDArray[np.bool_]:
        """The region's pixels, `height` x `width` bool.

        Raises:
            ValueError: The outline is for an image of another size.
        """
        from pycocotools import mask as coco_mask

        outline = json.loads(self.outline)
        if isinstance(outline, list):
            if not outline:
                return np.zeros((height, width), np.bool_)
            runs = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
        elif outline["size"] != [height, width]:
            raise ValueError(f"run lengths for {outline['size']}, not {[height, width]}")
        elif isinstance(outline["counts"], list):
            if sum(outline["counts"]) != height * width:  # pycocotools would write past the end
                raise ValueError("run lengths that do not add up to the image")
            runs = coco_mask.frPyObjects(outline, height, width)
        else:
            runs = outline
        pixels: NDArray[np.bool_] = coco_mask.decode(runs).astype(np.bool_)
        return pixels


@dataclass(slots=True)
class Picture:
    """One image of the list, with its captions and regions; `part` is its folder, such as val2017."""

    file: str
    height: int
    width: int
    part: str
    captions: tuple[str, ...] = ()
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Annotations:
    """What a split's two annotation files say: pictures in order of image id, categories by id."""

    pictures: list[Picture]
    categories: dict[int, str]


def read_annotations(captions: Path, instances: Path, part: str) -> Annotations:
    """Reads `captions_*.json` and `instances_*.json` of one split.

    Args:
        captions: The file of the captions.
        instances: The file of the regions.
        part: The folder of the images, such as val2017.

    Raises:
        DataError: A file is missing or damaged, an annotation is for an image that is not listed or of a category
            that is not, or an image has no caption.
    """
    spoken = _read(captions)
    shown = _read(instances)
    pictures = _pictures(spoken, captions, part) | _pictures(shown, instances, part)
    if not pictures:
        raise DataError("the annotation file lists no images", where=str(captions))
    _add_captions(pictures, spoken, captions)
    categories = _categories(shown, instances)
    _add_shapes(pictures, shown, categories, instances)
    return Annotations([pictures[i] for i in sorted(pictures)], categories)


def read_described(described: Sequence[Described], splits: Path, instances: Mapping[str, Path]) -> Annotations:
    """The images of one of Karpathy's splits, with the regions that COCO's own files have of them.

    Args:
        described: The images with their captions.
        splits: The file that they are from, for errors.
        instances: `instances_*.json` by folder of the images.

    Raises:
        DataError: A file of regions is missing or damaged, or an image is not in it.
    """
    pictures: dict[int, Picture] = {}
    categories: dict[int, str] = {}
    for part, path in instances.items():
        shown = _read(path)
        found = _pictures(shown, path, part)
        categories |= _categories(shown, path)
        _add_shapes(found, shown, categories, path)
        wanted = {picture.number: picture for picture in described if picture.folder == part}
        _check_known(wanted, found, "captions", splits)
        for number, picture in wanted.items():
            pictures[number] = found[number]
            pictures[number].captions = picture.captions
    if not pictures:
        raise DataError("no image is of this split", where=str(splits), remedy="unpack or download it again")
    return Annotations([pictures[i] for i in sorted(pictures)], categories)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"{path.name} is missing", where=str(path.parent), remedy="'zoo data info coco' says what is needed"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path.name} is no valid JSON: {error}", where=str(path), remedy="unpack or download it again"
        ) from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise _damaged(path, f"it has no list '{key}'")
    return dict(content)


def _pictures(content: dict[str, Any], path: Path, part: str) -> dict[int, Picture]:
    try:
        return {
            int(entry["id"]): Picture(str(entry["file_name"]), int(entry["height"]), int(entry["width"]), part)
            for entry in content["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"an image has no usable {error}") from error


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    try:
        return {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its categories have no usable {error}") from error


def _add_captions(pictures: dict[int, Picture], content: dict[str, Any], path: Path) -> None:
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for entry in content["annotations"]:
            found.setdefault(int(entry["image_id"]), []).append((int(entry["id"]), str(entry["caption"]).strip()))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"a caption has no usable {error}") from error
    _check_known(found, pictures, "captions", path)
    silent = [picture.file for i, picture in pictures.items() if i not in found]
    if silent:
        raise DataError(
            f"{len(silent)} images have no caption: {', '.join(silent[:3])}",
            where=str(path),
            remedy="captions and instances must be of the same split and year",
        )
    for image, captions in found.items():
        pictures[image].captions = tuple(text for _, text in sorted(captions))


def _add_shapes(pictures: dict[int, Picture], content: dict[str, Any], categories: dict[int, str], path: Path) -> None:
    found: dict[int, list[Shape]] = {}
    for entry in content["annotations"]:
        try:
            x, y, width, height = (float(v) for v in entry["bbox"])
            shape = Shape(
                box=(x, y, x + width, y + height),
                category=int(entry["category_id"]),
                area=float(entry.get("area", width * height)),
                crowd=bool(entry.get("iscrowd", 0)),
                outline=json.dumps(entry["segmentation"], separators=(",", ":")).encode(),
            )
            image = int(entry["image_id"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"annotation {_id(entry)} has no usable {error}") from error
        if shape.category not in categories:
            raise _damaged(path, f"annotation {_id(entry)} is of category {shape.category}, which is not listed")
        found.setdefault(image, []).append(shape)
    _check_known(found, pictures, "instances", path)
    for image, shapes in found.items():
        pictures[image].shapes = shapes


def _check_known(found: dict[int, Any], pictures: dict[int, Picture], what: str, path: Path) -> None:
    unknown = sorted(set(found) - set(pictures))
    if unknown:
        raise DataError(
            f"{len(unknown)} image ids have {what} but are not in the list of images: {unknown[:3]}",
            where=str(path),
            remedy="captions and instances must be of the same split and year",
        )


def _id(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else entry


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(f"{path.name} is damaged: {detail}", where=str(path), remedy="unpack or download it again")
