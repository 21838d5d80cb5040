"""Files that travel with the package: recipes and mask manifests."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def resource(relative: str) -> Path:
    """The path of a shipped file or folder.

    In a wheel these live under `zoo/_shipped`, in a checkout at the top level; a checkout wins where both exist, so
    that an edited recipe is the one that runs.

    Args:
        relative: A path such as `configs/model/deepfill/nano.yaml`.

    Raises:
        UsageError: The package does not ship such a file.
    """
    for base in (_PACKAGE.parent, _PACKAGE / "_shipped"):
        if base == _PACKAGE.parent and not (base / "pyproject.toml").is_file():
            continue
        path = base / relative
        if path.exists():
            return path
    raise UsageError(f"'{relative}' does not ship with this package", remedy="reinstall, or name a file of your own")
