"""Text-guided methods on the command line: one vocabulary from the training captions, kept as long as the run goes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, Done, Run
from jsonargparse import Namespace
from PIL import Image
from safetensors.torch import load_file

from zoo.cli.lightning import SaveRunConfig
from zoo.cli.vocabulary import Vocabulary, read_vocabulary
from zoo.data.module import InpaintingData
from zoo.errors import WeightsError
from zoo.models import load
from zoo.weights import read_header
from zoo.words import vocabulary

SPELLER = "tests.toys_text.Speller"
BRIEF = ("--trainer.max_steps", "2", "--trainer.limit_val_batches", "0")
WEIGHTS = "run/inpaint/weights.safetensors"


def fit(zoo: Run, *words: object, method: str = SPELLER) -> Done:
    return zoo("fit", "--model", method, *SMALL, *BRIEF, "--out", "run", *words)


def words_of(count: int = 20) -> list[str]:
    return vocabulary(InpaintingData(train_count=count).captions())


def saved(run: Path = Path("run")) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "vocabulary.json").read_text())
    return content


def test_a_text_guided_method_from_end_to_end(zoo: Run, place: Path) -> None:
    done = zoo("fit", "--model", SPELLER, *SMALL, "--out", "run")
    assert done.code == 0, done.err
    words = words_of()
    assert saved() == {"method": SPELLER, "source": "shapes", "words": words}
    line = f"vocabulary: {len(words)} words from the training captions of shapes, run/vocabulary.json"
    assert done.err.count(line) == 1
    header = read_header(WEIGHTS)
    assert header.vocabulary == words
    assert "vocabulary" not in header.config
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["vocabulary"] == []
    tokenizer: Any = load(SPELLER, weights=WEIGHTS).tokenizer
    assert tokenizer(["red zebra"]).ids[0, :4].tolist() == [2, words.index("red") + 4, 1, 3]


def test_figures_while_it_trains_and_a_sheet_with_its_captions(zoo: Run, place: Path) -> None:
    done = zoo("fit", "--model", SPELLER, *SMALL, "--out", "run")
    validations = [line for line in done.err.splitlines() if line.startswith(("inpaint 3  val", "inpaint 6  val"))]
    assert len(validations) == 2, done.err
    for line in validations:
        assert all(name in line for name in ("l1_hole", "colour_fidelity", "shape_fidelity"))
    assert Image.open("run/samples.png").size == (8 * 32, 3 * 32)
    assert "captions: run/samples.txt" in done.out
    batches = list(InpaintingData(size=32, val_count=8, seed=1, batch_size=8).val_dataloader())
    assert Path("run/samples.txt").read_text().splitlines() == batches[0]["caption"]


def test_a_method_without_words_leaves_neither_file(zoo: Run, place: Path) -> None:
    done = zoo("fit", "--model", "toymethod.Toy", *SMALL, "--out", "run")
    assert done.code == 0, done.err
    assert sorted(path.name for path in Path("run").iterdir()) == ["config.yaml", "inpaint", "samples.png"]
    assert "vocabulary" not in done.err


def test_a_resumed_run_keeps_its_words_though_the_data_are_others(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    before = saved()
    assert words_of(2) != before["words"]
    more = ("--resume", "auto", "--data.train_count", "2")
    Path(WEIGHTS).unlink()
    resumed = fit(zoo, *more, "--trainer.max_steps", "3")
    assert resumed.code == 0, resumed.err
    assert f"vocabulary: {len(before['words'])} words of this run, run/vocabulary.json" in resumed.err
    assert "command line wins" not in resumed.err
    assert saved() == before
    assert read_header(WEIGHTS).vocabulary == before["words"]
    Path(WEIGHTS).unlink()
    Path("run/vocabulary.json").unlink()  # the checkpoint has them too
    again = fit(zoo, *more, "--trainer.max_steps", "4")
    assert again.code == 0, again.err
    assert "words of run/inpaint/checkpoints/last.ckpt, run/vocabulary.json" in again.err
    assert saved()["words"] == before["words"]


def test_a_checkpoint_resumed_into_another_folder_takes_its_words_along(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    last = "run/inpaint/checkpoints/last.ckpt"
    done = zoo("fit", "--resume", last, "--out", "more", "--trainer.max_steps", "3", "--data.train_count", "2")
    assert done.code == 0, done.err
    assert saved(Path("more"))["words"] == saved()["words"]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("{", 4, "the vocabulary of this run is damaged"),
        ('{"method": "m", "source": "shapes"}', 4, "is damaged"),
        ('{"method": "m", "source": "shapes", "words": []}', 4, "is damaged"),
        ('{"method": "m", "source": "shapes", "words": "red"}', 4, "is damaged"),
        (f'{{"method": "{SPELLER}", "source": "shapes", "words": ["red"]}}', 4, "is not the one that run/inpaint/"),
        ('{"method": "other.Method", "source": "shapes", "words": ["red"]}', 2, "is of 'other.Method'"),
    ],
)
def test_a_vocabulary_that_cannot_be_gone_on_with(content: str, code: int, message: str, zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    Path(WEIGHTS).unlink()
    Path("run/vocabulary.json").write_text(content)
    done = fit(zoo, "--resume", "auto", "--trainer.max_steps", "3")
    assert done.code == code, done.err
    assert message in done.err
    assert "run/vocabulary.json" in done.err
    assert "remedy" in done.err
    assert not Path(WEIGHTS).exists()


def test_files_that_are_no_vocabulary_are_named(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    for content in (b"\xff\xfe", b"[]", b'{"method": "m", "source": "s", "words": ["a", "a"]}'):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged") as found:
            read_vocabulary(path)
        assert found.value.where == str(path)


def test_what_a_run_that_never_began_has_left_is_not_used(zoo: Run, place: Path) -> None:
    Path("run").mkdir()
    Path("run/vocabulary.json").write_text("{")
    done = fit(zoo)
    assert done.code == 0, done.err
    assert saved()["words"] == words_of()


@pytest.mark.parametrize("lost", [False, True])
def test_all_stages_of_a_run_have_the_same_words(lost: bool, zoo: Run, place: Path) -> None:
    method = "tests.toys_text.TwoSteps"
    assert fit(zoo, "--stage", "words", method=method).code == 0
    before = saved()["words"]
    if lost:
        Path("run/vocabulary.json").unlink()
    done = fit(zoo, "--stage", "inpaint", "--data.train_count", "2", method=method)
    assert done.code == 0, done.err
    assert ("run/words/weights.safetensors" if lost else "of this run") in done.err
    assert saved()["words"] == before
    assert read_header(WEIGHTS).vocabulary == before


def test_words_of_the_configuration_are_left_as_they_are(zoo: Run, place: Path) -> None:
    given = ("--model.vocabulary", "[red,blue,green]")
    done = fit(zoo, *given)
    assert done.code == 0, done.err
    assert not Path("run/vocabulary.json").exists()
    recorded = yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]
    assert recorded["vocabulary"] == ["red", "blue", "green"]
    Path(WEIGHTS).unlink()
    changed = fit(zoo, "--resume", "auto", "--model.vocabulary", "[red,blue]")
    assert changed.code == 4, changed.err
    assert "vocabulary was 3 words, is now 2 words (the command line wins)" in changed.err
    assert "['red'" not in changed.err


def test_a_long_vocabulary_is_never_printed(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    Path(WEIGHTS).unlink()
    other = ["word" + str(n) for n in range(len(saved()["words"]))]
    done = fit(zoo, "--resume", "auto", "--model.vocabulary", json.dumps(other), "--trainer.max_steps", "3")
    assert done.code == 0, done.err
    assert f"vocabulary was {len(other)} words, is now {len(other)} words" in done.err
    assert "word7" not in done.err


def test_data_without_captions_are_refused_before_any_work(zoo: Run, place: Path) -> None:
    Path("pictures").mkdir()
    Image.new("RGB", (64, 64)).save("pictures/a.png")
    data = ("--data", "folder", "--data.root", "pictures", "--preset", "nano", "--size", "32", "--out", "run")
    done = zoo("fit", "--model", SPELLER, *data)
    assert done.code == 2
    assert "needs caption" in done.err
    assert not Path("run").exists()


def test_a_method_chooses_its_words_by_its_arguments(zoo: Run, place: Path) -> None:
    done = fit(zoo, "--model.least", "6", method="tests.toys_text.Chooser")
    assert done.code == 0, done.err
    assert saved()["words"] == [word for word in words_of() if len(word) >= 6]


def test_words_that_a_method_brings_are_not_said_to_be_from_captions(zoo: Run, place: Path) -> None:
    done = fit(zoo, method="tests.toys_text.Bringer")
    assert done.code == 0, done.err
    assert "vocabulary: 3 words that the method brings" in done.err
    assert saved()["source"] == "tests.toys_text.Bringer"


@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_the_first_writes(first: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer: Any = SimpleNamespace(is_global_zero=first, strategy=strategy)
    parser: Any = SimpleNamespace(save=lambda *_, **__: None)
    words = Vocabulary("m", "shapes", ["red"], "from the training captions of shapes")
    saver = SaveRunConfig(parser, Namespace(), tmp_path / "run", words)
    saver.setup(trainer, SimpleNamespace(), "fit")  # type: ignore[arg-type]
    assert (tmp_path / "run" / "vocabulary.json").is_file() == first
    assert capsys.readouterr().err.count("vocabulary: 1 words") == first


def test_scoring_takes_the_words_of_the_weights(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    data = ("--size", "32", "--seed", "1", "--data.test_count", "4", "--data.train_count", "2", "--out", "run")
    own = zoo("test", "--model", SPELLER, *data)
    assert own.code == 0, own.err
    assert zoo("test", "--model", SPELLER, *data, "--model.vocabulary", "[red]").out == own.out
    assert zoo("test", "--model", SPELLER, *data, "--resume", "auto").out == own.out
    last = "run/inpaint/checkpoints/last.ckpt"
    assert zoo("test", "--model", SPELLER, *data, "--ckpt_path", last).out == own.out
    foreign = zoo("test", "--model", "tests.toys_text.Chooser", *data, "--weights", WEIGHTS)
    assert foreign.code == 4
    assert "are of 'tests.toys_text.Speller'" in foreign.err
    nowhere = zoo("test", "--model", SPELLER, *data, "--ckpt_path", "nowhere.ckpt")
    assert nowhere.code == 4
    assert "nowhere.ckpt" in nowhere.err


def test_a_damaged_checkpoint_is_an_error_of_weights(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    Path(WEIGHTS).unlink()
    last = Path("run/inpaint/checkpoints/last.ckpt")
    whole = last.read_bytes()
    for content in (whole[:200], b"no checkpoint"):
        last.write_bytes(content)
        done = fit(zoo, "--resume", "auto")
        assert done.code == 4, done.err
        assert "the checkpoint cannot be read" in done.err
    torch.save([1, 2], last)
    assert "this is no checkpoint of a training run" in fit(zoo, "--resume", "auto").err


def test_the_benchmark_takes_weights_with_words(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    models = f"{SPELLER}@x={WEIGHTS},mean"
    done = zoo("benchmark", "--models", models, "--limit", "4", "--size", "32", "--json", "--out", "scores")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["failed"] == 0
    assert facts["methods"][f"{SPELLER}@x"]["l1_hole"]["mean"] != facts["methods"]["mean"]["l1_hole"]["mean"]


def test_a_caption_reaches_the_method_and_is_asked_for(zoo: Run, place: Path) -> None:
    assert fit(zoo).code == 0
    words = saved()["words"]
    state = load_file(WEIGHTS)
    assert not torch.equal(*(state["colours.weight"][words.index(word) + 4] for word in ("red", "blue")))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save("image.png")
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 12:28] = 255
    Image.fromarray(mask).save("mask.png")
    command = ("inpaint", "--model", SPELLER, "--weights", WEIGHTS, "--image", "image.png", "--mask", "mask.png")
    without = zoo(*command, "--out", "out")
    assert without.code == 2
    assert "--caption TEXT" in without.err
    assert not Path("out").exists()
    holes = {}
    for caption in ("red", "blue", "RED!", ""):
        done = zoo(*command, "--caption", caption, "--out", "out")
        assert done.code == 0, done.err
        holes[caption] = np.asarray(Image.open("out/image.png"))[mask > 0]
        expected = state["colours.weight"][words.index("red") + 4 if caption == "RED!" else 0].sigmoid()
        if caption == "RED!":
            assert np.abs(holes[caption] / 255 - expected.numpy()).max() < 1 / 255
    assert np.array_equal(holes["red"], holes["RED!"])
    assert not np.array_equal(holes["red"], holes["blue"])
