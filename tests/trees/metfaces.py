"""A tiny MetFaces: square images and metfaces.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image

from tests.fakes import picture


def metfaces_tree(root: Path, count: int = 12) -> Path:
    """Writes four times `count` faces, of which `count` are in the test split; every fifth work has two faces."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(4 * count):
        face = int(number % 6 == 5)
        work = str(11_000 + number - face)
        path = f"images/{work}-{face:02d}.png"
        Image.fromarray(picture(41 + number % 3, 41 + number % 3, number)).save(root / path)
        entries.append(
            {
                "obj_id": work,
                "meta_url": f"https://collectionapi.metmuseum.org/public/collection/v1/objects/{work}",
                "source_path": f"unprocessed/image-{work}.png",
                "image_path": path,
                "image_md5": hashlib.md5((root / path).read_bytes()).hexdigest(),
                "title": f"Portrait {number}",
                "face_spec": {"rect": [10, 10, 50, 50], "shrink": 2},
                "face_idx": face,
            }
        )
    (root / "metfaces.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return root
