"""OST, the outdoor scenes of SFTGAN: seven categories, with maps of eight classes, unpacked from its archives.

    ROOT/OutdoorSeg/images/*.jpg                      OutdoorSeg_img.zip, 9,900 images
    ROOT/OutdoorSeg/annotations/*.png                 OutdoorSeg_anno.zip, maps by the names of their images
    ROOT/OutdoorSceneTest300/OST_001.png ..           OST300_img.zip, 300 images
    ROOT/OutdoorSceneTest300_anno/OST_001.png ..      OST300_anno.zip (or in ROOT/OutdoorSceneTest300)
    ROOT/OutdoorSceneTrain_v2/animal/*.png ..         variant scenes alone, an archive a category: animal building grass
                                                      mountain plant sky water, 10,324 images

The dataset's own notes name the archives, counts and classes, but no folders; so each of these may have one of its own
name in it. Variant `segmentation` trains on OutdoorSeg (from ADE20K, Flickr and COCO), as papers do that guide by
segmentation. Variant `scenes` trains on OutdoorSceneTrain_v2, which has no maps, and so tests without them too. Splits
val and test are both the 300 test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zoo.data.base import ObjectRule, Sample
from zoo.data.image import read_image, read_segmentation
from zoo.data.listing import check_pairs, check_variant, first_folder, pictures
from zoo.data.roots import default_root
from zoo.data.sources import Source
from zoo.data.transforms import fit
from zoo.errors import DataError

CLASSES = ("background", "sky", "water", "grass", "mountain", "building", "plant", "animal")
CATEGORIES = ("animal", "building", "grass", "mountain", "plant", "sky", "water")
UNKNOWN = 255
VOID = 8  # the notes say "255(8)": files have the one or the other
OFFICIAL = {
    "segmentation": {"train": 9_900, "val": 300, "test": 300},
    "scenes": {"train": 10_324, "val": 300, "test": 300},
}
PAGE = "https://drive.google.com/drive/folders/1LIb631GU3bOyQVTeuALesD8_eoApNniB"
LICENCE = "none stated (images from search engines, ADE20K, Flickr and COCO); for research"
DOWNLOAD = (
    f"from {PAGE} get OutdoorSeg_img.zip, OutdoorSeg_anno.zip, OST300_img.zip and OST300_anno.zip (variant scenes: the"
    " archives of OutdoorSceneTrain_v2 in place of OutdoorSeg), unpack them as `zoo data prepare ost` says, and name"
    " the folder with --data.root DIR (root= in Python), or have it as $ZOO_DATA/ost"
)
LAYOUT = f"{(__doc__ or '').strip()}\n\n{DOWNLOAD}"


def _archive(file: str, what: str, place: str) -> Source:
    note = "download it in a browser into the root; zoo data prepare unpacks it"
    places = (place, f"OutdoorSceneTest300/{place}") if place.endswith("300_anno") else (place,)
    return Source(what=what, url=PAGE, size=0, licence=LICENCE, unpack_to=place, note=note, saved_as=file, makes=places)


class OutdoorScenes:
    """Outdoor scenes, with a map of eight classes in variant `segmentation`. Samples are in order of their names.

    Args:
        split: "train", "val", or "test" (which is val).
        size: Shorter side and centre crop in pixels; None keeps each image's own size.
        count: At most so many images, the first ones; None is all.
        root: The folder; None is `$ZOO_DATA/ost` or `data/ost`.
        variant: "segmentation" or "scenes".

    Raises:
        DataError: A folder is missing or holds no images, an image has no annotation, or an annotation no image.
        UsageError: An unknown variant.
    """

    name: ClassVar[str] = "ost"
    object_rule: ClassVar[ObjectRule] = "largest"
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[str] = LAYOUT
    counts: ClassVar[Mapping[str, int]] = OFFICIAL["segmentation"]
    shared_files: ClassVar[tuple[Path, ...]] = ()
    sources: ClassVar[tuple[Source, ...]] = (
        _archive("OST300_img.zip", "test images", "OutdoorSceneTest300"),
        _archive("OST300_anno.zip", "annotations of the test images", "OutdoorSceneTest300_anno"),
        _archive("OutdoorSeg_img.zip", "training images", "OutdoorSeg/images"),
        _archive("OutdoorSeg_anno.zip", "annotations of the training images", "OutdoorSeg/annotations"),
        Source(
            what="training images of variant scenes, an archive a category",
            url=PAGE,
            size=0,
            licence=LICENCE,
            note="download the folder OutdoorSceneTrain_v2 in a browser, unpack its archives to OutdoorSceneTrain_v2",
            saved_as="OutdoorSceneTrain_v2",
            makes=("OutdoorSceneTrain_v2",),
        ),
    )

    def __init__(
        self,
        split: str = "train",
        size: int | None = 256,
        count: int | None = None,
        root: str | Path | None = None,
        *,
        variant: str = "segmentation",
    ) -> None:
        self.root = default_root(self.name) if root is None else Path(root)
        if not self.root.is_dir():
            raise DataError("there is no OST folder here", where=str(self.root), remedy=DOWNLOAD)
        self.split, self.size = split, size
        self.variant = check_variant(self.name, variant, OFFICIAL)
        images, maps = self.root / "OutdoorSceneTest300", [self.root / "OutdoorSceneTest300_anno"]
        if split != "train":
            self.part, maps = "test300", [*maps, images / maps[0].name]
            self.images = pictures(_inner(images, "the test images"), DOWNLOAD)
        elif variant == "scenes":
            self.part, self.images = "scenes", _scenes(self.root)
        else:
            self.part, maps = "seg", [self.root / "OutdoorSeg" / "annotations"]
            self.images = pictures(_inner(self.root / "OutdoorSeg" / "images", "the training images"), DOWNLOAD)
        self._maps: dict[str, Path] = {}
        if variant == "segmentation":
            folder = _inner(next((place for place in maps if place.is_dir()), maps[0]), "the annotations")
            self._maps = pictures(folder, DOWNLOAD)
            check_pairs(self.images, self._maps, folder, DOWNLOAD)
        self._names = list(self.images)[:count]
        self._ids = [f"{self.name}/{self.part}/{name}" for name in self._names]

    @classmethod
    def sources_for(cls, variant: str | None = None, **_: Any) -> tuple[Source, ...]:
        """The downloads that a variant needs; None is the default."""
        return (cls.sources[0], cls.sources[4]) if variant == "scenes" else cls.sources[:4]

    @property
    def official(self) -> int | None:
        """How many images this split holds as published."""
        return OFFICIAL[self.variant][self.split]

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"image", "mask", "edge"} | ({"segmentation"} if self._maps else set()))

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES if self._maps else ()

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._names)

    def files(self, index: int) -> tuple[Path, ...]:
        """The image at a position, and its annotation where it has one."""
        name = self._names[index]
        return (self.images[name], *([self._maps[name]] if self._maps else []))

    def sample(self, index: int) -> Sample:
        """The image at a position with its classes, resized and cropped.

        Raises:
            DataError: A file cannot be read, or the annotation is of another size than its image or has ids that OST
                does not have.
        """
        name = self._names[index]
        image = read_image(self.images[name])
        size = (image.shape[0], image.shape[1])
        placed = fit(*size, self.size)
        segmentation = placed.labels(_classes(self._maps[name], size)) if self._maps else None
        return Sample(id=self._ids[index], image=placed.image(image), segmentation=segmentation)


def _inner(folder: Path, what: str) -> Path:
    """A folder of images, or the folder of the same name in it: whether archives hold one, nobody documents."""
    inner = folder / folder.name
    return inner if inner.is_dir() else first_folder([folder], what, DOWNLOAD)


def _scenes(root: Path) -> dict[str, Path]:
    """The images of every category, as `CATEGORY/NAME`."""
    found: dict[str, Path] = {}
    for category in CATEGORIES:
        folder = _inner(root / "OutdoorSceneTrain_v2" / category, f"category '{category}'")
        found |= {f"{category}/{name}": path for name, path in pictures(folder, DOWNLOAD).items()}
    return found


def _classes(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    classes = read_segmentation(path, size)
    classes[classes == VOID] = UNKNOWN
    wrong = classes[(classes >= len(CLASSES)) & (classes != UNKNOWN)]
    if wrong.size:
        raise DataError(
            f"class {wrong[0]} is none of OST's 0 to 7, 8 or 255",
            where=str(path),
            remedy="these are the annotations as published (_anno), not coloured ones or another dataset's",
        )
    return classes
