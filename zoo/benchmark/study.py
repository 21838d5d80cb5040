"""A user study of a run: a page on which raters put the methods' pictures of an image in order, and its key.

The page holds pictures in an order drawn anew for each image, under the letters A, B, C; no name of a method or an
image is in it. Raters rank them as in the papers' studies: by how natural they look and, where images have captions, by
how well they fit the caption. Answers are downloaded from the page as a file; `zoo report RUN --rank` evaluates them
with the key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.gallery import TRUTH, encode_png, kept_ids, picture_path, read_picture
from zoo.benchmark.masks import Masks, read_masks
from zoo.benchmark.plan import Plan, canonical
from zoo.benchmark.store import write_whole
from zoo.benchmark.strip import hide_grey
from zoo.benchmark.tables_read import read_table
from zoo.errors import DataError, UsageError
from zoo.keyed import key, permutation

FOLDER, PAGE, KEY = "study", "index.html", "study-key.json"
TEMPLATE = "study.html.j2"
NATURALNESS, AGREEMENT = "naturalness", "semantic_consistency"
LOSSLESS = 128  # up to this side pictures are PNG, above it WebP that shows no artifacts of its own
QUALITY = 95
LETTERS = string.ascii_uppercase


def make_study(folder: str | Path, count: int, seed: int = 0) -> tuple[Path, Path]:
    """Writes `RUN/study/index.html` and, outside the folder for raters, `RUN/study-key.json`; always the same bytes.

    The trained methods take part, and the control `truth` where the run has it; of a run of controls, all of them.

    Args:
        folder: The run folder.
        count: Images, drawn from those whose pictures every method has.
        seed: Another seed draws other images and orders.

    Returns:
        The page and the key.

    Raises:
        DataError: No run folder, damaged rows or masks, or a full disk.
        UsageError: Fewer than two methods, more than 26, or fewer images than asked for.
    """
    folder = Path(folder)
    plan = Plan.read(folder)
    labels = compared(plan)
    _check_number(labels, folder)
    masks, captions = read_masks(folder), read_table(folder, plan).captions
    there = [sample for sample in kept_ids(list(masks), plan.size) if _complete(folder, plan, labels, sample)]
    if len(there) < count:
        remedy = f"--study {len(there)}" if there else "a run keeps pictures of its first images and of others it draws"
        raise UsageError(
            f"this run has pictures of {len(there)} images by every method, not {count}", "--study", remedy
        )
    ids = sorted(there, key=lambda sample: (key("study", seed, sample), sample))[:count]
    options = {sample: _options(labels, seed, sample) for sample in ids}
    name = hashlib.sha256(canonical({"plan": plan.hash, "seed": seed, "options": options}).encode()).hexdigest()[:12]
    criteria = [NATURALNESS, *([AGREEMENT] if all(captions.get(sample) for sample in ids) else [])]
    questions = [_question(folder, plan, masks, sample, options[sample], captions.get(sample, "")) for sample in ids]
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    content = {
        "study": name, "plan": plan.hash, "seed": seed, "criteria": criteria,
        "questions": {str(k): {"id": sample, "options": options[sample]} for k, sample in enumerate(ids, 1)},
    }  # fmt: skip
    write_whole(place / PAGE, _page(name, criteria, questions).encode())
    write_whole(folder / KEY, (json.dumps(content, indent=1) + "\n").encode())
    return place / PAGE, folder / KEY


def compared(plan: Plan) -> list[str]:
    """The methods of a study."""
    trained = [m.label for m in plan.methods if not m.control or m.name == "truth"]
    some = any(not method.control for method in plan.methods)
    return trained if some else [method.label for method in plan.methods]


def _check_number(labels: list[str], folder: Path) -> None:
    if not 2 <= len(labels) <= len(LETTERS):
        what = f"a study compares 2 to {len(LETTERS)} methods, this run has {len(labels)}"
        remedy = "zoo benchmark --models A,B,truth makes a run of several; beside A and B mean and telea do not count"
        raise UsageError(what, str(folder), remedy)


def _complete(folder: Path, plan: Plan, labels: list[str], sample: str) -> bool:
    files = [method.file_name for method in plan.methods if method.label in labels]
    return all(picture_path(folder, file, sample).is_file() for file in (TRUTH, *files))


def _options(labels: list[str], seed: int, sample: str) -> dict[str, str]:
    """Which letter is which method."""
    order = permutation(len(labels), "study", seed, sample)
    return {LETTERS[k]: labels[place] for k, place in enumerate(order)}


def _question(
    folder: Path, plan: Plan, masks: Masks, sample: str, options: dict[str, str], caption: str
) -> dict[str, Any]:
    files = {method.label: method.file_name for method in plan.methods}
    truth = _read(folder, TRUTH, sample)
    made = [(letter, _uri(_read(folder, files[label], sample))) for letter, label in options.items()]
    return {"caption": caption, "input": _uri(hide_grey(truth, masks[sample])), "options": made}


def _read(folder: Path, method: str, sample: str) -> NDArray[np.uint8]:
    picture = read_picture(folder, method, sample)
    if picture is None:
        remedy = "delete it and its row; the benchmark measures the image again"
        raise DataError("this picture cannot be read", str(picture_path(folder, method, sample)), remedy)
    return picture


def _uri(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    if max(image.shape[:2]) <= LOSSLESS:
        return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(name: str, criteria: list[str], questions: list[dict[str, Any]]) -> str:
    from zoo.benchmark.report_html import render

    return render(TEMPLATE, {"study": name, "criteria": criteria, "questions": questions})
