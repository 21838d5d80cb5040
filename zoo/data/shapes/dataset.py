"""The dataset `shapes` under the contract of `zoo.data.base.Dataset`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import EditedCaption, ObjectRule, Sample
from zoo.data.shapes.captions import captions
from zoo.data.shapes.draw import boxes, draw, segmentation
from zoo.data.shapes.edits import EDITS, Case
from zoo.data.shapes.geometry import SHAPES
from zoo.data.shapes.judge import given_fidelity, judge_scene, removed_object
from zoo.data.shapes.scene import Scene, draw_scene
from zoo.errors import DataError, UsageError, unknown_name

DEFAULT_COUNTS: dict[str, int] = {"train": 20_000, "val": 256, "test": 512}
SMALLEST, LARGEST = 32, 512
_ID = re.compile(r"shapes/(train|val|test)/(\d{6,})")


class _Ids(Sequence[str]):
    """The ids of the first `count` scenes of a split, made when asked for."""

    def __init__(self, split: str, numbers: range) -> None:
        self._split, self._numbers = split, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> _Ids: ...
    def __getitem__(self, index: int | slice) -> str | _Ids:
        if isinstance(index, slice):
            return _Ids(self._split, self._numbers[index])
        return f"shapes/{self._split}/{self._numbers[index]:06d}"


class Shapes:
    """Procedural scenes of one to three objects on textured backgrounds, drawn on demand.

    A sample is a function of (split, index) and the size; the scene, its boxes (as fractions) and its captions are the
    same at every size, and whatever `count` is.

    Args:
        split: `train`, `val` or `test`.
        size: Side of the square images in pixels, 32 to 512.
        count: How many scenes; by default 20000 for training, 256 for validation, 512 for testing.
        root: Must be None: there is no folder to read.

    Raises:
        UsageError: An unknown split, a size or a count out of range, or a root.
    """

    name: ClassVar[str] = "shapes"
    object_rule: ClassVar[ObjectRule] = "grown"
    licence: ClassVar[str] = "drawn by this package, public domain (CC0)"
    caption_edits: ClassVar[tuple[str, ...]] = tuple(EDITS)

    def __init__(
        self, split: str = "train", size: int = 64, count: int | None = None, root: str | Path | None = None
    ) -> None:
        if split not in DEFAULT_COUNTS:
            raise unknown_name("split of shapes", split, list(DEFAULT_COUNTS))
        if not SMALLEST <= size <= LARGEST:
            raise UsageError(
                f"shapes are drawn at {SMALLEST} to {LARGEST} pixels a side, not {size}",
                where="size",
                remedy="choose another size, or other data",
            )
        if count is not None and count < 1:
            raise UsageError(f"shapes need a count of at least 1, not {count}", where="count")
        if root is not None:
            raise UsageError(
                "shapes are drawn on demand and have no folder",
                where=f"root = {root}",
                remedy="leave the root out, or choose the dataset `folder` to read your own images",
            )
        self.split, self.size = split, size
        self._ids = _Ids(split, range(DEFAULT_COUNTS[split] if count is None else count))

    @property
    def provides(self) -> frozenset[str]:
        """Every key of the contract; edges are computed from the image."""
        return frozenset({"image", "mask", "caption", "edge", "segmentation"})

    @property
    def classes(self) -> tuple[str, ...]:
        """`background` and the eight shapes; the index is the class id."""
        return ("background", *SHAPES)

    @property
    def ids(self) -> Sequence[str]:
        """`shapes/test/000000` and so on."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def scene(self, index: int) -> Scene:
        """The structured description of a scene, in fractions of the image's side.

        Raises:
            DataError: There is no such index.
        """
        if not 0 <= index < len(self):
            raise DataError(
                f"there is no scene {index}",
                where=f"shapes/{self.split}, {len(self)} scenes",
                remedy="choose an index below the count, or open the dataset with a larger count",
            )
        return draw_scene(self.split, index)

    def sample(self, index: int) -> Sample:
        """Draws a scene: image, six captions, boxes, supports and segmentation.

        Raises:
            DataError: There is no such index.
        """
        scene = self.scene(index)
        image, segments = draw(scene, self.size)
        return Sample(
            id=scene.id,
            image=image,
            captions=captions(scene),
            boxes=boxes(scene, self.size),
            segments=segments,
            segmentation=segmentation(scene, segments),
        )

    def edit_caption(
        self, edit: str, sample: Sample, caption: str, mask: NDArray[np.uint8], seed: int
    ) -> EditedCaption:
        """A caption that says something else of the removed object (see `zoo.data.shapes.edits`).

        Args:
            edit: One of `caption_edits`.
            sample: A sample of this dataset.
            caption: Its own caption.
            mask: size x size uint8 in {0, 1}, 1 = hole.
            seed: The seed of the plan.

        Raises:
            DataError: Not a sample of this dataset.
            UsageError: An unknown edit, or a hole that does not take exactly one whole object.
        """
        if edit not in EDITS:
            raise unknown_name("caption edit of shapes", edit, list(EDITS))
        scene = _scene(sample.id)
        removed = None if sample.segments is None else removed_object(sample.segments, mask)
        if removed is None:
            raise UsageError(
                "captions are edited only under object masks: this hole does not take exactly one whole object",
                where=sample.id,
                remedy="use the mask `object`, or captions of the images' own",
            )
        return EDITS[edit](Case(scene, caption, removed, seed, len(self)))

    def caption_texts(self) -> Iterator[str]:
        """The captions of the first 4000 scenes, undrawn: they hold every word there is. All 20000 take seconds."""
        for index in range(min(len(self), 4000)):
            yield from captions(self.scene(index))

    def judge(
        self, sample_id: str, composite: NDArray[np.uint8], mask: NDArray[np.uint8], caption: str | None = None
    ) -> dict[str, float]:
        """Caption fidelity of a composite (see `zoo.data.shapes.judge`).

        Args:
            sample_id: `shapes/test/000017`; any scene of any split, whatever the count of this dataset.
            composite: size x size x 3 uint8 sRGB.
            mask: size x size uint8 in {0, 1}, 1 = hole.
            caption: The text the method was given, where that is not the scene's own.

        Returns:
            `colour_fidelity` and `shape_fidelity`, 0 or 1, and `objects`, the number of objects in the scene; with a
            caption also `colour_given` and `shape_given`, 0 or 1, NaN where the caption names none that is not to be
            seen already. Empty where the hole does not take exactly one whole object.

        Raises:
            DataError: Not an id of this dataset, or arrays of another size or type.
        """
        scene = _scene(sample_id)
        wanted = (self.size, self.size)
        if composite.shape != (*wanted, 3) or composite.dtype != np.uint8 or mask.shape != wanted:
            raise DataError(
                f"the judge needs a uint8 composite {(*wanted, 3)} and a mask {wanted}, "
                f"not {composite.dtype} {composite.shape} and {mask.shape}",
                where=sample_id,
            )
        verdict = judge_scene(scene, composite, mask)
        if verdict is None:
            return {}
        fidelity = {
            "colour_fidelity": float(verdict.colour_fidelity),
            "shape_fidelity": float(verdict.shape_fidelity),
            "objects": float(verdict.objects),
        }
        return fidelity if caption is None else fidelity | given_fidelity(scene, verdict, caption)


def _scene(sample_id: str) -> Scene:
    """The scene of an id, whatever its split and however many scenes a dataset has."""
    found = _ID.fullmatch(sample_id)
    if found is None:
        raise DataError(f"'{sample_id}' is not an id of shapes", remedy="ids look like shapes/test/000017")
    return draw_scene(found[1], int(found[2]))
