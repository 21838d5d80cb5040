"""`zoo doctor`: what is installed, and what is wrong with it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from argparse import Namespace
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as version_of
from pathlib import Path

from zoo.errors import EXIT_OK, EXIT_USAGE
from zoo.version import __version__

PACKAGE = "inpainting-zoo"
EXTRAS = ("metrics", "parquet")  # that a user may want; `dev` is for those who change this package
WITHOUT = {  # what an optional package switches off
    "torchvision": "lpips and dists",
    "torch-fidelity": "fid, kid, ids and the like",
    "open-clip-torch": "clip_score",
    "scikit-learn": "ids",
    "pyarrow": "zoo report --parquet",
}
FREE_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        value: What was found.
        ok: Whether that will do.
        remedy: What to do where it will not.
    """

    name: str
    value: str
    ok: bool = True
    remedy: str = ""


def run(arguments: Namespace) -> int:
    """Prints the findings; exit 2 where one of them is a fault."""
    checks = examine()
    if arguments.json:
        print(json.dumps({"ok": all(c.ok for c in checks), "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name:<24} {check.value}")
            if not check.ok:
                print(f"     remedy: {check.remedy}")
    return EXIT_OK if all(check.ok for check in checks) else EXIT_USAGE


def examine() -> list[Check]:
    """All checks, the installation first."""
    return [
        Check(PACKAGE, __version__),
        Check("python", platform.python_version(), sys.version_info >= (3, 11), "use Python 3.11 or newer"),
        *_packages(),
        *_torch(),
        _torchvision(),
        *_weights(),
        *_disk(),
    ]


def _version(name: str) -> str | None:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return None


def _packages() -> list[Check]:
    """Every package that the metadata of this one names: those it needs, then those of `EXTRAS`."""
    demands = _demands()
    if demands is None:
        value = f"not checked: {PACKAGE} is not installed here, only its files are, which do not say what they need"
        return [Check("packages", value, False, "pip install . in the checkout")]
    optional = [(name, extra) for extra in EXTRAS for name in demands.get(extra, []) if name != "torchvision"]
    return [*(_needed(name) for name in demands.get("", [])), *(_optional(*one) for one in optional)]


def _demands() -> dict[str, list[str]] | None:
    """The packages that this one needs, under "", and those of each extra; None without metadata."""
    try:
        lines = requires(PACKAGE)
    except PackageNotFoundError:
        return None
    demands: dict[str, list[str]] = {}
    for line in lines or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"""extra\s*==\s*["']([\w.-]+)""", line)
        if name:
            demands.setdefault(extra[1] if extra else "", []).append(name[0])
    return demands


def _needed(name: str) -> Check:
    found = _version(name)
    return Check(name, found or "absent", found is not None, f"pip install . in the checkout, or pip install {name}")


def _optional(name: str, extra: str) -> Check:
    """A package that only some options ask for; that it is absent is no fault."""
    return Check(name, _version(name) or _switched_off(name, extra))


def _switched_off(name: str, extra: str) -> str:
    return f'absent: no {WITHOUT.get(name, extra)} (pip install ".[{extra}]" in the checkout)'


def _torch() -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("torch import", str(error), False, "reinstall torch")]
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return [Check("accelerator", names), Check("threads", threads)]
    return [Check("accelerator", "none, the CPU is used"), Check("threads", threads)]


def _torchvision() -> Check:
    """A CUDA build of torchvision beside a CPU build of torch breaks lightning, torchmetrics and transformers."""
    found = _version("torchvision")
    if found is None:
        return Check("torchvision", _switched_off("torchvision", "metrics"))
    torch_version = _version("torch") or ""
    try:
        # The operator is what a mixed installation lacks.
        getattr(importlib.import_module("torchvision.ops"), "nms")  # noqa: B009
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        remedy = "pip uninstall torchvision, or install the build that belongs to this torch"
        return Check("torchvision", f"{found} does not fit torch {torch_version}: {error}", False, remedy)
    return Check("torchvision", f"{found} beside torch {torch_version}")


def _weights() -> list[Check]:
    from zoo.models import MODELS
    from zoo.weights import shipped

    checks = []
    for name in MODELS:
        path = shipped(name)
        value = f"{path.stat().st_size / 1e6:.1f} MB" if path else "absent"
        remedy = f"reinstall, or zoo fit --model {name}"
        checks.append(Check(f"weights {name} nano", value, path is not None, remedy))
    return checks


def _disk() -> list[Check]:
    from zoo.weights import home

    place = next(folder for folder in (home(), *home().parents) if folder.is_dir())
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return [
        Check("disk here", f"{free:.1f} GB free", free >= FREE_GB, "a training run and its checkpoints need 2 GB"),
        _writable("runs folder", Path.cwd()),
        _writable("weights folder", place),
    ]


def _writable(name: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, f"{folder} is writable")
    except OSError as error:
        return Check(name, f"{folder}: {error.strerror}", False, "work in another folder, or set ZOO_HOME")
