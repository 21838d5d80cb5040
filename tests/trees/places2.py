"""A tiny Places365-Standard: three categories, images and lists."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.fakes import picture

CATEGORIES = ("a/airfield", "a/apartment_building/outdoor", "z/zen_garden")


def places2_tree(root: Path, count: int = 12, variant: str = "256") -> Path:
    """Writes `count` images of the training and of the validation set, and the three lists."""
    training, validation = [], []
    for number in range(count):
        label = number % len(CATEGORIES)
        file = f"{CATEGORIES[label]}/{number // len(CATEGORIES) + 1:08d}.jpg"
        _write(root / f"data_{variant}" / file, number)
        training.append(f"/{file} {label}")
        file = f"Places365_val_{number + 1:08d}.jpg"
        _write(root / f"val_{variant}" / file, count + number)
        validation.append(f"{file} {label}")
    lists = {
        "places365_train_standard.txt": training,
        "places365_val.txt": validation,
        "categories_places365.txt": [f"/{name} {label}" for label, name in enumerate(CATEGORIES)],
    }
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def _write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(48 + seed % 4, 48 + seed % 5, seed)).save(path, quality=95)
