"""Methods of several stages: settings per stage, stages that cannot complete an image, weights between stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, Run
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo.cli.fit as zoo_fit
from tests.toys_stages import Painter
from zoo.cli.fit import WEIGHTS, _load_predecessors
from zoo.cli.interrupt import Stopped
from zoo.cli.main import main
from zoo.errors import WeightsError
from zoo.models import MODELS, resolve
from zoo.resources import resource
from zoo.weights import load_weights, read_header

PAINTER = "tests.toys_stages.Painter"
DATA = ("--size", "32", "--data.batch_size", "4", "--data.test_count", "4", "--data.val_count", "4")
FIT = ("fit", "--model", PAINTER, *SMALL, "--out", "run")
BRIEF = ("--trainer.limit_val_batches", "0")


class Inside:
    """Runs in this process what would be a child: importing everything anew takes seconds."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        assert command[:3] == [sys.executable, "-m", "zoo"]
        assert env[zoo_fit.ALL_STAGES] == "1"
        self.code = main(command[3:])

    def wait(self) -> int:
        return self.code


@dataclass(frozen=True)
class Subprocess:
    """What `zoo.cli.fit` takes from the module `subprocess`."""

    Popen: Any
    TimeoutExpired: type[Exception] = subprocess.TimeoutExpired


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_fit, "subprocess", Subprocess(Inside))


def story(stage: str, run: str = "run") -> dict[str, Any]:
    return read_header(Path(run) / stage / WEIGHTS).provenance


def settings(name: str, run: str = "run") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((Path(run) / name).read_text())
    return content


def write(name: str, **content: Any) -> str:
    Path(name).write_text(yaml.safe_dump(content))
    return name


def test_two_stages_from_end_to_end(zoo: Run, place: Path) -> None:
    first = zoo(*FIT, "--stage", "match")
    assert first.code == 0, first.err
    lines = [line for line in first.err.splitlines() if line.startswith(("match 3  val", "match 6  val"))]
    assert len(lines) == 2, first.err
    assert all("matched" in line for line in lines)
    assert "validation: matched" in first.out
    assert set(story("match")["validation"]) == {"matched", "matched_odd"}
    assert "samples" not in first.out
    assert not list(Path("run").glob("samples*"))
    second = zoo(*FIT, "--stage", "inpaint")
    assert second.code == 0, second.err
    assert f"3 of 3 tensors taken over from run/match/{WEIGHTS}" in second.err
    assert "validation: l1_hole" in second.out
    assert Path("run/samples.png").is_file()
    assert Path("run/samples.txt").is_file()
    matched, painted = (load_file(Path("run") / stage / WEIGHTS) for stage in ("match", "inpaint"))
    assert set(matched) == {"words.weight", "match.weight", "match.bias"}
    assert set(painted) == {"words.weight", "paint.weight", "paint.bias"}
    assert torch.equal(matched["words.weight"], painted["words.weight"])
    checkpoint = torch.load("run/inpaint/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(checkpoint["match.weight"], matched["match.weight"])
    scored = zoo("test", "--model", PAINTER, *DATA, "--out", "run")
    assert scored.code == 0, scored.err
    assert "l1_hole" in scored.out
    last = zoo("test", "--model", PAINTER, *DATA, "--out", "run", "--ckpt_path", "run/inpaint/checkpoints/last.ckpt")
    assert last.out == scored.out


def test_weights_that_cannot_complete_are_refused_wherever_images_are_completed(zoo: Run, place: Path) -> None:
    assert zoo(*FIT, *BRIEF, "--stage", "match").code == 0
    weights = f"run/match/{WEIGHTS}"
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save("image.png")
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save("mask.png")
    files = ("--image", "image.png", "--mask", "mask.png", "--out", "out", "--caption", "a red ball")
    own = ("--model", PAINTER, "--weights", weights)
    commands: list[tuple[object, ...]] = [
        *((verb, *own, *DATA, "--out", "other") for verb in ("validate", "test", "predict")),
        ("test", "--model", PAINTER, *DATA, "--model.vocabulary", "[red]", "--ckpt_path", "match.ckpt"),
        ("inpaint", *own, *files),
        ("benchmark", "--models", f"{PAINTER}@x={weights},mean", "--limit", "2", "--size", "32", "--out", "out"),
    ]
    os.link("run/match/checkpoints/last.ckpt", "match.ckpt")
    for command in commands:
        done = zoo(*command)
        assert done.code == 4, (command, done.err)
        assert f"stage 'match' of {PAINTER} does not complete images" in done.err
        assert f"where: {'match.ckpt' if 'match.ckpt' in command else weights}" in done.err.replace(f"{place}/", "")
        assert f"zoo fit --model {PAINTER} --stage inpaint" in done.err
        assert not Path("out").exists()
    verified = zoo("weights", "verify", weights)
    assert verified.code == 0, verified.err


def test_every_unfinished_stage_has_a_process_with_its_settings(zoo: Run, children: None, place: Path) -> None:
    write("mine.yaml", trainer={"max_steps": 3})
    write("mine.match.yaml", trainer={"max_steps": 2}, data={"batch_size": 5}, model={"init_args": {"lr": 0.05}})
    words = ("fit", "--model", PAINTER, "--config", "mine.yaml", "--size", "32", "--data.train_count", "20", *BRIEF)
    done = zoo(*words, "--out", "run", "--model.width", "2")
    assert done.code == 0, done.err
    assert done.err.count("zoo fit: settings of mine.match.yaml") == 1
    assert (story("match")["iterations"], story("match")["data"]["batch_size"]) == (2, 5)
    assert (story("inpaint")["iterations"], story("inpaint")["data"]["batch_size"]) == (3, 32)
    arguments = [read_header(Path("run") / stage / WEIGHTS).config for stage in ("match", "inpaint")]
    assert [(a["lr"], a["width"], a["stage"]) for a in arguments] == [(0.05, 2, "match"), (0.1, 2, "inpaint")]
    Path("run/match", WEIGHTS).unlink()
    Path("run/match/checkpoints/last.ckpt").unlink()
    again = zoo(*words, "--out", "run", "--model.width", "2", "--data.batch_size", "6")
    assert again.code == 0, again.err
    assert "inpaint is finished" in again.err
    assert (story("match")["iterations"], story("match")["data"]["batch_size"]) == (2, 6), "one stage, and typed wins"
    reproduced = zoo("fit", "--config", "run/config.yaml", "--out", "second", "--data.batch_size", "6")
    assert reproduced.code == 0, reproduced.err
    tensors = [load_file(Path(run) / "match" / WEIGHTS) for run in ("run", "second")]
    assert all(torch.equal(tensors[1][name], value) for name, value in tensors[0].items())


def test_the_settings_of_a_stage_are_printed_and_recorded(zoo: Run, place: Path) -> None:
    write("mine.yaml", trainer={"max_steps": 3})
    write("mine.match.yaml", trainer={"max_steps": 2, "precision": "bf16-mixed"}, ema=0.5)
    words = (*FIT[:3], "--config", "mine.yaml", "--size", "32", "--data.train_count", "20", *BRIEF, "--out", "run")
    for more, steps, ema in (((), 3, None), (("--stage", "match"), 2, 0.5), (("--stage", "inpaint"), 3, None)):
        printed = yaml.safe_load(zoo(*words, *more, "--print_config").out)
        assert (printed["trainer"]["max_steps"], printed["ema"]) == (steps, ema)
    done = zoo(*words, "--stage", "match", "--data.batch_size", "3")
    assert done.code == 0, done.err
    assert (story("match")["ema"], story("match")["precision"]) == (0.5, "bf16-mixed")
    files = {name: settings(name) for name in ("config.yaml", "config.match.yaml", "config.inpaint.yaml")}
    assert [content["trainer"]["max_steps"] for content in files.values()] == [3, 2, 3]
    assert [content["data"]["batch_size"] for content in files.values()] == [3, 3, 3]
    assert [content["model"]["init_args"]["stage"] for content in files.values()] == ["", "match", "inpaint"]
    assert {content["stage"] for content in files.values()} == {None}


def test_a_resumed_run_keeps_what_was_typed_for_the_stages_to_come(zoo: Run, children: None, place: Path) -> None:
    write("mine.yaml", data={"batch_size": 4})
    write("mine.inpaint.yaml", trainer={"max_steps": 9}, data={"batch_size": 8})
    begun = ("--config", "mine.yaml", "--data.batch_size", "2", "--trainer.max_steps", "2")
    assert zoo(*FIT, *BRIEF, *begun, "--stage", "match").code == 0
    done = zoo("fit", "--resume", "run")
    assert done.code == 0, done.err
    assert "settings of run/config.inpaint.yaml" in done.err
    assert (story("inpaint")["iterations"], story("inpaint")["data"]["batch_size"]) == (2, 2)
    Path("run/inpaint", WEIGHTS).unlink()
    more = zoo("fit", "--resume", "run", "--stage", "inpaint", "--trainer.max_steps", "3")
    assert more.code == 0, more.err
    assert "resuming at iteration 2" in more.err
    assert story("inpaint")["iterations"] == 3


@pytest.mark.slow
def test_a_stopped_run_is_resumed_whole(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*FIT, *BRIEF, "--trainer.max_steps", "100000", "--save-every", "50")
    process = subprocess.Popen([sys.executable, "-m", "zoo", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = next((line for line in process.stderr if line.startswith("match 4/")), None)
    assert seen is not None
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait(timeout=60) == 143
    (advice,) = [line for line in said.splitlines() if "go on with" in line]
    assert advice.endswith("--resume auto")
    assert "--stage" not in advice
    monkeypatch.setattr(zoo_fit, "subprocess", Subprocess(Inside))
    done = zoo(*words, "--resume", "auto", "--trainer.max_steps", "8")
    assert done.code == 0, done.err
    assert "resuming at iteration" in done.err
    assert Path("run/inpaint", WEIGHTS).is_file()


@pytest.mark.parametrize("patient", [True, False])
def test_a_child_has_time_for_its_last_step_after_an_interrupt(patient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    class Child:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            events.append(command[-2:])

        def wait(self, timeout: float | None = None) -> int:
            events.append(timeout)
            if len(events) == 2:
                raise KeyboardInterrupt
            if timeout is not None and not patient:
                raise subprocess.TimeoutExpired("zoo", timeout)
            return 130

        def send_signal(self, number: int) -> None:
            events.append(number)

    monkeypatch.setattr(zoo_fit, "subprocess", Subprocess(Child))
    with pytest.raises(KeyboardInterrupt):
        zoo_fit._each_in_a_process(["match", "inpaint"], [])
    cut = [] if patient else [signal.SIGTERM, None]
    assert events == [["--stage", "match"], None, zoo_fit.PATIENCE, *cut]


def test_a_stop_reaches_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    class Child:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            events.append(env[zoo_fit.ALL_STAGES])

        def wait(self) -> int:
            events.append("wait")
            if events == ["1", "wait"]:
                raise Stopped(signal.SIGTERM)
            return 143

        def send_signal(self, number: int) -> None:
            events.append(number)

    monkeypatch.setattr(zoo_fit, "subprocess", Subprocess(Child))
    with pytest.raises(Stopped):
        zoo_fit._each_in_a_process(["match", "inpaint"], [])
    assert events == ["1", "wait", signal.SIGTERM, "wait"]


def test_a_tensor_of_another_shape_is_named(zoo: Run, place: Path) -> None:
    assert zoo(*FIT, *BRIEF, "--stage", "match").code == 0
    done = zoo(*FIT, *BRIEF, "--stage", "inpaint", "--model.width", "8")
    assert done.code == 4, done.err
    assert "'match.bias' is (4,) in stage 'match', (8,) in stage 'inpaint'" in done.err
    assert f"run/match/{WEIGHTS}" in done.err
    assert not Path("run/inpaint", WEIGHTS).exists()


class Three(Painter):
    """A method of three stages."""

    stages = ("match", "inpaint", "again")


def saved(run: Path, **stages: dict[str, torch.Tensor]) -> None:
    for stage, tensors in stages.items():
        (run / stage).mkdir(parents=True)
        save_file(tensors, run / stage / WEIGHTS)


def test_either_side_may_lack_tensors_and_the_later_stage_wins(tmp_path: Path) -> None:
    module = Painter(stage="inpaint", vocabulary=["red"])
    one, two = torch.full((4,), 1.0), torch.full((4,), 2.0)
    weight = module.match.weight.detach().clone()
    first = {"match.bias": one, "match.weight": weight, "old.bias": one.clone()}
    saved(tmp_path, match=first, inpaint={"match.bias": two, "match.weight": weight.clone()})
    before = module.paint.weight.clone()
    _load_predecessors(module, tmp_path, ("match",))
    assert torch.equal(module.match.bias, one)
    _load_predecessors(module, tmp_path, ("match", "inpaint"))
    assert torch.equal(module.match.bias, two)
    assert torch.equal(module.paint.weight, before)
    _load_predecessors(module, tmp_path, ())


def test_nothing_to_take_over_is_an_error_only_where_no_stage_has_anything(tmp_path: Path) -> None:
    later = {"match.bias": torch.ones(4), "match.weight": Painter(stage="inpaint", vocabulary=["red"]).match.weight}
    saved(tmp_path, match={"old.bias": torch.ones(4)}, inpaint=later)
    with pytest.raises(WeightsError, match="no tensor of the stages before it"):
        _load_predecessors(Painter(stage="inpaint", vocabulary=["red"]), tmp_path, ("match",))
    _load_predecessors(Three(stage="again", vocabulary=["red"]), tmp_path, ("match", "inpaint"))
    with pytest.raises(WeightsError, match="'other' comes first"):
        _load_predecessors(Painter(stage="inpaint", vocabulary=["red"]), tmp_path, ("match", "other"))


def test_weights_of_the_last_stage_need_no_training_network(zoo: Run, place: Path) -> None:
    for stage in ("match", "inpaint"):
        assert zoo(*FIT, *BRIEF, "--stage", stage).code == 0
    assert "match.weight" not in load_file(f"run/inpaint/{WEIGHTS}")
    assert load_weights(f"run/inpaint/{WEIGHTS}").stage == "inpaint"
    early = load_weights(f"run/match/{WEIGHTS}", any_stage=True)
    assert torch.equal(early.state_dict()["match.weight"], load_file(f"run/match/{WEIGHTS}")["match.weight"])


def test_shipped_settings_are_of_a_preset_and_a_stage_that_exist() -> None:
    for name in MODELS:
        files = sorted(resource(f"configs/model/{name}").glob("*.yaml"))
        assert files
        stages = resolve(name).stages
        for file in files:
            preset, _, stage = file.stem.partition(".")
            assert file.with_name(f"{preset}.yaml") in files, file
            assert not stage or (len(stages) > 1 and stage in stages), f"{file}: stages are {stages}"
