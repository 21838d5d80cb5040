"""The expansion of short names, as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo.cli.expand
from zoo.cli.expand import expand, explain
from zoo.errors import UsageError
from zoo.resources import resource

NANO, PAPER, COCO, FOLDER = "NANO", "PAPER", "COCO", "FOLDER"
DEEPFILL_NANO = f"--config {NANO} --preset nano --out runs/deepfill-nano"
DEEPFILL_PAPER = f"--config {PAPER} --preset paper --out runs/deepfill-paper"

OUT_NANO, OUT_PAPER = "--out runs/deepfill-nano", "--out runs/deepfill-paper"

TABLE = [
    ("fit --model deepfill", f"fit {DEEPFILL_NANO}"),
    ("fit --model=deepfill", f"fit {DEEPFILL_NANO}"),
    ("fit --model deepfill --data shapes", f"fit {DEEPFILL_NANO} --data.name shapes"),
    ("fit --model deepfill --dataset shapes", f"fit {DEEPFILL_NANO} --data.name shapes"),
    (
        "fit --model deepfill --data coco",
        f"fit --config {PAPER} --preset paper --config {COCO} {OUT_PAPER} --data.name coco",
    ),
    (
        "fit --model deepfill --data folder --preset nano",
        f"fit --config {NANO} --preset nano --config {FOLDER} {OUT_NANO} --data.name folder",
    ),
    ("fit --model deepfill --preset paper", f"fit {DEEPFILL_PAPER}"),
    ("fit --model deepfill --mask object", f"fit {DEEPFILL_NANO} --data.train_mask object"),
    ("fit --model deepfill --mask 2*object,center", f"fit {DEEPFILL_NANO} --data.train_mask 2*object,center"),
    ("test --model deepfill --mask center", f"test {DEEPFILL_NANO} --data.mask center"),
    ("fit --model deepfill --size 64", f"fit {DEEPFILL_NANO} --data.size 64 --model.size 64"),
    ("fit --model deepfill --seed 1", f"fit {DEEPFILL_NANO} --seed_everything 1 --data.seed 1"),
    ("fit --model deepfill --ema 0.999", f"fit {DEEPFILL_NANO} --ema 0.999"),
    ("fit --model deepfill --save-every 10", f"fit {DEEPFILL_NANO} --save_every 10"),
    ("fit --model deepfill --out RUN", f"fit --config {NANO} --preset nano --out RUN"),
    ("fit --model deepfill --resume auto", f"fit {DEEPFILL_NANO} --resume auto"),
    ("fit --model deepfill --stage inpaint", f"fit {DEEPFILL_NANO} --stage inpaint"),
    ("fit --model deepfill --config F", f"fit --config {NANO} --preset nano --config F --out runs/deepfill-nano"),
    ("fit --config F --seed 3", "fit --config F --seed_everything 3 --data.seed 3"),
    ("fit --config F -c G", "fit --config F --config G"),
    ("fit --model deepfill --model.lr 1e-4", f"fit {DEEPFILL_NANO} --model.lr 1e-4"),
    ("fit --model.lr=1e-4 --model deepfill", f"fit {DEEPFILL_NANO} --model.lr=1e-4"),
    (
        "fit --model deepfill --data.size 32 --size 64",  # what is dotted is read last, and wins
        f"fit {DEEPFILL_NANO} --data.size 64 --model.size 64 --data.size 32",
    ),
    (
        "fit --model deepfill --trainer.devices 4 --trainer.max_steps -1",
        f"fit {DEEPFILL_NANO} --trainer.devices 4 --trainer.max_steps -1",
    ),
    ("fit --model my.Method", "fit --model my.Method --preset nano --out runs/my.Method-nano"),
    ("fit --model my.pkg:Method", "fit --model my.pkg.Method --preset nano --out runs/my.pkg.Method-nano"),
    (
        "fit --model my.Method --data coco",
        f"fit --model my.Method --preset paper --config {COCO} --out runs/my.Method-paper --data.name coco",
    ),
    ("fit --model deepfill --data my.Data", f"fit {DEEPFILL_PAPER} --data.name my.Data"),
    ("validate --model deepfill --weights W", f"validate {DEEPFILL_NANO} --weights W"),
    (
        "test --model telea",
        "test --model zoo.models.controls.Telea --model.size 64 --out runs/telea-nano",
    ),
    (
        "fit --model deepfill --data coco --mask object --preset nano --size 64 --seed 1 --ema 0.999 --out RUN",
        f"fit --config {NANO} --preset nano --config {COCO} --out RUN --data.name coco --data.train_mask object "
        "--data.size 64 --model.size 64 --seed_everything 1 --data.seed 1 --ema 0.999",
    ),
]

ERRORS = [
    ("fit", "needs a method"),
    ("fit --model deepfil", "did you mean 'deepfill'"),
    ("fit --model deepfill --model telea", "given 2 times"),
    ("fit --model deepfill --model deepfill", "given 2 times"),
    ("fit --model deepfill --data shapes --dataset coco", "given 2 times"),
    ("fit --model telea", "nothing to train"),
    ("fit --model deepfill --data cocoo", "did you mean 'coco'"),
    ("fit --model deepfill --preset nanno", "did you mean 'nano'"),
    ("fit --model deepfill --preset nano.inpaint", "unknown preset"),
    ("fit --config F --preset nano", "--config already gives one"),
    ("fit --model deepfill --size 0", "at least 1"),
    ("fit --model deepfill --size big", "not a whole number"),
    ("fit --model deepfill --ema 1", "between 0 and 1"),
    ("fit --model deepfill --lr 1", "unknown option '--lr'"),
    ("fit --model deepfill --modle.lr 1", "did you mean --model.lr"),
    ("fit --model deepfill --model.lrr 1", "did you mean --model.lr"),
    ("fit --model deepfill --model.lr fast", "takes float"),
    ("fit --model deepfill --data.batchsize 8", "did you mean --data.batch_size"),
    ("fit --model deepfill --data.batch_size many", "takes int"),
    ("fit --model deepfill --trainer.max_stpes 8", "did you mean --trainer.max_steps"),
    ("fit --model deepfill --trainer.gradient_clip_val 1", "--model.clip_norm 1"),
    ("fit --model deepfill --trainer.accumulate_grad_batches 4", "--model.accumulate 4"),
    ("fit --model deepfill stray", "unexpected argument 'stray'"),
    ("validate --model deepfill --ema 0.9", "unknown option '--ema'"),
    ("train --model deepfill", "unknown verb"),
]


def _readable(words: list[str]) -> str:
    names = {str(resource(f"configs/model/deepfill/{p}.yaml")): p.upper() for p in ("nano", "paper")}
    names |= {str(resource(f"configs/data/{d}.yaml")): d.upper() for d in ("coco", "folder")}
    return " ".join(names.get(word, word) for word in words)


@pytest.mark.parametrize(("typed", "expanded"), TABLE)
def test_table(typed: str, expanded: str) -> None:
    assert _readable(expand(typed.split())) == expanded


@pytest.mark.parametrize(("typed", "message"), ERRORS)
def test_errors(typed: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(typed.split())
    assert message in str(caught.value)


def test_what_was_chosen_is_said() -> None:
    assert explain(["fit", "--model", "deepfill"]).notes == (
        "deepfill, preset nano (shapes implies it; --preset overrides), data shapes",
    )
    assert "preset paper (coco implies it" in explain(["fit", "--model", "deepfill", "--data", "coco"]).notes[0]
    assert "as asked" in explain(["fit", "--model", "deepfill", "--preset", "paper"]).notes[0]


NANO_FILES = "--config m/nano.yaml --preset nano"
OUT = "--out runs/deepfill-nano"
STAGES = [
    ("fit", f"{NANO_FILES} {OUT}"),
    ("fit --stage match", f"{NANO_FILES} --config m/nano.match.yaml {OUT} --stage match"),
    ("fit --stage=match", f"{NANO_FILES} --config m/nano.match.yaml {OUT} --stage match"),
    ("fit --stage inpaint", f"{NANO_FILES} {OUT} --stage inpaint"),
    ("fit --stage paper", f"{NANO_FILES} {OUT} --stage paper"),
    (
        "fit --stage match --data folder --preset nano",  # over the data's settings, too
        f"{NANO_FILES} --config FOLDER --config m/nano.match.yaml {OUT} --data.name folder --stage match",
    ),
    (
        "fit --stage match --config F.yaml --trainer.max_steps 5",  # what the user gives comes last, and wins
        f"{NANO_FILES} --config m/nano.match.yaml --config F.yaml {OUT} --stage match --trainer.max_steps 5",
    ),
    (
        "fit --stage match -c G.yaml -c F.yaml",
        f"{NANO_FILES} --config m/nano.match.yaml --config G.yaml --config G.match.yaml --config F.yaml {OUT} "
        "--stage match",
    ),
    ("fit --config G.yaml", f"{NANO_FILES} --config G.yaml {OUT}"),
    (
        "fit --stage match --out RUN --resume auto",
        f"{NANO_FILES} --config m/nano.match.yaml --config RUN/config.yaml --config RUN/config.match.yaml --out RUN "
        "--stage match --resume auto",
    ),
    (
        "fit --stage inpaint --out RUN --resume auto",
        f"{NANO_FILES} --config RUN/config.yaml --out RUN --stage inpaint --resume auto",
    ),
    ("test --out RUN --resume auto", f"{NANO_FILES} --config RUN/config.yaml --out RUN --resume auto"),
]


@pytest.mark.parametrize(("typed", "expanded"), STAGES)
def test_settings_of_a_stage(typed: str, expanded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (
        "m/nano.yaml",
        "m/nano.match.yaml",
        "G.yaml",
        "G.match.yaml",
        "RUN/config.yaml",
        "RUN/config.match.yaml",
    ):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    own = {"configs/model/deepfill/nano.yaml": Path("m/nano.yaml"), "configs/data/folder.yaml": Path("FOLDER")}
    monkeypatch.setattr(zoo.cli.expand, "resource", own.__getitem__)
    verb, *words = typed.split()
    assert " ".join(expand([verb, "--model", "deepfill", *words])) == f"{verb} {expanded}"


def test_the_settings_of_a_stage_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("G.match.yaml").touch()
    words = ["fit", "--model", "my.Method", "--config", "G.yaml"]
    assert explain([*words, "--stage", "match"]).notes[1:] == ("settings of G.match.yaml",)
    assert explain(words).notes[1:] == ()


def test_expansion_changes_nothing_it_is_given() -> None:
    words = ["fit", "--model", "deepfill", "--seed", "1"]
    first = expand(words)
    assert words == ["fit", "--model", "deepfill", "--seed", "1"]
    assert expand(words) == first


def test_resuming_takes_the_settings_of_the_run_over_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--model", "deepfill", "--resume", "auto", "--seed", "2"]
    tail = "--seed_everything 2 --data.seed 2 --resume auto"
    assert _readable(expand(words)) == f"fit {DEEPFILL_NANO} {tail}"
    folder = Path("runs/deepfill-nano")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    settings = f"--config {NANO} --preset nano --config {folder}/config.yaml --out {folder}"
    assert _readable(expand(words)) == f"fit {settings} {tail}"


def test_a_run_can_be_resumed_without_naming_its_method(tmp_path: Path) -> None:
    run = tmp_path / "run"
    last = run / "inpaint" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    (run / "config.yaml").write_text("seed_everything: 0\n")
    for named in (run, last):
        assert expand(["fit", "--resume", str(named), "--model.lr", "0.5"]) == [
            *("fit", "--config", f"{run}/config.yaml", "--out", str(run), "--resume", str(named), "--model.lr", "0.5")
        ]
    assert expand(["fit", "--out", str(run), "--resume", "auto"]) == [
        *("fit", "--config", f"{run}/config.yaml", "--out", str(run), "--resume", "auto")
    ]
    with pytest.raises(UsageError, match="needs a method"):
        expand(["fit", "--resume", "auto"])


def test_a_method_may_have_further_presets_and_overlays_of_stages_are_none() -> None:
    assert "configs/model/nigdt/tdanet.yaml" in " ".join(expand(["fit", "--model", "nigdt", "--preset", "tdanet"]))
    with pytest.raises(UsageError, match="tdanet"):
        expand(["fit", "--model", "deepfill", "--preset", "tdanet"])
    with pytest.raises(UsageError, match=r"nano\.match"):
        expand(["fit", "--model", "nigdt", "--preset", "nano.match"])
