"""Weights as safetensors with their whole story in the header: method, configuration, provenance, licence.

No pickle is loaded here, and a file says itself how to rebuild the module that it belongs to.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.errors import WeightsError

if TYPE_CHECKING:
    from zoo.module import InpaintingModule

LICENCE = "Apache-2.0"  # of weights that were trained here from nothing else
FORMAT = "inpainting-zoo/1"
_KEY = "zoo"
_MODELS = Path(__file__).resolve().parent / "models"


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself.

    Attributes:
        class_path: The dotted path of the method's class.
        preset: `nano`, `paper` or a name of your own.
        config: Constructor arguments, plain types, without the vocabulary.
        provenance: Command, seed, code version, data, figures; free form.
        licence: Under which terms the weights may be used.
        vocabulary: The words of a word-level tokenizer; empty where there is none.
    """

    class_path: str
    preset: str
    config: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    licence: str = LICENCE
    vocabulary: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The short name where the class has one, else the dotted path."""
        from zoo.models import MODELS

        return next((name for name, path in MODELS.items() if path == self.class_path), self.class_path)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor takes: `config`, and `vocabulary` where there is one."""
        return self.config | ({"vocabulary": list(self.vocabulary)} if self.vocabulary else {})


def constructor_arguments(module: InpaintingModule) -> dict[str, Any]:
    """The saved hyperparameters that the constructor takes (Lightning adds keys of its own)."""
    known = inspect.signature(type(module).__init__).parameters
    return {k: _plain(v) for k, v in module.hparams.items() if k in known}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _parted(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Constructor arguments without their vocabulary, and the vocabulary; a `vocabulary` of another kind stays."""
    words = config.get("vocabulary")
    if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
        return {name: value for name, value in config.items() if name != "vocabulary"}, words
    return dict(config), []


def save_weights(
    module: InpaintingModule,
    path: str | Path,
    *,
    preset: str = "custom",
    provenance: dict[str, Any] | None = None,
    half: bool = False,
    licence: str = LICENCE,
) -> Path:
    """Writes what completing an image needs, atomically.

    Args:
        module: A method whose constructor calls `save_hyperparameters()`.
        path: The file to write.
        preset: The preset these weights are of.
        provenance: Command, seed, code version, data, figures.
        half: Store float tensors as fp16 (they are loaded as float32).
        licence: Under which terms the weights may be used.
    """
    from safetensors.torch import save

    state = module.exported_state()
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = Path(path)
    cls = type(module)
    arguments = {name: value for name, value in constructor_arguments(module).items() if name not in cls.starting}
    config, vocabulary = _parted(arguments)
    header = Header(
        class_path=_class_path(cls),
        preset=preset,
        config=config,
        provenance=provenance or {},
        licence=licence,
        vocabulary=vocabulary,
    )
    # One key alone: safetensors writes several in an order of its own, and the same weights would differ in bytes.
    content = save(state, metadata={_KEY: json.dumps({"format": FORMAT, **asdict(header)}, sort_keys=True)})
    write_atomically(path, content)
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: a temporary file beside it, then a rename.

    Raises:
        OSError: The disk is full or not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes it private
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_header(path: str | Path) -> Header:
    """Reads what a weights file says of itself, without its tensors.

    Raises:
        WeightsError: No such file, not a safetensors file, or not one of the zoo's.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError("no such weights file", where=str(path))
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a readable safetensors file: {error}", where=str(path)) from error
    return parse_header(metadata, str(path))


def parse_header(metadata: Mapping[str, str], where: str) -> Header:
    """What the metadata of a safetensors file say of the weights.

    Args:
        metadata: The file's `__metadata__`.
        where: The file or its address, for the error.

    Raises:
        WeightsError: Not weights of the zoo.
    """
    try:
        content = json.loads(metadata[_KEY])
        if content.pop("format") != FORMAT:
            raise KeyError("format")
        # Older files have the vocabulary in both places.
        content["config"], inside = _parted(content["config"])
        content["vocabulary"] = inside or content.get("vocabulary", [])
        return Header(**content)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            "these weights were not written by inpainting-zoo",
            where=where,
            remedy="convert them: zoo weights convert FILE --model NAME --kind LAYOUT --out FILE",
        ) from error


def load_weights(path: str | Path, expect: str | None = None, any_stage: bool = False) -> InpaintingModule:
    """Rebuilds the method a file belongs to, with its weights, in evaluation mode.

    Args:
        path: A file of `save_weights`.
        expect: The dotted class path the caller asked for; None takes whatever the file holds.
        any_stage: Take weights of a training stage that does not complete images, too.

    Raises:
        WeightsError: The file is of another method or of a stage that does not complete images, or its tensors do not
            fit its own configuration.
    """
    from safetensors.torch import load_file

    from zoo.models import resolve

    header = read_header(path)
    if expect is not None and header.class_path != expect and resolve(header.class_path) is not resolve(expect):
        raise WeightsError(
            f"these weights are of '{header.method}', not of '{expect}'",
            where=str(path),
            remedy=f"name the method they belong to (--model {header.method})",
        )
    module = resolve(header.class_path)(**header.arguments)
    if not any_stage:
        module.check_completes(str(path), header.method)
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in load_file(str(path)).items()}
    missing = sorted(set(module.exported_state()) - set(state))
    unexpected = sorted(set(state) - set(module.state_dict()))
    if missing or unexpected:
        raise WeightsError(
            f"{len(missing)} tensors missing, {len(unexpected)} unexpected: {', '.join((missing + unexpected)[:4])}",
            where=str(path),
            remedy="the file is damaged or was written by another version; retrain or pull it again",
        )
    module.load_state_dict({**module.state_dict(), **state})
    return module.eval()


def check_completes(header: Header, path: str | Path) -> None:
    """Refuses weights of a training stage that does not complete images; their tensors are not read.

    Args:
        header: What the file says of itself.
        path: The file, for the error.

    Raises:
        WeightsError: They are of such a stage.
    """
    from zoo.models import resolve

    cls = resolve(header.class_path)
    # Only a module knows whether it completes images, and building a large one takes seconds: the last always does.
    if header.config.get("stage") != cls.stages[-1] and len(cls.stages) > 1:
        cls(**header.arguments).check_completes(str(path), header.method)


def _class_path(cls: type) -> str:
    """The path by which `zoo.models` knows a class, else where it is defined."""
    from zoo.models import MODELS

    for path in MODELS.values():
        package, _, name = path.rpartition(".")
        if cls.__name__ == name and cls.__module__.startswith(package):
            return path
    return f"{cls.__module__}.{cls.__qualname__}"


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def home() -> Path:
    """Where pulled weights are kept: `$ZOO_HOME/weights`, by default `~/.cache/inpainting-zoo/weights`."""
    base = os.environ.get("ZOO_HOME")
    return (Path(base) if base else Path.home() / ".cache" / "inpainting-zoo") / "weights"


def shipped(name: str, preset: str = "nano") -> Path | None:
    """The weights file that travels with the package, or None."""
    path = _MODELS / name / f"{preset}.safetensors"
    return path if path.is_file() else None


def find_weights(name: str, preset: str, runs: str | Path = "runs") -> Path | None:
    """The weights of a preset: from a run, then a pull, then the package; None where there are none.

    Args:
        name: A short name, or a dotted path, `package.module:Class` too.
        preset: `nano` or `paper`.
        runs: The folder of training runs.
    """
    from zoo.models import dotted, resolve

    last = resolve(name).stages[-1]
    name = dotted(name)
    candidates = [
        Path(runs) / f"{name}-{preset}" / last / "weights.safetensors",
        home() / f"{name}-{preset}.safetensors",
    ]
    return next((path for path in candidates if path.is_file()), shipped(name, preset))
