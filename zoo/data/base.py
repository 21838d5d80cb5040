"""What a dataset is: an ordered list of ids, and one `Sample` per id, already at the size asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError

ObjectRule = Literal["largest", "grown"]
SPLITS = ("train", "val", "test")
GUIDES = ("edge", "segmentation")
"""The guidance that a method may take beside the image, by its key in a batch."""
OWN = "own"
"""The caption rule that edits nothing."""


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Sample:
    """One image with its annotations, before masking and collation.

    Attributes:
        id: Stable and qualified, `dataset/split/name`.
        image: H x W x 3 uint8 RGB.
        captions: All captions of the image; empty where the dataset has none.
        boxes: N x 4 float32, x0 y0 x1 y1 in pixels of `image`.
        segments: N x H x W bool, one instance mask per box, or None.
        segmentation: H x W uint8 class ids, 255 = unknown, or None.
        mask: H x W uint8 in {0, 1}, 1 = hole: the user's own mask, or None.
    """

    id: str
    image: NDArray[np.uint8]
    captions: tuple[str, ...] = ()
    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    segments: NDArray[np.bool_] | None = None
    segmentation: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None


def check_text(text: str, where: str) -> None:
    """Refuses text that no file can hold: half of an emoji in a caption, a file name in another encoding than UTF-8.

    Raises:
        DataError: The text has such characters.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"this is no Unicode text: {text!a}", where, "write it anew in UTF-8, or rename the file")


class EditedCaption(NamedTuple):
    """What became of a caption.

    Attributes:
        text: The caption to give.
        reason: Why it could not be edited, and `text` is the image's own; empty where it was edited.
    """

    text: str
    reason: str = ""


class Dataset(Protocol):
    """An image dataset of the zoo.

    Attributes:
        name: The short name; the first part of every id.
        provides: Which of `zoo.batch.KEYS` it can fill, `image` always.
        object_rule: How `object` masks choose: the `largest` qualifying box, or a keyed one with `grown` margins.
        classes: Names of the segmentation classes, index = class id; empty where there are none.
        licence: Under which terms the images may be used, one line.
    """

    name: ClassVar[str]
    object_rule: ClassVar[ObjectRule]
    licence: ClassVar[str]

    @property
    def provides(self) -> frozenset[str]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """The sample at a position, resized and cropped to the dataset's size.

        Raises:
            DataError: The image or its annotation cannot be read; the message names the file.
        """
        ...


class Judge(Protocol):
    """Optional method `judge` of a dataset: what it can say of a completed image by itself."""

    def __call__(
        self, sample_id: str, composite: NDArray[np.uint8], mask: NDArray[np.uint8], caption: str | None = None
    ) -> dict[str, float]:
        """Metrics of a composite, NaN where one does not apply, and `objects`, a count; empty where nothing applies.

        Args:
            sample_id: The image's id.
            composite: H x W x 3 uint8.
            mask: H x W uint8 in {0, 1}, 1 = hole.
            caption: The text the method was given, where that is not the image's own. Only a dataset that edits
                captions is asked with one.
        """
        ...


class CaptionEditor(Protocol):
    """Captions that say something else than the picture: optional half of a dataset whose every sample has a caption.

    For a dataset without it `zoo.data.caption_edits.WordEditor` edits words.

    Attributes:
        caption_edits: The names of the edits it knows, besides `own`.
    """

    caption_edits: ClassVar[tuple[str, ...]]

    def edit_caption(
        self, edit: str, sample: Sample, caption: str, mask: NDArray[np.uint8], seed: int
    ) -> EditedCaption:
        """The caption to give in place of an image's own, keyed by the seed and the id.

        Args:
            edit: One of `caption_edits`.
            sample: The image.
            caption: Its own caption.
            mask: H x W uint8 in {0, 1}, 1 = hole: an `object` mask.
            seed: The seed of the plan.

        Raises:
            UsageError: The hole does not take exactly one whole object.
        """
        ...
