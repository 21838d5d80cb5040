"""`zoo inpaint --edge F --segmentation F` on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from zoo.cli.inpaint import scale_guide

METHOD = ("inpaint", "--model", "tests.fakes_guided.Guided", "--image", "images", "--mask", "masks")
ONE = ("inpaint", "--model", "tests.fakes_guided.Guided", "--image", "images/a.png", "--mask", "masks/a.png")


@pytest.fixture
def drawn(place: Path) -> Path:
    """Two photographs with masks; of `a` edges and class ids, of `b` class ids alone, as a palette."""
    rng = np.random.default_rng(0)
    sizes = {"a": (45, 61), "b": (50, 40)}
    for name, (height, width) in sizes.items():
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 12:28] = 255
        edge = np.zeros((height, width), np.uint8)
        edge[20] = 255
        classes = np.full((height, width), 3, np.uint8)
        classes[:, 20:] = 7
        pictures = {
            "images": Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)),
            "masks": Image.fromarray(mask),
            "edges": Image.fromarray(edge),
            "classes": Image.fromarray(classes),
        }
        if name == "b":
            del pictures["edges"]
            pictures["classes"] = Image.fromarray(classes, mode="P")
            pictures["classes"].putpalette([255, 0, 0] * 256)
        for folder, picture in pictures.items():
            (place / folder).mkdir(exist_ok=True)
            picture.save(place / folder / f"{name}.png")
    return place


def hole(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))[10:30, 12:28]


def test_guidance_reaches_the_hole_whole(zoo: Run, drawn: Path) -> None:
    assert zoo(*METHOD, "--edge", "edges", "--segmentation", "classes", "--out", "out").code == 0
    a, b = hole(drawn / "out/a.png"), hole(drawn / "out/b.png")
    assert (a[10, :, 0] == 255).all()
    assert not np.delete(a[:, :, 0], 10, axis=0).any()
    for made in (a, b):
        assert (made[:, :8, 1] == round(0.3 * 255)).all()
        assert (made[:, 8:, 1] == round(0.7 * 255)).all()
    assert (a[:, :, 2] == 0).all()
    assert (b[:, :, 2] == 128).all()  # the folder of edges has none for it


def test_without_options_nothing_is_shown(zoo: Run, drawn: Path) -> None:
    assert zoo(*ONE, "--out", "out").code == 0
    assert (hole(drawn / "out/a.png") == (0, 0, 255)).all()


def test_one_file_serves_one_image_whatever_its_name(zoo: Run, drawn: Path) -> None:
    assert zoo(*ONE, "--segmentation", "classes/a.png", "--out", "one").code == 0
    (drawn / "classes/a.png").rename(drawn / "mine.png")
    assert zoo(*ONE, "--segmentation", "mine.png", "--out", "two").code == 0
    assert (drawn / "one/a.png").read_bytes() == (drawn / "two/a.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((*ONE, "--edge", "nowhere"), 3, "there is no edge here"),
        ((*METHOD, "--edge", "edges/a.png"), 2, "one edge for 2 images"),
        ((*METHOD, "--segmentation", "others"), 3, "belongs to any of the 2 images"),
        ((*ONE, "--segmentation", "images/a.png"), 3, "mode RGB, which has no class ids"),
        ((*ONE, "--segmentation", "classes/b.png"), 3, "the segmentation is 40x50, its image 61x45"),
        ((*ONE, "--edge", "masks/b.png"), 3, "the edge is 40x50"),
        (("inpaint", "--model", "telea", *ONE[3:], "--edge", "edges/a.png"), 2, "'telea' reads no edge"),
    ],
)
def test_what_is_wrong_is_said(zoo: Run, drawn: Path, words: tuple[str, ...], code: int, message: str) -> None:
    (drawn / "others").mkdir()
    Image.new("L", (4, 4)).save(drawn / "others" / "c.png")
    Image.new("L", (4, 4)).save(drawn / "others" / "d.png")
    done = zoo(*words, "--out", "out")
    assert done.code == code
    assert message in done.err
    assert not (drawn / "out").exists() or not any((drawn / "out").iterdir())


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ((*METHOD, "--edge", "edges"), "edges"),
        ((*METHOD, "--segmentation", "classes"), "classes"),
        ((*ONE, "--segmentation", "classes/a.png"), "classes"),
        ((*ONE, "--caption", "out.txt"), "links"),
    ],
)
def test_no_result_takes_the_place_of_what_was_drawn_or_written(
    zoo: Run, drawn: Path, words: tuple[str, ...], out: str
) -> None:
    (drawn / "out.txt").write_text("a red ball")
    (drawn / "links").mkdir()
    (drawn / "links" / "a.png").symlink_to(drawn / "out.txt")
    before = {path: path.read_bytes() for path in drawn.rglob("*.*")}
    done = zoo(*words, "--out", out)
    assert done.code == 2, done.err
    assert "the result would overwrite an input" in done.err
    assert "another --out" in done.err
    assert {path: path.read_bytes() for path in drawn.rglob("*.*")} == before


def test_maps_are_scaled_with_their_image_edges_kept_and_classes_not_blended() -> None:
    edge = np.zeros((40, 80), np.uint8)
    edge[17] = 1
    small = scale_guide("edge", edge, 20)
    assert small.shape == (20, 40)
    assert small[8].all()
    assert small.sum() == 40
    classes = np.where(np.arange(80) < 40, 3, 7).astype(np.uint8) * np.ones((40, 1), np.uint8)
    assert set(np.unique(scale_guide("segmentation", classes, 20))) == {3, 7}
