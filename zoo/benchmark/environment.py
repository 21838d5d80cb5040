"""What a run was computed with: recorded beside the rows, one file per distinct environment, never part of the plan."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.benchmark.plan import Plan, canonical
from zoo.benchmark.store import read_json, write_whole
from zoo.version import __version__

FOLDER = "environments"
PACKAGES = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "opencv-python-headless", "pillow", "kornia")


def describe_environment(plan: Plan) -> dict[str, Any]:
    """Versions, machine and code of this process, plain types."""
    import torch

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    device = torch.cuda.get_device_name() if plan.accelerator == "cuda" else _processor()
    return {
        "zoo": __version__,
        "code": _code_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": plan.threads,
        "packages": packages,
    }


def record_environment(folder: Path, plan: Plan) -> Path:
    """Writes this process's environment into the run folder, under the hash of its content.

    A run that was resumed elsewhere therefore has two files, and its report says so.
    """
    content = describe_environment(plan)
    digest = hashlib.sha256(canonical(content).encode()).hexdigest()[:8]
    path = folder / FOLDER / f"{digest}.json"
    if not path.is_file():
        write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


def read_environments(folder: Path) -> list[dict[str, Any]]:
    """All environments that have written into a run folder."""
    return [dict(read_json(path)) for path in sorted((Path(folder) / FOLDER).glob("*.json"))]


def _processor() -> str:
    """The processor's name: kernels, and so the last bits of floats, differ between processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _code_version() -> str:
    """The git commit of a checkout, `+` where it has changes; empty for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
