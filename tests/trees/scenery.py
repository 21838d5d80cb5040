"""A tiny Scenery: wide images in one folder, as the raw archive unpacks."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.fakes import picture


def scenery_tree(root: Path, count: int = 12) -> Path:
    """Writes six times `count` images, of which about `count` are in the test split: the share of 1,000 in 6,040."""
    folder = root / "scenery"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6 * count):
        Image.fromarray(picture(32 + number % 3, 90 + number % 5, number)).save(
            folder / f"{number + 1}.jpg", quality=95
        )
    return root
