"""Which dotted options exist, read from source text: a misspelled `--trainer.max_stpes` is refused in milliseconds.

Importing Lightning to ask it takes seconds. What cannot be read this way (a third party's class, an option of an
option) is left to LightningCLI, which knows everything.
"""

from __future__ import annotations

import ast
import difflib
from importlib.util import find_spec
from pathlib import Path

from zoo.errors import UsageError
from zoo.models import MODELS

PLAIN = ("--seed_everything", "--ckpt_path", "--print_config")
INSTEAD = {
    "--trainer.gradient_clip_val": "--model.clip_norm",
    "--trainer.accumulate_grad_batches": "--model.accumulate",
}
_PACKAGE = Path(__file__).resolve().parents[1]
_BOOLEANS = {"true", "false", "yes", "no", "on", "off", "0", "1"}


def check_dotted(verb: str, option: str, value: str, model: str | None = None) -> None:
    """Checks one option that the front door itself does not know.

    Args:
        verb: The verb, for the message.
        option: As typed, with its dashes, without its value.
        value: What follows it, joined by spaces; empty where nothing does.
        model: The short name of the method; its options are checked where it is one of ours.

    Raises:
        UsageError: There is no such option, or the value is not of its type.
    """
    group, _, path = option.removeprefix("--").partition(".")
    if not path:
        if option not in (*PLAIN, "--trainer"):
            raise unknown_option(verb, option, [*_short_options(verb), *PLAIN])
        return
    if group not in ("trainer", "data", "model"):
        raise unknown_option(verb, option, [f"--{known}.{path}" for known in ("trainer", "data", "model")])
    if option in INSTEAD:
        raise UsageError(
            f"{option} does not work with several optimizers: Lightning leaves it to the method",
            remedy=f"{INSTEAD[option]} {value}".strip(),
        )
    known = _arguments(group, model)
    parts = [part for part in path.rstrip("+").split(".") if part not in ("init_args", "dict_kwargs")]
    if known is None or not parts or parts[0] in ("help", "class_path"):
        return
    if parts[0] not in known:
        raise unknown_option(verb, option, [f"--{group}.{name}" for name in known])
    if len(parts) == 1:
        _check_value(option, value, known[parts[0]])


def unknown_option(verb: str, option: str, known: list[str]) -> UsageError:
    """The error for an option that does not exist, with the nearest that do."""
    near = difflib.get_close_matches(option, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(f"unknown option '{option}'", remedy=f"{hint}zoo {verb} --help lists the options")


def _short_options(verb: str) -> list[str]:
    from zoo.cli.parsers import lightning_parser

    return lightning_parser(verb).options()


def _arguments(group: str, model: str | None) -> dict[str, str] | None:
    if group == "trainer":
        spec = find_spec("lightning")
        folders = list(spec.submodule_search_locations or []) if spec else []
        return constructor([Path(folder) / "pytorch/trainer/trainer.py" for folder in folders], "Trainer")
    if group == "data":
        return constructor([_PACKAGE / "data/module.py"], "InpaintingData")
    if model not in MODELS:
        return None
    module, _, name = MODELS[model].rpartition(".")
    folder = _PACKAGE.joinpath(*module.split(".")[1:])
    return constructor(sorted(folder.glob("*.py")), name)


def constructor(files: list[Path], name: str) -> dict[str, str] | None:
    """The constructor's arguments and their annotations as text, from source.

    Args:
        files: Where the class may be defined; those that do not exist are passed over.
        name: The name of the class.

    Returns:
        None where no file defines the class with an `__init__`, or where it takes any keyword.
    """
    for file in files:
        if not file.is_file():
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _init_arguments(node)
    return None


def _init_arguments(node: ast.ClassDef) -> dict[str, str] | None:
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            if function.args.kwarg is not None:
                return None
            arguments = [*function.args.args[1:], *function.args.kwonlyargs]
            return {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in arguments}
    return None


def _check_value(option: str, value: str, annotation: str) -> None:
    """Refuses a value that a plain int, float or bool cannot be; other types are LightningCLI's."""
    kinds = {part.strip() for part in annotation.replace("Optional[", "").rstrip("]").split("|")}
    if not value or "${" in value or (kinds != {annotation} and value.lower() in ("null", "none")):
        return
    kinds.discard("None")
    try:
        if kinds == {"int"}:
            int(value)
        elif kinds == {"float"}:
            float(value)
        elif kinds == {"bool"} and value.lower() not in _BOOLEANS:
            raise ValueError
    except ValueError:
        raise UsageError(f"{option} takes {' or '.join(sorted(kinds))}, got '{value}'") from None
