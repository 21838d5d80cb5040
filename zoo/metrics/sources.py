"""Where the feature networks' weights come from: a local file, a library's cache, or the library's own address.

Every file is checked against the hash it is published with before a library reads it, for some of those libraries
unpickle. A file that is not here and may not be fetched gives a `Skipped`, which says so in the report.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zoo.errors import UsageError, WeightsError, unknown_name

Announce = Callable[[str], None]
Files = Mapping[str, str | Path]
EXTRA = 'pip install ".[metrics]" in a checkout'
_YES = {"1", "ON", "YES", "TRUE"}  # what huggingface_hub takes for yes


class Skipped(NamedTuple):
    """A metric that is not measured; it has no value, and the report says why.

    Attributes:
        reason: Why not.
        remedy: What would make it measurable; empty where nothing would.
    """

    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Attributes:
        title: What it is.
        name: Its file name, here and in the library's cache.
        url: Where it is published.
        megabytes: About how large it is.
        licence: Under which terms.
        sha256: The start of its hash; empty where none is published with it.
        hub: `owner/repository` on the Hugging Face hub, where it is there.
    """

    title: str
    name: str
    url: str
    megabytes: int
    licence: str
    sha256: str = ""
    hub: str = ""


PUBLISHED = {
    "inception": Published(
        "Inception of 2015-12-05, in torch-fidelity's layout",
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        96,
        "Apache-2.0",
        "6726825d",
    ),
    "alexnet": Published(
        "torchvision's AlexNet of ImageNet",
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        244,
        "BSD-3-Clause",
        "7be5be79",
    ),
    "vgg16": Published(
        "torchvision's VGG-16 of ImageNet",
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        553,
        "BSD-3-Clause",
        "397923af",
    ),
    "clip": Published(
        "OpenAI's CLIP ViT-B/32 in open_clip's layout",
        "open_clip_model.safetensors",
        "https://huggingface.co/timm/vit_base_patch32_clip_224.openai",
        605,
        "MIT",
        hub="timm/vit_base_patch32_clip_224.openai",
    ),
}


class Located(NamedTuple):
    """A file of weights that is here and is the published one.

    Attributes:
        path: The file.
        sha256: Its hash.
    """

    path: Path
    sha256: str


def home() -> Path:
    """Where feature networks are looked for: `$ZOO_HOME/features`, by default `~/.cache/inpainting-zoo/features`."""
    base = os.environ.get("ZOO_HOME")
    return (Path(base) if base else Path.home() / ".cache" / "inpainting-zoo") / "features"


def locate(key: str, files: Files | None = None, announce: Announce | None = None) -> Located | Skipped:
    """The file of a feature network, fetched from its publisher where that is allowed and nothing nearer is found.

    Looked for in this order: `files`, `home()`, the library's own cache.

    Args:
        key: A key of `PUBLISHED`.
        files: Files of the user's own by key.
        announce: Is told what is fetched, from where, how large it is and under which licence, before it is.

    Returns:
        The checked file, or why there is none.

    Raises:
        WeightsError: A file that the user named is missing, or a file found is not the published one.
        UsageError: `files` names a network that does not exist.
    """
    check_files(files)
    published = PUBLISHED[key]
    own = (files or {}).get(key)
    if own is not None and not Path(own).is_file():
        raise WeightsError(f"no such file of {published.title}", str(own), f"it is at {published.url}")
    path = Path(own) if own is not None else _found(published)
    if path is None:
        if offline():
            return _absent(published, "downloads are forbidden (--offline, HF_HUB_OFFLINE)")
        try:
            path = _fetch(published, announce or logging.getLogger(__name__).warning)
        except Exception as error:  # the clients' errors differ and change
            line = next(iter(str(error).strip().splitlines()), "no message")
            return _absent(published, f"it cannot be fetched ({type(error).__name__}: {line})")
    return Located(path, _checked(path, published))


def check_files(files: Files | None) -> None:
    """Refuses files of networks that do not exist.

    Raises:
        UsageError: A key is none of `PUBLISHED`.
    """
    for name in files or {}:
        if name not in PUBLISHED:
            raise unknown_name("feature network", name, list(PUBLISHED))


def _checked(path: Path, published: Published) -> str:
    """The SHA-256 of a file, which must be the one it is published with."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(published.sha256):
        raise WeightsError(
            f"this is not {published.title}: its SHA-256 starts with {digest[:8]}, not with {published.sha256}",
            str(path),
            f"delete it, or replace it by the file at {published.url}",
        )
    return digest


def importable(*modules: str) -> Skipped | None:
    """Why one of the modules cannot be imported; None where all can."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return Skipped(f"{error.name or module} is not installed", EXTRA)
        except Exception as error:  # torchvision of another build than torch fails with a RuntimeError
            line = next(iter(str(error).strip().splitlines()), "no message")
            remedy = "torch and torchvision must be of one build (zoo doctor)"
            return Skipped(f"{module} is installed and cannot be imported ({type(error).__name__}: {line})", remedy)
    return None


def offline() -> bool:
    """Whether downloads are forbidden."""
    return any(os.environ.get(name, "").upper() in _YES for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"))


@contextmanager
def hub_holding(path: Path, name: str) -> Iterator[None]:
    """Makes torch's hub find a file in its cache: the only way some libraries take local weights.

    Args:
        path: The file.
        name: The name that the library looks for.
    """
    import torch

    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "checkpoints"
        cache.mkdir()
        try:
            (cache / name).symlink_to(path.resolve())
        except OSError:  # Windows allows links to few
            shutil.copyfile(path, cache / name)
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


def parse_files(text: str) -> dict[str, str]:
    """`inception=PATH,alexnet=PATH` as a table.

    Raises:
        UsageError: A part has no `=`.
    """
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, path in parts:
        if not equals or not path:
            raise UsageError(f"'{name}' names no file", remedy="write inception=PATH, and commas between several")
    return {name.strip(): path.strip() for name, _, path in parts}


def _found(published: Published) -> Path | None:
    candidates = [home() / published.name]
    if published.hub:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(published.hub, published.name)
        candidates += [Path(cached)] if isinstance(cached, str) else []
    else:
        import torch

        candidates.append(Path(torch.hub.get_dir()) / "checkpoints" / published.name)
    return next((path for path in candidates if path.is_file()), None)


def _fetch(published: Published, announce: Announce) -> Path:
    target = home() / published.name
    announce(
        f"downloading {published.title}: about {published.megabytes} MB, licence {published.licence}\n"
        f"  from {published.url}\n  to   {'the cache of the hub' if published.hub else target}"
    )
    if published.hub:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(published.hub, published.name))
    import torch

    target.parent.mkdir(parents=True, exist_ok=True)
    # It checks the hash before the file gets its name.
    torch.hub.download_url_to_file(published.url, str(target), published.sha256, progress=False)
    return target


def _absent(published: Published, why: str) -> Skipped:
    return Skipped(
        f"{published.title} is not here, and {why}",
        f"put {published.url} ({published.megabytes} MB, {published.licence}) at {home() / published.name}",
    )
