"""The words of a text-guided method: made from the training captions once in a run, the same ever after."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from zoo.cli.lightning import ZooCLI
    from zoo.module import InpaintingModule

FILE = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """The words of a run, as RUN/vocabulary.json holds them.

    Attributes:
        method: Whose they are.
        source: The data whose training captions they were made from, the file they were taken from, or the method
            itself where it brings them.
        words: The words; a word's place in the list is what the method knows it by.
        whence: Where they come from, for the message; not written.
    """

    method: str
    source: str
    words: list[str]
    whence: str = ""

    def save(self, path: Path) -> None:
        """Writes them, whole or not at all, and says so in a line on stderr."""
        from zoo.weights import write_atomically

        content = {"method": self.method, "source": self.source, "words": self.words}
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        print(f"zoo fit: vocabulary: {len(self.words)} words {self.whence}, {path}", file=sys.stderr)


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads RUN/vocabulary.json.

    Raises:
        WeightsError: It is damaged.
    """
    try:
        found = Vocabulary(**json.loads(path.read_text(encoding="utf-8")), whence="of this run")
        words = found.words
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise ValueError("words must be a list of words")
        if len(set(words)) != len(words):
            raise ValueError("it names a word twice")
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"the vocabulary of this run is damaged: {error}",
            where=str(path),
            remedy="restore it; or delete it, and the words are taken from the checkpoint or weights of this run",
        ) from error
    return found


def is_left_to_fit(cli: ZooCLI, cls: type[InpaintingModule]) -> bool:
    """Whether the constructor takes a vocabulary and the configuration gives none."""
    if "vocabulary" not in inspect.signature(cls.__init__).parameters:
        return False
    return not cli.config.model["init_args"].get("vocabulary")


def settle(
    cli: ZooCLI, cls: type[InpaintingModule], run: Path, stage: str, checkpoint: Path | None
) -> Vocabulary | None:
    """Decides which words a stage is trained with, and puts them into the configuration.

    A run that goes on keeps its words, whatever the data are now: a word's place in the list is its row in the
    embedding.

    Args:
        cli: The parsed command line.
        cls: The class of the method.
        run: The run folder.
        stage: The stage that is trained.
        checkpoint: What is resumed from.

    Returns:
        None where the method takes no vocabulary or the configuration gives it.

    Raises:
        UsageError: The data have no captions, or RUN is another method's.
        WeightsError: RUN/vocabulary.json is damaged, or not of this checkpoint.
    """
    if not is_left_to_fit(cli, cls):
        return None
    found = _found(cli, cls, run, stage, checkpoint) or _made(cli, cls)
    if found is not None:
        cli.config.model["init_args"]["vocabulary"] = list(found.words)
    return found


def adopt(cli: ZooCLI, cls: type[InpaintingModule], words: Sequence[str]) -> None:
    """Gives a method that is scored the words of its weights, or of the checkpoint that is named.

    Args:
        cli: The parsed command line.
        cls: The class of the method.
        words: The words of its weights; empty where a checkpoint is scored.
    """
    if not is_left_to_fit(cli, cls):
        return
    words = words or (_of_checkpoint(Path(cli.config.ckpt_path)) if cli.config.ckpt_path else [])
    if words:
        cli.config.model["init_args"]["vocabulary"] = list(words)


def _found(
    cli: ZooCLI, cls: type[InpaintingModule], run: Path, stage: str, checkpoint: Path | None
) -> Vocabulary | None:
    """The words that this run has been trained with so far; None where it begins."""
    from zoo.cli.fit import WEIGHTS
    from zoo.weights import read_header

    words: list[str] = []
    before = [run / name / WEIGHTS for name in cls.stages[: cls.stages.index(stage)]]
    finished = [path for path in before if path.is_file()]
    origin = checkpoint or (finished[-1] if finished else None)
    if checkpoint is not None:
        words = _of_checkpoint(checkpoint)
    elif finished:
        words = read_header(finished[-1]).vocabulary
    path = run / FILE
    if (origin is not None or cli.config.resume) and path.is_file():
        found = read_vocabulary(path)
        _check(found, words, cli.method, path, origin)
        return found
    return Vocabulary(cli.method, str(origin), words, f"of {origin}") if words else None


def _check(found: Vocabulary, words: Sequence[str], method: str, path: Path, origin: Path | None) -> None:
    if found.method != method:
        raise UsageError(
            f"the vocabulary of this run is of '{found.method}', not of '{method}'",
            where=str(path),
            remedy="train into another folder with --out",
        )
    if words and list(words) != found.words:
        raise WeightsError(
            f"the vocabulary here ({len(found.words)} words) is not the one that {origin} was trained with"
            f" ({len(words)} words)",
            where=str(path),
            remedy="train into another folder with --out; or delete the file, and those words are taken",
        )


def _made(cli: ZooCLI, cls: type[InpaintingModule]) -> Vocabulary | None:
    from zoo.batch import check_needs

    data = cli.open_data()
    check_needs(cls.needs, data.provides, cli.method, cli.config.data.name)
    arguments: dict[str, Any] = cli.config.model["init_args"].as_dict()
    arguments.pop("vocabulary")
    read = False

    def captions() -> Iterator[str]:
        nonlocal read
        read = True
        return data.captions()

    words = cls.vocabulary_for(arguments, captions)
    if not words:
        return None
    source = str(cli.config.data.name if read else cli.method)
    whence = f"from the training captions of {source}" if read else "that the method brings"
    return Vocabulary(cli.method, source, list(words), whence)


def _of_checkpoint(path: Path) -> list[str]:
    from zoo.cli.checkpoint import read_checkpoint

    return list(read_checkpoint(path).get("hyper_parameters", {}).get("vocabulary") or [])
