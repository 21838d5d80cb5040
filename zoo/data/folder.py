"""Your own pictures: a folder of images, with optional masks and captions.

    ROOT/*.jpg, *.png, ...          images; folders below are read too (hidden ones and masks/ are not)
    ROOT/masks/*.png                optional masks, one for each image by the same name without ending
    ROOT/captions.jsonl             optional, one line an image: {"file": "cat.jpg", "caption": "a cat"}
                                    or {"file": "cat.jpg", "captions": ["a cat", "a grey cat"]}

Where ROOT has folders train, val or test, each split is read from its own, with masks/ and captions.jsonl in it.
Otherwise every split is all of ROOT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.data.base import SPLITS, ObjectRule, Sample
from zoo.data.image import EXTENSIONS, read_image, read_mask
from zoo.data.transforms import fit
from zoo.errors import DataError, UsageError

MASKS, CAPTIONS = "masks", "captions.jsonl"
LAYOUT = (__doc__ or "").strip()


class Folder:
    """Images of a folder, in order of their names; ids are `folder/SPLIT/name`, without ending.

    Args:
        split: "train", "val" or "test": the folder of that name, where there is one.
        size: Shorter side and centre crop in pixels; None keeps each image's own size, as `zoo inpaint` does.
        count: At most so many images, the first ones; None is all.
        root: The folder.
        mask_root: Where the masks are; None is `masks` in it. Named, it must hold one for every image.
        mask_threshold: See `zoo.data.image.read_mask`.
        mask_invert: See `zoo.data.image.read_mask`.

    Attributes:
        skipped: How many files have an ending that is no picture's.

    Raises:
        DataError: No folder, no images, two images of one name, images without mask or caption where others have
            one, captions of no image, or a damaged captions file.
        UsageError: `root` is not given.
    """

    name: ClassVar[str] = "folder"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = "yours"
    layout: ClassVar[str] = LAYOUT

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        mask_root: str | Path | None = None,
        mask_threshold: int | None = None,
        mask_invert: bool | None = None,
    ) -> None:
        if root is None:
            raise UsageError("dataset 'folder' needs a folder", remedy="name it: --data.root DIR")
        if not Path(root).is_dir():
            raise DataError("there is no such folder", where=str(root), remedy="check the path")
        self.root = Path(root)
        self.split, self.folder = _place(self.root, split)
        self.size, self.threshold, self.invert = size, mask_threshold, mask_invert
        masks = self.folder / MASKS if mask_root is None else Path(mask_root)
        named, self.skipped = _images(self.folder, masks)
        self.masks = _masks(named, masks, required=mask_root is not None)
        self.captions = _captions(named, self.folder)
        self._images = dict(sorted(named.items())[:count])
        self._names = list(self._images)
        self._ids = [f"folder/{self.split}/{name}" for name in self._names]

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "edge"} | ({"caption"} if self.captions else set()))

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, index: int) -> Sample:
        """The image at a position, with its mask and captions, resized and cropped.

        Raises:
            DataError: The image or the mask cannot be used; see `read_image` and `read_mask`.
        """
        name = self._names[index]
        image = read_image(self._images[name])
        placed = fit(image.shape[0], image.shape[1], self.size)
        mask = None
        if name in self.masks:
            size = (image.shape[0], image.shape[1])
            whole = read_mask(self.masks[name], size, threshold=self.threshold, invert=self.invert)
            mask = placed.mask(whole)
        captions = self.captions.get(name, ())
        return Sample(id=self._ids[index], image=placed.image(image), captions=captions, mask=mask)

    @property
    def shared_files(self) -> tuple[Path, ...]:
        """The captions."""
        return (self.folder / CAPTIONS,) if self.captions else ()

    def files(self, index: int) -> tuple[Path, ...]:
        """The image at a position, and its mask where it has one."""
        name = self._names[index]
        return (self._images[name], *([self.masks[name]] if name in self.masks else []))

    def caption_texts(self) -> Iterator[str]:
        """Every caption of every image, without reading one; see `InpaintingData.captions`."""
        for name in self._names:
            yield from self.captions.get(name, ())


def _place(root: Path, split: str) -> tuple[str, Path]:
    present = [name for name in SPLITS if (root / name).is_dir()]
    if split in present:
        return split, root / split
    if present:
        raise DataError(
            f"the folder has {' and '.join(present)}, but no '{split}'",
            where=str(root),
            remedy=f"add a folder '{split}', or put all images into one folder without splits",
        )
    return "all", root


def _pictures(folder: Path, masks: Path | None = None) -> tuple[dict[str, Path], int]:
    """Pictures below a folder by their relative name without ending, and how many other files there are.

    Hidden files and what lies below `masks` are not looked at.
    """
    found: dict[str, Path] = {}
    skipped = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or not path.is_file() or (masks is not None and path.is_relative_to(masks)):
            continue
        name = inside.with_suffix("").as_posix()
        if path.suffix.lower() not in EXTENSIONS:
            skipped += inside.as_posix() != CAPTIONS
        elif name in found:
            raise DataError(
                f"two pictures have the name '{name}': {found[name].name} and {path.name}",
                where=str(folder),
                remedy="rename one of them; the name without ending is the id",
            )
        else:
            found[name] = path
    return found, skipped


def _images(folder: Path, masks: Path) -> tuple[dict[str, Path], int]:
    found, skipped = _pictures(folder, masks)
    if not found:
        raise DataError(
            f"there are no images in this folder ({skipped} files of other kinds)",
            where=str(folder),
            remedy=f"images end in one of {' '.join(sorted(EXTENSIONS))}",
        )
    return found, skipped


def _masks(images: dict[str, Path], folder: Path, *, required: bool) -> dict[str, Path]:
    if not folder.is_dir():
        if required:
            raise DataError("there is no folder of masks here", where=str(folder), remedy="check mask_root")
        return {}
    masks, _ = _pictures(folder)
    without = sorted(set(images) - set(masks))
    if without:
        raise DataError(
            f"{len(without)} of {len(images)} images have no mask: {', '.join(without[:3])}",
            where=str(folder),
            remedy="a mask has its image's name, such as masks/cat.png for cat.jpg; or take the folder away",
        )
    return {name: masks[name] for name in images}


def _captions(images: dict[str, Path], folder: Path) -> dict[str, tuple[str, ...]]:
    path = folder / CAPTIONS
    if not path.is_file():
        return {}
    by_file = {file.relative_to(folder).as_posix(): name for name, file in images.items()}
    captions: dict[str, tuple[str, ...]] = {}
    unknown = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        file, texts = _caption(line, f"{path}, line {number}")
        name = by_file.get(file, file)
        if name not in images:
            unknown.append(file)
        captions[name] = captions.get(name, ()) + texts
    without = sorted(set(images) - set(captions))
    for names, problem in ((unknown, "captions are of no image"), (without, "images have no caption")):
        if names:
            raise DataError(
                f"{len(names)} {problem}: {', '.join(names[:3])}",
                where=str(path),
                remedy="one line for every image, by its file name; or take the file away",
            )
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the captions cannot be read: {error}", where=str(path), remedy="save them as UTF-8"
        ) from error


def _caption(line: str, where: str) -> tuple[str, tuple[str, ...]]:
    try:
        entry: Any = json.loads(line)
        file = entry["file"]
        texts = entry["captions"] if "captions" in entry else [entry["caption"]]
        if not isinstance(file, str) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise ValueError("file and captions must be text that is not empty")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"this line is no caption: {error}", where=where, remedy='write {"file": "cat.jpg", "caption": "a cat"}'
        ) from error
    return file, tuple(t.strip() for t in texts)
