"""`zoo weights`: list, verify, pull."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from zoo.weights import home, save_weights, sha256


@pytest.fixture
def file(place: Path) -> Path:
    """Weights of a small method, as somebody publishes them."""
    import toymethod  # type: ignore[import-not-found]

    folder = place / "published"
    story = {"data": {"name": "shapes"}, "seed": 3}
    return save_weights(
        toymethod.Toy(), folder / "toy.safetensors", preset="nano", provenance=story, licence="CC-BY-4.0"
    )


@pytest.fixture
def address(file: Path) -> Iterator[str]:
    """A server on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(file.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pull_says_what_it_fetches_and_methods_find_it(zoo: Run, file: Path, address: str) -> None:
    done = zoo("weights", "pull", f"{address}/toy.safetensors", "--sha256", sha256(file))
    assert done.code == 0, done.err
    place = home() / "toymethod.Toy-nano.safetensors"
    assert done.out.strip() == str(place)
    assert place.read_bytes() == file.read_bytes()
    for word in ("toymethod.Toy", "preset nano", "MB", "licence CC-BY-4.0", address):
        assert word in done.err
    facts = json.loads(zoo("weights", "list", "--json").out)
    ours = next(fact for fact in facts if fact["name"] == "toymethod.Toy")
    assert (ours["where"], ours["trained_on"], ours["licence"]) == ("pulled", "shapes", "CC-BY-4.0")
    assert ours["sha256"] == sha256(file)
    assert zoo("test", "--model", "toymethod.Toy", "--size", 32, "--data.test_count", 2).code == 0


@pytest.mark.parametrize("preset", ["nano/../../../escaped", "..", "", "/abs", "a b", "na\\no"])
def test_a_preset_that_is_no_name_is_refused(preset: str, zoo: Run, place: Path) -> None:
    import toymethod

    path = save_weights(toymethod.Toy(), place / "evil.safetensors", preset=preset)
    before = sorted(place.parent.rglob("*"))
    done = zoo("weights", "pull", path)
    assert done.code == 4, done.err
    assert "the preset of these weights cannot be part of a file name" in done.err
    assert "remedy:" in done.err
    assert sorted(place.parent.rglob("*")) == before


@pytest.mark.parametrize("method", ["../../x.Toy", "...", "a/b.C"])
def test_a_method_that_is_no_name_is_refused(method: str, zoo: Run, file: Path, place: Path) -> None:
    with safe_open(str(file), "pt") as opened:
        stored = json.loads(opened.metadata()["zoo"])
    stored["class_path"] = method
    save_file(load_file(file), place / "evil.safetensors", {"zoo": json.dumps(stored)})
    before = sorted(place.parent.rglob("*"))
    done = zoo("weights", "pull", "evil.safetensors")
    assert done.code == 4, done.err
    assert "the method of these weights cannot be part of a file name" in done.err
    assert sorted(place.parent.rglob("*")) == before


def test_others_may_read_what_was_pulled_where_the_umask_lets_them(zoo: Run, file: Path) -> None:
    before = os.umask(0o027)
    try:
        assert zoo("weights", "pull", file).code == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in home().iterdir()}
    name = "toymethod.Toy-nano.safetensors"
    assert modes == {name: 0o640, f"{name}.sha256": 0o640}


def test_a_record_is_never_that_of_another_file(zoo: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli import pull

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    assert zoo("weights", "pull", file).code == 0
    place = home() / "toymethod.Toy-nano.safetensors"
    assert pull.recorded_hash(place) == sha256(file)
    import toymethod

    other = save_weights(toymethod.Toy(), file.parent / "other.safetensors", preset="nano")
    monkeypatch.setattr(pull, "write_atomically", full)
    assert zoo("weights", "pull", other).code == 3
    assert sha256(place) == sha256(other) != sha256(file)
    assert pull.recorded_hash(place) is None


def test_pull_from_a_file_needs_no_network(zoo: Run, file: Path) -> None:
    done = zoo("--offline", "weights", "pull", file)
    assert done.code == 0, done.err
    assert sha256(file) in done.err  # nothing to check it against: it is shown


@pytest.mark.parametrize(
    ("source", "more", "code", "message"),
    [
        ("{address}/toy.safetensors", ("--offline",), 2, "--offline forbids downloads"),
        ("{address}/toy.safetensors", ("--sha256", "0" * 64), 4, "the hash is"),
        ("{address}/absent.safetensors", (), 4, "cannot be fetched"),
        ("{address}/junk.safetensors", (), 4, "no weights file of inpainting-zoo"),
        ("http://127.0.0.1:9/x.safetensors", (), 4, "cannot be fetched"),
        ("nowhere.safetensors", (), 4, "no such file"),
        ("published/short.safetensors", (), 4, ""),
    ],
)
def test_a_pull_that_fails_stores_nothing(
    source: str, more: tuple[str, ...], code: int, message: str, zoo: Run, file: Path, address: str
) -> None:
    (file.parent / "junk.safetensors").write_bytes(b"x" * 100)
    (file.parent / "short.safetensors").write_bytes(file.read_bytes()[:-10])
    done = zoo("weights", "pull", source.format(address=address), *more)
    assert done.code == code, done.err
    assert message in done.err
    assert not list(home().glob("*")) if home().exists() else True


def test_verify_loads_and_compares(zoo: Run, file: Path, place: Path) -> None:
    done = zoo("weights", "verify", file)
    assert done.code == 0, done.err
    assert "whole" in done.out
    assert sha256(file) in done.out
    facts = json.loads(zoo("weights", "verify", file, "--json").out)
    assert facts["header"]["provenance"]["seed"] == 3
    with safe_open(file, framework="pt") as stored:  # what the file holds, and not what training would add to it
        assert facts["parameters"] == sum(stored.get_tensor(name).numel() for name in stored.keys())  # noqa: SIM118
    assert zoo("weights", "verify", file, "--sha256", sha256(file).upper()).code == 0
    assert zoo("weights", "verify", file, "--sha256", "0" * 64).code == 4
    Path(f"{file}.sha256").write_text("0" * 64 + "  toy.safetensors\n")
    assert zoo("weights", "verify", file).code == 4


def test_verify_refuses_what_is_broken(zoo: Run, file: Path, place: Path) -> None:
    import toymethod

    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert zoo("weights", "verify", file).code == 4
    assert zoo("weights", "verify", "nowhere").code == 4
    sick = toymethod.Toy()
    with torch.no_grad():
        sick.net[0].weight[0, 0, 0, 0] = float("nan")
    path = save_weights(sick, place / "sick.safetensors")
    done = zoo("weights", "verify", path)
    assert done.code == 4
    assert "NaN" in done.err


def test_one_damaged_file_does_not_hide_the_others(zoo: Run, file: Path, place: Path) -> None:
    assert zoo("weights", "pull", file).code == 0
    (home() / "bad.safetensors").write_bytes(b"x")
    done = zoo("weights", "list")
    assert done.code == 0
    assert "toymethod.Toy" in done.out
    assert "damaged" in done.out


def test_convert_asks_for_what_it_needs(zoo: Run, file: Path) -> None:
    done = zoo("weights", "convert", file, "--model", "deepfill")
    assert done.code == 2
    assert "--kind" in done.err
    assert zoo("weights", "convert", file, "--model", "deepfil", "--kind", "x", "--out", "y").code == 2


@pytest.mark.parametrize(
    ("source", "kind", "code"), [("nowhere.pth", "mmagic", 4), ("{file}", "mmagic", 4), ("{file}", "x", 2)]
)
def test_convert_refuses_what_it_cannot_read(
    source: str, kind: str, code: int, zoo: Run, file: Path, place: Path
) -> None:
    words = (source.format(file=file), "--model", "deepfill", "--kind", kind, "--out", "out.safetensors")
    done = zoo("weights", "convert", *words)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert not (place / "out.safetensors").exists()


def test_convert_hands_file_and_layout_to_the_methods_renamer(
    zoo: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.models import build
    from zoo.models.deepfill import convert

    def renamer(source: Path, kind: str, out: Path) -> Path:
        assert (source, kind) == (Path("theirs.pth"), "mmagic")
        return save_weights(build("deepfill"), out, preset="paper", licence="CC-BY-NC-4.0")

    monkeypatch.setattr(convert, "convert_upstream", renamer)
    words = ("theirs.pth", "--model", "deepfill", "--kind", "mmagic", "--out", "ours.safetensors")
    done = zoo("weights", "convert", *words)
    assert done.code == 0, done.err
    assert "deepfill paper, licence CC-BY-NC-4.0" in done.out
    assert sha256(place / "ours.safetensors") in done.out
