"""`zoo inpaint` on files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL, Run
from PIL import Image

from zoo.cli.captions import unknown_words


@pytest.fixture
def pictures(place: Path) -> Path:
    """Two photographs of odd sizes and their masks, as a user has them."""
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a": (45, 61), "b": (50, 40)}.items():
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 12:28] = 255
        for folder, content in (("images", image), ("masks", mask)):
            (place / folder).mkdir(exist_ok=True)
            Image.fromarray(content).save(place / folder / f"{name}.png")
    return place


def _read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_one_file_at_its_own_size_with_known_pixels_untouched(zoo: Run, pictures: Path) -> None:
    done = zoo("inpaint", "--model", "telea", "--image", "images/a.png", "--mask", "masks/a.png", "--out", "out")
    assert done.code == 0, done.err
    image, mask, result = (_read(pictures / p) for p in ("images/a.png", "masks/a.png", "out/a.png"))
    assert result.shape == image.shape
    assert np.array_equal(result[mask == 0], image[mask == 0])
    assert not np.array_equal(result[mask > 0], image[mask > 0])
    assert sorted(p.name for p in (pictures / "out").iterdir()) == ["a.png"]


def test_a_folder_is_paired_by_name_and_another_run_gives_the_same_files(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "mean", "--image", "images", "--mask", "masks")
    for out in ("one", "two"):
        assert zoo(*words, "--out", out).code == 0
    for name in ("a.png", "b.png"):
        assert (pictures / "one" / name).read_bytes() == (pictures / "two" / name).read_bytes()


def test_several_samples_of_each_image(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "tests.fakes_benchmark.Drawing", "--image", "images", "--mask", "masks", "--seed", 5)
    done = zoo(*words, "--samples", 3, "--out", "three")
    assert done.code == 0, done.err
    assert "2 of 2 images completed, 3 samples of each: three" in done.out
    names = [f"{name}-{number}.png" for name in "ab" for number in (1, 2, 3)]
    assert sorted(p.name for p in (pictures / "three").iterdir()) == names
    for name in "ab":
        image, mask = _read(pictures / f"images/{name}.png"), _read(pictures / f"masks/{name}.png")
        drawn = [_read(pictures / f"three/{name}-{number}.png") for number in (1, 2, 3)]
        assert all(np.array_equal(one[mask == 0], image[mask == 0]) for one in drawn)
        assert len({one.tobytes() for one in drawn}) == 3
    assert zoo(*words[:-1], 6, "--samples", 2, "--out", "later").code == 0  # seeds go on from --seed
    for number in (1, 2):
        later, before = pictures / f"later/a-{number}.png", pictures / f"three/a-{number + 1}.png"
        assert later.read_bytes() == before.read_bytes()


def test_one_sample_is_the_one_completion_that_there_always_was(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "tests.fakes_benchmark.Drawing", "--image", "images/a.png", "--mask", "masks/a.png")
    for out, more in (("plain", ()), ("one", ("--samples", 1)), ("seeded", ("--seed", 7))):
        assert zoo(*words, *more, "--out", out).code == 0
        assert (pictures / out / "a.png").read_bytes() == (pictures / "plain/a.png").read_bytes()  # its mean
    assert zoo(*words, "--samples", 2, "--out", "two").code == 0
    assert (pictures / "two/a-1.png").read_bytes() != (pictures / "plain/a.png").read_bytes()


def test_samples_of_a_method_that_draws_nothing_are_refused(zoo: Run, pictures: Path) -> None:
    words = ("--image", "images", "--mask", "masks", "--out", "out", "--samples", 2)
    done = zoo("inpaint", "--model", "telea", *words)
    assert done.code == 2
    assert "'telea' is not stochastic: its 2 completions of an image would be equal" in done.err
    assert not (pictures / "out").exists()
    assert zoo("inpaint", "--model", "telea", *words[:-1], 0).code == 2


def test_samples_never_overwrite_an_input_or_each_other(zoo: Run, pictures: Path) -> None:
    for folder in ("images", "masks"):
        for name in ("a-1", "a-1-1"):
            (pictures / folder / f"{name}.png").write_bytes((pictures / folder / "a.png").read_bytes())
    words = ("inpaint", "--model", "tests.fakes_benchmark.Drawing", "--image", "images", "--mask", "masks")
    refused = zoo(*words, "--samples", 2, "--out", "images")
    assert refused.code == 2
    assert "would overwrite an input" in refused.err
    assert zoo(*words, "--samples", 2, "--out", "out").code == 0
    assert len(list((pictures / "out").iterdir())) == 8


def test_size_scales_the_shorter_side_and_crops_nothing(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "mean", "--image", "images", "--mask", "masks", "--out", "out", "--size", 20)
    assert zoo(*words).code == 0
    assert _read(pictures / "out/a.png").shape == (20, 27, 3)
    assert _read(pictures / "out/b.png").shape == (25, 20, 3)


def test_trained_weights_of_your_own(zoo: Run, pictures: Path) -> None:
    assert zoo("fit", "--model", "toymethod.Toy", *SMALL).code == 0
    words = ("--image", "images/a.png", "--mask", "masks/a.png")
    found = zoo("inpaint", "--model", "toymethod.Toy", *words, "--out", "found")
    assert found.code == 0, found.err
    assert "preset nano, trained on shapes at 32 pixels" in found.err
    weights = "runs/toymethod.Toy-nano/inpaint/weights.safetensors"
    assert zoo("inpaint", "--model", "toymethod.Toy", *words, "--out", "given", "--weights", weights).code == 0
    assert (pictures / "found/a.png").read_bytes() == (pictures / "given/a.png").read_bytes()
    other = zoo("inpaint", "--model", "deepfill", *words, "--out", "other", "--weights", weights)
    assert other.code == 4
    assert "toymethod.Toy" in other.err


def test_masks_that_need_a_word(zoo: Run, pictures: Path) -> None:
    mask = _read(pictures / "masks/a.png")
    Image.fromarray((mask > 0).astype(np.uint8) * 100 + 60).save(pictures / "grey.png")
    Image.fromarray(255 - mask).save(pictures / "inverted.png")
    words = ("inpaint", "--model", "mean", "--image", "images/a.png", "--out", "out")
    assert zoo(*words, "--mask", "masks/a.png").code == 0
    expected = (pictures / "out/a.png").read_bytes()
    for name, option in (("grey.png", ("--mask-threshold", 128)), ("inverted.png", ("--invert-mask",))):
        (pictures / "out/a.png").unlink()
        refused = zoo(*words, "--mask", name)
        assert refused.code == 3, name
        assert not (pictures / "out/a.png").exists()
        assert zoo(*words, "--mask", name, *option).code == 0
        assert (pictures / "out/a.png").read_bytes() == expected


def test_no_hole_returns_the_image_and_all_hole_runs(zoo: Run, pictures: Path) -> None:
    for name, level in (("none", 0), ("all", 255)):
        Image.new("L", (61, 45), level).save(pictures / f"{name}.png")
        words = ("--image", "images/a.png", "--mask", f"{name}.png", "--out", name)
        assert zoo("inpaint", "--model", "mean", *words).code == 0
    assert np.array_equal(_read(pictures / "none/a.png"), _read(pictures / "images/a.png"))
    assert np.unique(_read(pictures / "all/a.png")).tolist() == [128]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--image", "nowhere.png", "--mask", "masks/a.png"), 3, "there is no image here"),
        (("--image", "images/a.png", "--mask", "nowhere.png"), 3, "there is no mask here"),
        (("--image", "images/a.png", "--mask", "masks/b.png"), 3, "61x45"),
        (("--image", "images", "--mask", "empty"), 3, "no pictures in this folder"),
        (("--image", "empty", "--mask", "masks"), 3, "no pictures in this folder"),
        (("--image", "images", "--mask", "half"), 3, "1 of 2 images have no mask: b"),
        (("--image", "broken.png", "--mask", "masks/a.png"), 3, "cannot be read"),
        (("--image", "images/a.png", "--mask", "masks/a.png", "--weights", "nowhere"), 4, "no such weights file"),
        (("--image", "images/a.png", "--mask", "masks/a.png", "--preset", "paper"), 4, "no paper weights"),
    ],
)
def test_bad_input(words: tuple[str, ...], code: int, message: str, zoo: Run, pictures: Path) -> None:
    (pictures / "empty").mkdir()
    (pictures / "half").mkdir()
    (pictures / "half/a.png").write_bytes((pictures / "masks/a.png").read_bytes())
    (pictures / "broken.png").write_bytes((pictures / "images/a.png").read_bytes()[:200])
    done = zoo("inpaint", "--model", "deepfill" if code == 4 else "mean", *words, "--out", "out")
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (pictures / "out").exists()


def test_an_input_is_never_overwritten(zoo: Run, pictures: Path) -> None:
    before = (pictures / "images/a.png").read_bytes()
    for out in ("images", "masks"):
        done = zoo("inpaint", "--model", "mean", "--image", "images", "--mask", "masks", "--out", out)
        assert done.code == 2
        assert "would overwrite an input" in done.err
    assert (pictures / "images/a.png").read_bytes() == before


def test_one_bad_image_of_a_folder_does_not_stop_the_others(zoo: Run, pictures: Path) -> None:
    (pictures / "images/a.png").write_bytes(b"no picture")
    done = zoo("inpaint", "--model", "mean", "--image", "images", "--mask", "masks", "--out", "out")
    assert done.code == 5
    assert "a is left out" in done.err
    assert [p.name for p in (pictures / "out").iterdir()] == ["b.png"]
    assert "1 of 2" in done.out


def test_a_full_disk_leaves_nothing_half_written(zoo: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    done = zoo("inpaint", "--model", "mean", "--image", "images/a.png", "--mask", "masks/a.png", "--out", "out")
    assert done.code == 3
    assert "No space left" in done.err
    assert list((pictures / "out").iterdir()) == []


def test_captions_reach_the_methods_that_read_them(zoo: Run, pictures: Path) -> None:
    import toymethod  # type: ignore[import-not-found]

    from zoo.cli.captions import read_captions
    from zoo.cli.inpaint import paint

    reader = toymethod.Reader().eval()
    image, mask = _read(pictures / "images/a.png"), _read(pictures / "masks/a.png") // 255
    paint(reader, "a", image, mask, "a red ball")  # it checks its caption
    lines = [{"file": "a.png", "caption": "a red ball"}, {"file": "b", "captions": ["one", "two"]}]
    (pictures / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    names = {"a": "a.png", "b": "b.png"}
    assert read_captions("captions.jsonl", names) == {"a": "a red ball", "b": "one"}
    assert read_captions("a red ball", names) == dict.fromkeys(names, "a red ball")
    (pictures / "c.txt").write_text("a red ball\n")
    assert read_captions("c.txt", names) == dict.fromkeys(names, "a red ball")


def test_words_that_the_weights_do_not_know_are_named(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "cma", "--image", "images/a.png", "--mask", "masks/a.png", "--out", "out")
    assert "do not know: cat, dog\n" in zoo(*words, "--caption", "a red Dog, and a cat").err
    assert "do not know" not in zoo(*words, "--caption", "a red ring").err
    assert unknown_words({"vocabulary": ["ring"]}, ["красный круг", "", "ring"]) == ["красный круг"]
    pieces = {"vocabulary": ["ring"], "tokenizer": "wordpiece"}
    assert unknown_words(pieces, ["dog"]) == unknown_words({}, ["dog"]) == []


def test_what_a_result_cannot_hold_is_said(zoo: Run, pictures: Path) -> None:
    words = ("inpaint", "--model", "mean", "--mask", "masks/a.png", "--out", "out", "--image")
    image = Image.open(pictures / "images/a.png")
    image.convert("RGBA").save(pictures / "opaque.png")
    clear = image.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(pictures / "clear.png")
    cv2.imwrite(str(pictures / "colours.png"), np.asarray(image).astype(np.uint16) * 257)
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(pictures / "deep.png")
    assert "clear: transparency is laid over white, also in the known pixels" in zoo(*words, "clear.png").err
    for name in ("deep", "colours"):
        assert f"{name}: 16-bit levels become 8-bit" in zoo(*words, f"{name}.png").err
    for name in ("opaque", "images/a"):
        assert "known pixels" not in zoo(*words, f"{name}.png").err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"file": "a.png", "caption": "x"}\n', "1 images have no caption: b"),
        ("{\n", "line 1"),
        ('{"file": 3}', "no caption"),
    ],
)
def test_bad_caption_files(content: str, message: str, zoo: Run, pictures: Path) -> None:
    (pictures / "captions.jsonl").write_text(content)
    words = ("--image", "images", "--mask", "masks", "--out", "out", "--caption", "captions.jsonl")
    done = zoo("inpaint", "--model", "mean", *words)
    assert done.code == 3
    assert message in done.err
    assert "captions.jsonl" in done.err
    assert not (pictures / "out").exists()
