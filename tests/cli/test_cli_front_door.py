"""The front door: fast, without torch, with the exit codes that it promises."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run

from zoo.cli import main as front
from zoo.cli.interrupt import Stopped
from zoo.cli.parsers import LIGHTNING_VERBS, PARSERS
from zoo.errors import DataError, UsageError, WeightsError, ZooError

USAGE_ERRORS = [
    ["fitt"],
    ["--verbose"],
    ["fit"],
    ["fit", "--model", "deepfil"],
    ["fit", "--modle", "deepfill"],
    ["fit", "--model", "deepfill", "--model", "telea"],
    ["fit", "--model", "deepfill", "--data", "coocoo"],
    ["fit", "--model", "deepfill", "--trainer.max_stpes", "3"],
    ["fit", "--model", "deepfill", "--trainer.max_steps", "three"],
    ["fit", "--model", "deepfill", "--model.lrr", "3"],
    ["fit", "--model", "deepfill", "--size", "-1"],
    ["fit", "--model", "deepfill", "--mask", "objcet"],
    ["test", "--model", "deepfill", "--ema", "0.9"],
    ["benchmark", "--limt", "3"],
    ["benchmark", "--limit", "0"],
    ["benchmark", "--models", "deepfil"],
    ["benchmark", "--models", ","],
    ["benchmark", "--dataset", "coocoo"],
    ["benchmark", "--dataset", "shapes", "--data", "coco"],
    ["benchmark", "--preset", "nanno"],
    ["benchmark", "--mask", "irregular:50"],
    ["benchmark", "--shard", "5/4"],
    ["benchmark", "--weights", "deepfill"],
    ["benchmark", "--set", "steps=50"],
    ["benchmark", "--suite", "nosuch"],
    ["report"],
    ["report", "RUN", "--against", "nobody"],
    ["inpaint"],
    ["inpaint", "--model", "deepfill"],
    ["inpaint", "--model", "a", "--model", "b"],
    ["masks"],
    ["masks", "mkae"],
    ["masks", "verify"],
    ["masks", "make", "--mask", "objcet", "--out", "F"],
    ["data"],
    ["data", "info"],
    ["data", "inof", "shapes"],
    ["data", "info", "shaps"],
    ["weights"],
    ["weights", "lsit"],
    ["weights", "pull"],
    ["weights", "convert", "F"],
    ["list"],
    ["list", "modles"],
    ["doctor", "--jsn"],
]


@pytest.mark.parametrize("words", USAGE_ERRORS, ids=" ".join)
def test_usage_errors_exit_2_and_name_a_remedy(words: list[str], zoo: Run) -> None:
    done = zoo(*words)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("zoo: ")
    assert "remedy:" in done.err or "takes int" in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 4


def _seconds(words: list[str]) -> float:
    """What a fresh process of one thread computes: its time on a free core, whatever the neighbours do."""
    command, environment = [sys.executable, "-m", "zoo", *words], {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["fit", "--help"],
        ["fit", "--model", "deepfill", "--trainer.max_stpes", "3"],
        ["benchmark", "--dataset", "coocoo"],
        ["benchmark", "--mask", "objcet"],
        ["list", "modles"],
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_take_under_300_ms(words: list[str]) -> None:
    assert min(_seconds(words) for _ in range(3)) < 0.3


def test_no_usage_error_imports_torch_or_lightning(place: Path) -> None:
    code = f"""
import contextlib, io, sys
from zoo.cli.main import main
for words in {USAGE_ERRORS!r} + [["--help"], ["fit", "--help"], ["benchmark", "--help"], ["--version"]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(words)
    assert not {{"torch", "lightning", "jsonargparse"}} & set(sys.modules), words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", [[], *[[verb] for verb in (*LIGHTNING_VERBS, *PARSERS)]], ids=lambda v: " ".join(v))
def test_help_fits_one_screen(verb: list[str], zoo: Run) -> None:
    done = zoo(*verb, "--help")
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) <= 48
    assert max(map(len, lines)) <= 118
    assert lines[0].startswith("usage: zoo")


def test_the_overview_names_every_verb_and_exit_code(zoo: Run) -> None:
    out = zoo().out
    for word in (*LIGHTNING_VERBS, *PARSERS, "130", "143", "--offline", "--debug"):
        assert word in out
    assert zoo("--version").out == f"inpainting-zoo {front.__version__}\n"


def test_help_all_lists_what_lightning_takes(zoo: Run) -> None:
    done = zoo("fit", "--help-all")
    assert done.code == 0
    for option in ("--trainer.max_steps", "--data.train_mask", "--model", "--save_every"):
        assert option in done.out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("u", "here", "mend"), 2, "zoo: u\n  where: here\n  remedy: mend\n"),
        (DataError("d"), 3, "zoo: d\n"),
        (WeightsError("w"), 4, "zoo: w\n"),
        (ZooError("z"), 1, "zoo: z\n"),
        (Stopped(signal.SIGTERM, "go on with: x"), 143, "zoo: terminated; go on with: x\n"),
        (Stopped(signal.SIGINT), 130, "zoo: interrupted\n"),
        (KeyboardInterrupt(), 130, "zoo: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/f"), 3, "free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/f"), 3, "check the permissions"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/f"), 1, "unexpected FileNotFoundError"),
        (ValueError("v"), 1, "unexpected ValueError: v\n  this is a bug; the same command with --debug"),
    ],
)
def test_exit_codes(error: BaseException, code: int, message: str, zoo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(front, "_dispatch", fail)
    done = zoo("anything")
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in zoo("anything", "--debug").err


def test_offline_reaches_every_library(zoo: Run) -> None:
    assert zoo("--offline", "list", "metrics").code == 0
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ZOO_OFFLINE"):
        assert os.environ[name] == "1"


def test_a_reader_that_leaves_early_is_no_error(place: Path) -> None:
    command = [sys.executable, "-m", "zoo", "list", "metrics"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == b""


def test_the_terminal_gets_a_bar_and_a_file_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.cli.progress import Meter

    with Meter("work", 10) as meter:
        for done in (5, 10):
            meter.update(done, f"text {done}")
        meter.update(10)
    assert capsys.readouterr().err == "work 5/10  text 5\nwork 10/10  text 10\n"


def test_the_lines_of_a_training_show_the_usual_figures_and_their_variants() -> None:
    from zoo.cli.callbacks import shown

    values = {"guided_shape_fidelity": 0.9, "l1_known": 0.1, "psnr": 20.0, "shape_fidelity": 0.5}
    assert list(shown(values)) == ["guided_shape_fidelity", "shape_fidelity", "psnr"]
    assert shown({"noise_mse": 0.2}) == {"noise_mse": 0.2}


MINE = """
from zoo.models.controls import Mean

class Mine(Mean):
    pass
"""


def test_a_console_script_finds_a_method_where_it_is_run_and_shadows_nothing(place: Path) -> None:
    script = place.parent / "bin" / "zoo"
    script.parent.mkdir()
    script.write_text("import sys\nfrom zoo.cli.main import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    (place / "mine.py").write_text(MINE)
    (place / "numpy.py").write_text("raise SystemExit('this is not numpy')\n")
    words = ["benchmark", "--models", "mean,mine.Mine", "--limit", "4", "--batch-size", "2", "--size", "32"]
    command = [sys.executable, str(script), *words, "--devices", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "mine.Mine" in done.stdout


def test_the_folder_is_looked_in_last_and_once(zoo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = list(sys.path)
    for _ in range(2):
        zoo("--version")
        assert sys.path == [*before, ""]


def test_signal_handling_is_given_back(zoo: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    zoo("--version")
    assert signal.getsignal(signal.SIGTERM) is before
