"""Files of weights: where they are looked for, when they are fetched, and what is said where they are not."""

from __future__ import annotations

import hashlib
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zoo.errors import UsageError, WeightsError
from zoo.metrics import PUBLISHED, Located, Skipped, locate, parse_files, sources

NAME = PUBLISHED["alexnet"].name
CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sources.PUBLISHED, "alexnet", replace(PUBLISHED["alexnet"], sha256=SHA[:8]))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


def _put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_nearest_file_is_taken(tmp_path: Path) -> None:
    cache = _put(tmp_path / "torch" / "checkpoints" / NAME)
    assert locate("alexnet") == Located(cache, SHA)
    home = _put(tmp_path / "home" / "features" / NAME)
    assert locate("alexnet") == Located(home, SHA)
    own = _put(tmp_path / "own.pth")
    assert locate("alexnet", {"alexnet": own}) == Located(own, SHA)
    assert locate("alexnet", {"vgg16": own}) == Located(home, SHA)


def test_offline_and_absent_is_skipped_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    for key in PUBLISHED:
        found = locate(key)
        assert isinstance(found, Skipped)
        assert "is not here, and downloads are forbidden" in found.reason
        assert PUBLISHED[key].url in found.remedy
        assert str(tmp_path / "home" / "features") in found.remedy
        assert PUBLISHED[key].licence in found.remedy


def test_a_download_is_announced_first_and_lands_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    said: list[str] = []

    def fetch(url: str, target: str, prefix: str, progress: bool) -> None:
        assert said, "announced before"
        assert (url, prefix) == (PUBLISHED["alexnet"].url, SHA[:8])
        _put(Path(target))

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    target = tmp_path / "home" / "features" / NAME
    assert locate("alexnet", announce=said.append) == Located(target, SHA)
    assert len(said) == 1
    for fact in ("244 MB", "BSD-3-Clause", PUBLISHED["alexnet"].url, str(target)):
        assert fact in said[0]
    assert locate("alexnet", announce=said.append) == Located(target, SHA)
    assert len(said) == 1


def test_a_failed_download_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    found = locate("alexnet", announce=lambda text: None)
    assert isinstance(found, Skipped)
    assert "cannot be fetched (OSError: no route to host)" in found.reason


def test_another_file_than_the_published_one_is_refused(tmp_path: Path) -> None:
    path = _put(tmp_path / "home" / "features" / NAME, b"something else")
    with pytest.raises(WeightsError, match="is not torchvision's AlexNet") as caught:
        locate("alexnet")
    assert caught.value.where == str(path)
    with pytest.raises(WeightsError, match="no such file"):
        locate("alexnet", {"alexnet": tmp_path / "missing.pth"})
    with pytest.raises(UsageError, match="unknown feature network 'alexnett'"):
        locate("alexnet", {"alexnett": path})


def test_modules_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert sources.importable("json", "torch") is None
    absent = sources.importable("no_such_module_here")
    assert absent == Skipped("no_such_module_here is not installed", sources.EXTRA)
    (tmp_path / "broken_build.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = sources.importable("broken_build")
    assert broken is not None
    assert "torchvision::nms does not exist" in broken.reason
    assert "zoo doctor" in broken.remedy


def test_the_hub_of_torch_is_lent_a_file_and_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    before, path = torch.hub.get_dir(), _put(tmp_path / "some.pth")
    with sources.hub_holding(path, NAME):
        assert (Path(torch.hub.get_dir()) / "checkpoints" / NAME).read_bytes() == CONTENT
    assert torch.hub.get_dir() == before

    def refused(self: Path, target: Path) -> None:
        raise OSError("links are not allowed here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    with sources.hub_holding(path, NAME):
        assert (Path(torch.hub.get_dir()) / "checkpoints" / NAME).read_bytes() == CONTENT
    with pytest.raises(RuntimeError), sources.hub_holding(path, NAME):
        raise RuntimeError
    assert torch.hub.get_dir() == before


def test_a_file_in_the_hub_of_hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = _put(tmp_path / "snapshot" / PUBLISHED["clip"].name)
    asked: list[tuple[str, str]] = []

    def cached(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(try_to_load_from_cache=cached))
    assert locate("clip") == Located(path, SHA)
    assert asked == [(PUBLISHED["clip"].hub, PUBLISHED["clip"].name)]


def test_files_on_the_command_line() -> None:
    assert parse_files("inception=a/b.pth, alexnet=c=d.pth") == {"inception": "a/b.pth", "alexnet": "c=d.pth"}
    assert parse_files("") == {}
    for wrong in ("inception", "inception=", "alexnet=x,vgg16"):
        with pytest.raises(UsageError, match="names no file"):
            parse_files(wrong)
