"""Archives that are well, and every way in which one may not be."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.data.archive import is_archive, member_path, unpack
from zoo.errors import DataError

FILES = {"images/a.jpg": b"one", "images/deep/b.jpg": b"two", "list.txt": b"a\nb\n"}


def _zip(
    path: Path, files: dict[str, bytes] | None = None, change: Callable[[zipfile.ZipInfo], None] | None = None
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (FILES if files is None else files).items():
            info = zipfile.ZipInfo(name)
            if change is not None:
                change(info)
            archive.writestr(info, content)
    return path


def _tar(
    path: Path, files: dict[str, bytes] | None = None, change: Callable[[tarfile.TarInfo], None] | None = None
) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tgz', 'gz')}" if path.suffix != ".tar" else "w") as archive:
        for name, content in (FILES if files is None else files).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def _found(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_every_kind_unpacks_beside_what_is_there(tmp_path: Path, name: str) -> None:
    assert is_archive(name)
    archive = (_zip if name.endswith(".zip") else _tar)(tmp_path / name)
    target = tmp_path / "target"
    (target / "images").mkdir(parents=True)
    (target / "images" / "mine.jpg").write_bytes(b"mine")
    (target / "images" / "a.jpg").write_bytes(b"damaged")
    told: list[int] = []
    assert unpack(archive, target, tell=lambda what, done, total: told.append(done)) == 3
    assert _found(target) == FILES | {"images/mine.jpg": b"mine"}
    assert told == sorted(told)
    assert len(told) == 3


def test_folders_and_paths_with_dots(tmp_path: Path) -> None:
    _zip(tmp_path / "x.zip", {"empty/": b"", "./a.txt": b"1"})
    unpack(tmp_path / "x.zip", tmp_path / "zip")
    assert (tmp_path / "zip" / "empty").is_dir()
    assert (tmp_path / "zip" / "a.txt").is_file()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        (tmp_path / "zip").chmod(0o755)
        archive.add(tmp_path / "zip", arcname=".")
    assert unpack(tmp_path / "x.tar", tmp_path / "tar") == 1
    assert (tmp_path / "tar" / "empty").is_dir()


OUTSIDE = [
    "/etc/passwd",
    "../up.txt",
    "a/../../up.txt",
    "..",
    "C:/x.txt",
    "C:x.txt",
    "..\\up.txt",
    "a\\b.txt",
    "\\\\host\\x",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_paths_outside_are_refused(tmp_path: Path, name: str, ending: str) -> None:
    files = {"good.txt": b"1", name: b"2"}
    archive = (_zip if ending == "zip" else _tar)(tmp_path / f"x.{ending}", files)
    target = tmp_path / "deep" / "target"
    with pytest.raises(DataError, match="outside the folder") as caught:
        unpack(archive, target)
    assert "nothing was unpacked" in caught.value.remedy
    assert list(target.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", archive.name]


def test_names_of_nothing(tmp_path: Path) -> None:
    for name in ("", "  ", "a\0b"):
        with pytest.raises(DataError, match="no plain path"):
            member_path(name, tmp_path)
    assert member_path("a/b.jpg", tmp_path).as_posix() == "a/b.jpg"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "list.txt":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    with pytest.raises(DataError, match=r"'list\.txt' is a link or a device"):
        unpack(_tar(tmp_path / "x.tar", change=change), tmp_path / "target")
    assert _found(tmp_path / "target") == {}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o644) << 16

    with pytest.raises(DataError, match="is a link or a device"):
        unpack(_zip(tmp_path / "x.zip", {"a": b"/etc/passwd"}, change), tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_a_link_in_the_target_is_not_followed_out_of_the_unpacking(tmp_path: Path) -> None:
    """A person's own link to another disk keeps its meaning: what is unpacked goes where it points."""
    disk = tmp_path / "disk"
    disk.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "images").symlink_to(disk)
    unpack(_zip(tmp_path / "x.zip"), target)
    assert (disk / "a.jpg").read_bytes() == b"one"
    assert (target / "images").is_symlink()


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path: Path, ending: str) -> None:
    archive = (_zip if ending == "zip" else _tar)(tmp_path / f"x.{ending}", {"a": b"1", "zeros": bytes(3_000_000)})
    with pytest.raises(DataError, match="at most 2 MB is credible"):
        unpack(archive, tmp_path / "target", limit=2_000_000)
    assert list((tmp_path / "target").iterdir()) == []
    assert unpack(archive, tmp_path / "target") == 2


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_archives(tmp_path: Path, ending: str, damage: str) -> None:
    files = {f"{n}.bin": os.urandom(5000) for n in range(5)}
    archive = (_zip if ending == "zip" else _tar)(tmp_path / f"x.{ending}", files)
    content = archive.read_bytes()
    archive.write_bytes(
        {"cut": content[: len(content) // 2], "text": b"<html>sign in</html>" * 100, "empty": b""}[damage]
    )
    with pytest.raises(DataError, match=r"cannot be unpacked|holds no files") as caught:
        unpack(archive, tmp_path / "target")
    assert "get it again" in caught.value.remedy
    assert list((tmp_path / "target").iterdir()) == []


def test_a_zip_with_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"a": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    content[2500] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "target")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"a": b"secret"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="'a' is encrypted"):
        unpack(archive, tmp_path / "target")


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    for archive in (_zip(tmp_path / "x.zip"), _tar(tmp_path / "x.tar")):
        with pytest.raises(DataError, match=f"unpacking {archive.name} needs"):
            unpack(archive, tmp_path / "target")
