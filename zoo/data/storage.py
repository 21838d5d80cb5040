"""A folder anywhere: on this machine, or behind a URL that fsspec opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.errors import DataError, UsageError


class Storage:
    """Files by name in a folder or behind a URL. It can be copied to other processes, forked or spawned.

    Args:
        url: A path, or a URL of fsspec: memory://..., s3://..., simplecache::https://...

    Raises:
        UsageError: There is no such kind of URL, or it needs a package that is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/") or "/"
        self._opened: tuple[int, Any, str] | None = None
        self._filesystem()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None}

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None where it is elsewhere."""
        from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

        filesystem, path = self._filesystem()
        return Path(path) if isinstance(filesystem, LocalFileSystem) else None

    def exists(self, name: str) -> bool:
        """Whether there is such a file.

        Raises:
            DataError: The place cannot be reached.
        """
        filesystem, path = self._filesystem()
        try:
            return bool(filesystem.exists(f"{path}/{name}"))
        except Exception as error:  # each filesystem raises what its library does
            raise _unreachable(f"{self.url}/{name}", error) from error

    def sizes(self) -> dict[str, int | None] | None:
        """The sizes of the files by name, None where one is not known; None where the place cannot list its files."""
        filesystem, path = self._filesystem()
        try:
            listed = filesystem.ls(path, detail=True)
        except Exception:  # a web server without a page of links
            return None
        return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry.get("size") for entry in listed}

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file, or its bytes from `start` to `end`; fewer where it ends before.

        Raises:
            DataError: The file is missing, or cannot be read.
        """
        filesystem, path = self._filesystem()
        try:
            return bytes(filesystem.cat_file(f"{path}/{name}", start=start, end=end))
        except FileNotFoundError as error:
            raise DataError(f"{name} is missing", where=self.url, remedy="check the folder or URL") from error
        except Exception as error:
            raise _unreachable(f"{self.url}/{name}", error) from error

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, over what is there, and makes the folder where there is none.

        Raises:
            DataError: It cannot be written.
        """
        filesystem, path = self._filesystem()
        try:
            filesystem.makedirs(path, exist_ok=True)
            filesystem.pipe_file(f"{path}/{name}", content)
        except Exception as error:
            raise DataError(
                f"the file cannot be written: {error}", where=f"{self.url}/{name}", remedy="check the folder or URL"
            ) from error

    def _filesystem(self) -> tuple[Any, str]:
        """A filesystem of this process and the path in it: some hold connections, which a fork must not use."""
        if self._opened is None or self._opened[0] != os.getpid():
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            try:
                filesystem, path = url_to_fs(self.url)
            except (ValueError, ImportError) as error:
                raise UsageError(
                    f"this kind of URL cannot be opened: {error}",
                    where=self.url,
                    remedy="name a folder, or install what its kind needs (pip install s3fs, gcsfs, ...)",
                ) from error
            self._opened = (os.getpid(), filesystem, str(path).rstrip("/"))
        return self._opened[1], self._opened[2]


def _unreachable(where: str, error: Exception) -> DataError:
    return DataError(
        f"it cannot be read: {type(error).__name__}: {error}", where=where, remedy="is the place reachable?"
    )
