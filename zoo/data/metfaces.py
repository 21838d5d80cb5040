"""MetFaces: faces from works of art of the Metropolitan Museum, in the layout of its folder on Google Drive.

    ROOT/metfaces.json               which face is of which work
    ROOT/images/11713-00.png ..      1,336 images of 1024 x 1024 pixels: work, number of the face in it

There is no official split. MMInvertFill trains on 1,000 and tests on 336 without saying which. Here the works are put
in the order of a keyed hash of their number; the faces of the first ones, 336 of 1,336, are val and test, the others
train. This depends on metfaces.json alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from zoo.data.annotation_files import check_present, read_json
from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image
from zoo.data.listing import UNPACK_AGAIN, damaged
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError
from zoo.keyed import key

ALL, TESTED = 1_336, 336
LICENCE = "CC BY-NC 2.0 (NVIDIA); the works of art CC0"
PAGE = "https://drive.google.com/open?id=1w-Os4uERBmXwCm7Oo_kW6X3Sd2YHpJMC"
DOWNLOAD = (
    "from https://github.com/NVlabs/metfaces-dataset get metfaces.json (1.8 MB) and images (1.6 GB), put both into one"
    " folder, and name it with --data.root DIR (root= in Python), or have it as $ZOO_DATA/metfaces"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


class MetFaces:
    """Faces in paintings, drawings and sculptures, without captions, boxes or segmentation, in order of their names.

    Args:
        split: "train", "val", or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/metfaces` or `data/metfaces`.

    Raises:
        DataError: The folder or metfaces.json is missing or damaged, or images that it lists are absent.
    """

    name: ClassVar[str] = "metfaces"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = {"train": ALL - TESTED, "val": TESTED, "test": TESTED}
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            what="list of the faces",
            url="https://drive.google.com/open?id=1o11-JkkwBbZW61w03O7qGrhkydNALDSH",
            size=1_800_000,
            licence=LICENCE,
            note="download it in a browser into the root",
            saved_as="metfaces.json",
            makes=("metfaces.json",),
        ),
        Source(
            what="aligned images",
            url="https://drive.google.com/open?id=1iChdwdW7mZFUyivKtDwL8ehCNhYKQz6D",
            size=1_600_000_000,
            licence=LICENCE,
            note=f"download the folder in a browser into the root (all of the dataset: {PAGE})",
            saved_as="images",
            makes=("images",),
        ),
    )

    def __init__(
        self, split: str = "train", size: int | None = 256, count: int | None = None, root: str | Path | None = None
    ) -> None:
        self.root = default_root(self.name) if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no MetFaces folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.part = "train" if split == "train" else "test"
        self.shared_files: tuple[Path, ...] = (self.root / "metfaces.json",)
        tested = _tested(_faces(*self.shared_files))
        self.names = sorted(file for file, is_tested in tested.items() if is_tested == (self.part == "test"))[:count]
        if not self.names:
            raise DataError(f"metfaces.json lists too few images for split '{split}'", str(self.root), DOWNLOAD)
        check_present(self.names, self.root / "images", "images", UNPACK_AGAIN)
        self._ids = [f"{self.name}/{self.part}/{PurePosixPath(name).stem}" for name in self.names]

    @property
    def official(self) -> int | None:
        """How many images this split holds: 1,336 are published, and parted by the rule of the module."""
        return self.counts[self.split]

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "edge"})

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self.names)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image file at a position."""
        return (self.root / "images" / self.names[index],)

    def sample(self, index: int) -> Sample:
        """The face at a position, resized.

        Raises:
            DataError: The image cannot be read, or is not square.
        """
        image = read_image(*self.files(index))
        height, width = image.shape[:2]
        if height != width:
            raise DataError(
                f"the image is {width}x{height}, not square",
                where=str(self.files(index)[0]),
                remedy="use the aligned images (images), not the unprocessed ones",
            )
        placed = fit(height, width, self.size)
        return Sample(id=self._ids[index], image=placed.image(image))


def _faces(path: Path) -> dict[str, str]:
    """File name of each face, below `images`, to the number of the work it is from."""
    entries: Any = read_json(path, DOWNLOAD)
    if not isinstance(entries, list) or not entries:
        raise damaged(path, "it is no list of faces")
    found: dict[str, str] = {}
    for number, entry in enumerate(entries):
        try:
            place, work = PurePosixPath(entry["image_path"]), str(entry["obj_id"])
        except (KeyError, TypeError) as error:
            raise damaged(path, f"face {number} has no usable {error}") from error
        if place.parent != PurePosixPath("images") or place.suffix != ".png":
            raise damaged(path, f"face {number} is not images/NAME.png but {place}")
        if place.name in found:
            raise damaged(path, f"it lists {place} twice")
        found[place.name] = work
    return found


def _tested(faces: Mapping[str, str]) -> dict[str, bool]:
    """Whether each face is of the test split: 336 of 1,336, and of fewer the same share."""
    order = sorted(faces, key=lambda file: (key("metfaces", faces[file]), faces[file], file))
    tested = set(order[: round(len(order) * TESTED / ALL)])
    return {file: file in tested for file in faces}
