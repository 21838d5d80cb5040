"""`zoo fit` from end to end, with a method of a third party and with DeepFill."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, Run
from PIL import Image
from safetensors.torch import load_file

from tests.processes import SAID, command, started
from zoo.cli.fit import find_checkpoint
from zoo.errors import WeightsError
from zoo.weights import load_weights, read_header

TOY = ("fit", "--model", "toymethod.Toy", *SMALL)


def same(a: Path, b: Path) -> bool:
    """Whether two weights files hold the same tensors, bit for bit."""
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_third_partys_method_from_end_to_end(zoo: Run, place: Path) -> None:
    done = zoo(*TOY)
    assert done.code == 0, done.err
    run = place / "runs" / "toymethod.Toy-nano"
    header = read_header(run / "inpaint" / "weights.safetensors")
    assert header.class_path == "toymethod.Toy"
    assert header.preset == "nano"
    story = header.provenance
    assert story["command"].startswith("zoo fit --model toymethod.Toy --size 32")
    assert (story["seed"], story["iterations"], story["images_seen"]) == (1, 6, 24)
    assert story["data"]["name"] == "shapes"
    assert story["versions"]["torch"] == torch.__version__.split("+")[0] or story["versions"]["torch"]
    assert story["validation"]["l1_hole"] > 0
    assert not {"date", "time"} & set(story)
    assert Image.open(run / "samples.png").size == (8 * 32, 3 * 32)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["class_path"] == "toymethod.Toy"
    assert config["resume"] is None
    log = next((run / "inpaint" / "log").glob("*/metrics.csv"))
    assert "train/l_rec" in next(csv.reader(log.open()))
    assert "val l1_hole" in done.err
    assert "inpaint 6/6  l_d" in done.err
    assert "it/s" in done.err
    assert "weights: " in done.out
    assert done.err.splitlines()[0].startswith("zoo fit: toymethod.Toy: no recipe")
    assert not any("critic" in name for name in load_file(run / "inpaint" / "weights.safetensors"))


def test_a_size_the_method_cannot_train_on_is_refused(zoo: Run, place: Path) -> None:
    done = zoo("fit", "--model", "deepfill", "--size", "50", "--mask", "box", "--trainer.max_steps", "1")
    assert done.code == 2
    assert "multiples of 8, not 50" in done.err
    assert "--size 48" in done.err


def test_a_finished_stage_is_skipped_and_an_unfinished_one_not_overwritten(zoo: Run, place: Path) -> None:
    assert zoo(*TOY).code == 0
    weights = place / "runs" / "toymethod.Toy-nano" / "inpaint" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    again = zoo(*TOY)
    assert again.code == 0
    assert "inpaint is finished" in again.err
    assert weights.stat().st_mtime_ns == before
    weights.unlink()
    refused = zoo(*TOY)
    assert refused.code == 2
    assert "unfinished run" in refused.err
    assert "--resume auto" in refused.err
    resumed = zoo(*TOY, "--resume", "auto")  # all steps are done: only the weights are written again
    assert resumed.code == 0, resumed.err
    assert "resuming at iteration 6" in resumed.err
    assert weights.is_file()


def test_the_same_seed_gives_the_same_file_and_another_gives_another(zoo: Run, place: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert zoo(*TOY, "--out", out, "--seed", seed).code == 0
    files = [place / out / "inpaint" / "weights.safetensors" for out in "abc"]
    assert same(files[0], files[1])
    assert not same(files[0], files[2])


def test_a_moving_average_is_validated_and_exported(zoo: Run, place: Path) -> None:
    for out, more in (("plain", ()), ("ema", ("--ema", "0.9"))):
        assert zoo(*TOY, "--out", out, *more).code == 0
    plain, average = (place / out / "inpaint" / "weights.safetensors" for out in ("plain", "ema"))
    assert not same(plain, average)
    assert read_header(average).provenance["ema"] == 0.9
    checkpoint = torch.load(place / "ema/inpaint/checkpoints/last.ckpt", weights_only=True)
    trained = load_file(plain)
    for name, tensor in trained.items():  # the average beside it, training itself was the same
        assert torch.equal(checkpoint["current_model_state"][name], tensor)


def test_the_command_line_wins_over_a_checkpoint(zoo: Run, place: Path) -> None:
    assert zoo(*TOY).code == 0
    last = place / "runs/toymethod.Toy-nano/inpaint/checkpoints/last.ckpt"
    done = zoo("fit", "--resume", last, "--model.lr", "0.5", "--trainer.max_steps", "8", "--out", "more")
    assert done.code == 0, done.err
    assert "lr was 0.001, is now 0.5 (the command line wins)" in done.err
    after = torch.load(place / "more/inpaint/checkpoints/last.ckpt", weights_only=True)
    assert {g["lr"] for state in after["optimizer_states"] for g in state["param_groups"]} == {0.5}
    assert after["global_step"] == 8
    same_rate = zoo("fit", "--resume", last, "--trainer.max_steps", "7", "--out", "other")
    assert same_rate.code == 0
    assert "command line wins" not in same_rate.err


def test_a_saved_configuration_trains_the_same_weights(zoo: Run, place: Path) -> None:
    assert zoo(*TOY, "--out", "first").code == 0
    assert zoo("fit", "--config", "first/config.yaml", "--out", "second").code == 0
    assert same(place / "first/inpaint/weights.safetensors", place / "second/inpaint/weights.safetensors")


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_as_typed(precision: str, zoo: Run, place: Path) -> None:
    done = zoo(*TOY, "--trainer.precision", precision)
    assert done.code == 0, done.err
    header = read_header(place / "runs/toymethod.Toy-nano/inpaint/weights.safetensors")
    assert header.provenance["precision"] == precision


@pytest.mark.slow
def test_two_processes_as_typed(zoo_process: Run, place: Path) -> None:
    done = zoo_process(*TOY, "--trainer.devices", 2, "--trainer.accelerator", "cpu")
    assert done.code == 0, done.err
    story = read_header(place / "runs/toymethod.Toy-nano/inpaint/weights.safetensors").provenance
    assert (story["devices"], story["images_seen"], story["iterations"]) == (2, 48, 6)
    assert done.out.count("weights: ") == 1
    assert done.err.count("no recipe") == 1


def test_stages_run_one_after_the_other_each_in_a_process(zoo: Run, place: Path) -> None:
    words = ("fit", "--model", "toymethod.Staged", *SMALL, "--out", "run")
    wrong = zoo(*words, "--stage", "frist")
    assert wrong.code == 2
    assert "did you mean 'first'" in wrong.err
    early = zoo(*words, "--stage", "second")
    assert early.code == 4
    assert "stage 'first' comes first" in early.err
    done = zoo(*words)
    assert done.code == 0, done.err
    for stage in ("first", "second"):
        assert read_header(place / "run" / stage / "weights.safetensors").provenance["stage"] == stage
    second = load_weights(place / "run/second/weights.safetensors")
    assert second.stage == "second"
    assert zoo(*words).err.count("is finished") == 2


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--model.width", "[1"], 2, "width"),
        (["--model.nothing", "3"], 2, "nothing"),
        (["--trainer.precision", "7"], 2, "precision"),
        (["--trainer.precision", "bf16-true"], 2, "remedy: bf16-mixed, 16-mixed or 32-true"),
        (["--trainer.precision", "64"], 2, "the weights, which are float32"),
        (["--data.mask", "objcet"], 2, "did you mean 'object'"),
        (["--data.train_mask", "objcet"], 2, "did you mean 'object'"),
        (["--data", "folder", "--data.root", "nowhere"], 3, "no such folder"),
        (["--resume", "nowhere.ckpt"], 4, "no checkpoint"),
        (["--stage", "nothing"], 2, "unknown stage"),
    ],
)
def test_bad_input(more: list[str], code: int, message: str, zoo: Run, place: Path) -> None:
    done = zoo(*TOY, *more)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(place.rglob("*.safetensors"))


def test_a_method_that_needs_more_than_the_data_has_is_refused_before_any_work(
    zoo: Run, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "a.png")
    words = ("--data", "folder", "--data.root", tmp_path / "pictures", "--preset", "nano")
    done = zoo("fit", "--model", "toymethod.Reader", *words)
    assert done.code == 2
    assert "needs caption" in done.err
    assert not (place / "runs").exists()


def test_a_full_disk_is_one_clear_error_and_leaves_no_weights(
    zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zoo.weights as weights

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(weights, "write_atomically", full)
    done = zoo(*TOY)
    assert done.code == 3
    assert "No space left on device" in done.err
    assert "free some space" in done.err
    assert not list(place.rglob("*.safetensors"))


DEEPFILL = (
    *("fit", "--model", "deepfill", "--size", "32", "--seed", "1", "--model.width", "8", "--model.d_base", "4"),
    *("--data.train_count", "50", "--data.val_count", "4", "--data.batch_size", "4", "--trainer.max_steps", "80"),
    *("--trainer.val_check_interval", "30", "--trainer.log_every_n_steps", "1", "--save-every", "17"),
)


def test_deepfill_resumes_to_the_bit(zoo: Run, place: Path) -> None:
    undisturbed = zoo(*DEEPFILL, "--out", "undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    for name, number, code in (("asked", signal.SIGTERM, 143), ("killed", signal.SIGKILL, -9)):
        said = _stopped_half_way([*DEEPFILL, "--out", name], place, number, code)
        if number == signal.SIGTERM:
            assert "--resume auto" in said
            assert "Traceback" not in said
        assert not (place / name / "inpaint/weights.safetensors").exists()
        resumed = zoo(*DEEPFILL, "--out", name, "--resume", "auto")
        assert resumed.code == 0, resumed.err
        files = [place / run / "inpaint/weights.safetensors" for run in ("undisturbed", name)]
        assert same(*files)
        stories = [read_header(file).provenance for file in files]
        assert stories[0]["images_seen"] == stories[1]["images_seen"] == 320
        assert stories[0]["validation"] == stories[1]["validation"]


def _stopped_half_way(words: list[str], place: Path, number: int, code: int) -> str:
    """What a process says that gets a signal in the middle of its training."""
    (place / SAID).unlink(missing_ok=True)
    with started(command, place, *words) as process:
        while not ((place / SAID).exists() and "inpaint 41/80" in (place / SAID).read_text()):
            assert process.is_alive(), (place / SAID).read_text()
            time.sleep(0.01)
        os.kill(process.pid or 0, number)
        process.join(60)
        assert process.exitcode == code
    return (place / SAID).read_text()


def test_a_signal_before_training_ends_at_once(place: Path) -> None:
    words = [sys.executable, "-m", "zoo", *TOY]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    assert any(line.startswith("zoo fit: toymethod.Toy") for line in process.stderr)
    time.sleep(0.3)  # it imports torch now
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


def test_a_checkpoint_of_another_stage_resumes_only_its_own(tmp_path: Path) -> None:
    last = tmp_path / "run" / "first" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    stages = ("first", "second")
    for named in (str(last), str(tmp_path / "run"), "auto"):
        assert find_checkpoint(named, tmp_path / "run", "first", stages) == last
    (last.parents[1] / "weights.safetensors").touch()
    for named in (str(last), str(tmp_path / "run"), "auto", None):
        assert find_checkpoint(named, tmp_path / "run", "second", stages) is None
    with pytest.raises(WeightsError, match="no checkpoint"):
        find_checkpoint(str(tmp_path), tmp_path / "run", "first", stages)


def test_weights_of_another_method_are_refused(zoo: Run, place: Path) -> None:
    assert zoo(*TOY).code == 0
    weights = place / "runs/toymethod.Toy-nano/inpaint/weights.safetensors"
    done = zoo("test", "--model", "deepfill", "--weights", weights, *SMALL[:2])
    assert done.code == 4
    assert "are of 'toymethod.Toy'" in done.err
    with pytest.raises(WeightsError):
        load_weights(weights, expect="zoo.models.deepfill.DeepFill")
