"""Options are read from source text; what the text says must be what Python says."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from zoo.cli.signatures import check_dotted, constructor
from zoo.errors import UsageError


def test_the_text_of_the_trainer_says_what_the_trainer_says() -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer import trainer

    read = constructor([Path(inspect.getfile(trainer))], "Trainer")
    assert read is not None
    assert set(read) == set(inspect.signature(Trainer.__init__).parameters) - {"self"}


def test_a_class_that_takes_anything_is_left_to_lightning(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text("class A:\n  def __init__(self, x: int, **more): ...\nclass B(A): ...\nclass C:\n  y = 1\n")
    assert [constructor([file], name) for name in "ABCD"] == [None] * 4
    assert constructor([tmp_path / "absent.py"], "A") is None


def test_arguments_and_annotations(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text("class A:\n  def __init__(self, x: int, *, y: float | None = None, z=3): ...\n")
    assert constructor([file], "A") == {"x": "int", "y": "float | None", "z": ""}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trainer.max_steps", "-1"),
        ("--trainer.devices", "auto"),
        ("--trainer.callbacks+", "my.Callback"),
        ("--trainer.logger.init_args.name", "x"),
        ("--data.root", "null"),
        ("--data.train_count", "null"),
        ("--data.batch_size", "${data.size}"),
        ("--model.init_args.lr", "1e-4"),
        ("--model.class_path", "my.Method"),
        ("--model.help", ""),
        ("--seed_everything", "3"),
        ("--print_config", ""),
    ],
)
def test_what_lightning_takes_passes(option: str, value: str) -> None:
    check_dotted("fit", option, value, "deepfill")


def test_methods_of_third_parties_are_not_checked() -> None:
    check_dotted("fit", "--model.anything", "1", "my.Method")
    with pytest.raises(UsageError):
        check_dotted("fit", "--model.anything", "1", "deepfill")
