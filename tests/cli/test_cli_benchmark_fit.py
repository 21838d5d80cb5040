"""`zoo benchmark --fit`: what is trained, how, and what becomes of a training that fails."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import SMALL, Run

from tests.fakes import tiny_coco
from zoo.cli.benchmark import asked_runs
from zoo.cli.benchmark_fit import fit_commands, fit_missing, train
from zoo.cli.interrupt import Stopped
from zoo.cli.parsers import benchmark_parser
from zoo.errors import UsageError

TRAIN = "zoo.cli.benchmark_fit.train"


def commands(*words: str) -> list[str]:
    [one] = asked_runs(benchmark_parser().parse_all(["--fit", *words]))
    return [" ".join(command) for command in fit_commands(one.options).values()]


def test_what_has_no_weights_is_trained_with_the_nano_recipe_on_the_data(place: Path) -> None:
    assert commands("--models", "toymethod.Toy,mean,deepfill,deepfill@x=W") == [
        "zoo fit --model toymethod.Toy --data shapes --preset nano --resume auto"
    ]
    assert commands(
        "--dataset", "coco", "--models", "toymethod.Toy", "--data.root", "D", "--option", "variant=2014"
    ) == ["zoo fit --model toymethod.Toy --data coco --preset nano --resume auto --data.root D --data.variant 2014"]
    assert commands("--dataset", "coco", "--models", "deepfill") == [], "nano weights ship, whatever the data"
    assert commands("--models", "deepfill,deepfill@fast", "--preset", "paper") == [
        "zoo fit --model deepfill --data shapes --preset paper --resume auto"
    ]
    assert commands("--models", "deepfill", "--weights", "deepfill=W", "--preset", "paper") == []
    assert commands("--models", "tests.fakes_benchmark.Obedient") == [], "there is nothing to train"


def test_only_methods_that_the_data_serve_are_trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"toy": "toymethod.Toy", "reader": "toymethod.Reader"}
    monkeypatch.setattr("zoo.models.MODELS", methods)
    assert set(fit_commands({})) == {"toy", "reader"}
    silent = {"dataset": "tests.fakes_benchmark:Dots", "data_options": {"silent": True}}
    assert set(fit_commands(silent)) == {"toy"}
    assert set(fit_commands({**silent, "models": ["reader"]})) == {"reader"}, "it was named: `zoo fit` says why not"
    assert set(fit_commands({**silent, "models": ["toy", "reader"], "leave_out": True})) == {"toy"}


def test_nothing_is_trained_for_masks_that_the_data_cannot_have(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.cli.benchmark_fit.train", lambda words: pytest.fail("it trains"))
    run = {"dataset": "tests.fakes_benchmark:Dots", "models": ["toymethod.Toy"]}
    with pytest.raises(UsageError, match="has an object"):
        fit_missing([run, {**run, "mask": "class:dog"}])
    monkeypatch.setattr("zoo.cli.benchmark_fit.train", lambda words: 0)
    assert fit_missing([run, {**run, "mask": "center"}]) == {}, "one of the runs can be"


def test_methods_are_trained_then_compared_with_these_weights(
    zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.cli.main import main

    trained: list[Sequence[str]] = []

    def briefly(words: Sequence[str]) -> int:
        trained.append(words)
        return main([*words, *SMALL, "--data.workers", "0"])

    monkeypatch.setattr(TRAIN, briefly)
    root = tiny_coco(place / "data" / "coco")
    words = ("benchmark", "--dataset", "coco", "--models", "toymethod.Toy,mean", "--limit", 2, "--fit", "--json")
    done = zoo(*words, "--data.root", root)
    assert done.code == 0, done.err
    facts = json.loads(done.out[done.out.index("{") :])
    assert facts["methods"]["toymethod.Toy"]["l1_hole"]["n"] == 2
    assert "toymethod.Toy: preset nano, trained on coco, runs/toymethod.Toy-nano/inpaint" in done.err
    assert len(trained) == 1
    again = zoo(*words, "--data.root", root)
    assert len(trained) == 1, "nothing is trained twice"
    assert json.loads(again.out) == facts


def test_a_training_that_fails_costs_its_method_alone(zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRAIN, lambda words: 1)
    words = ("benchmark", "--limit", 2, "--size", 32, "--fit", "--json")
    done = zoo(*words, "--models", "toymethod.Toy,mean")
    assert done.code == 5, done.err
    facts = json.loads(done.out)
    assert list(facts["methods"]) == ["mean"]
    assert "toymethod.Toy: its training ended with exit code 1; the others go on" in done.err
    for name in ("index.html", "table.md"):
        assert (
            "left out: toymethod.Toy (its training ended with exit code 1)" in (place / facts["run"] / name).read_text()
        )
    alone = zoo(*words, "--models", "toymethod.Toy")
    assert alone.code == 4
    assert "training ended with exit code 1" in alone.err
    assert "no 'nano' weights of 'toymethod.Toy'" in alone.err
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        monkeypatch.setattr(TRAIN, lambda words, code=code: code)
        stopped = zoo(*words, "--models", "toymethod.Toy,mean")
        assert stopped.code == code, number
        assert "the same command goes on" in stopped.err


def test_a_training_is_a_process_that_writes_to_stderr(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train(["--version"]) == 0
    written = capfd.readouterr()
    assert written.out == ""
    assert "inpainting-zoo" in written.err
    assert train(["nonsense"]) == 2


def test_a_training_that_is_stopped_saves_its_state_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = place / "program"
    program.write_text("#!/bin/sh\ntrap 'echo > saved; exit 143' TERM\necho > started\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))

    def stop(number: int, frame: object) -> None:
        if (place / "started").exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Stopped(signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        with pytest.raises(Stopped):
            train(["fit"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (place / "saved").exists()


def test_several_processes_do_not_all_train(zoo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = zoo("benchmark", "--models", "mean", "--fit")
    assert done.code == 2
    assert "--fit trains in one process" in done.err
