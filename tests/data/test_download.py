"""Downloads from a server in this process: whole, broken off, refused, exchanged, and without a network."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from zoo.data import download
from zoo.data.download import fetch, recorded_hash
from zoo.data.prepare import check_before, downloads, install, is_here, unpack_waiting, waiting_archive
from zoo.data.sources import Source, size_text
from zoo.errors import DataError, UsageError

CONTENT = bytes(range(256)) * 20_000


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` at every path.

    Attributes:
        content: What it serves.
        tag: The ETag of it.
        breaks: After how many bytes each of the next answers breaks off; those beyond the list are whole.
        statuses: What the next requests are answered with instead.
        ranges: Whether it knows Range.
        kind: The Content-Type.
        asked: The Range header of each request; empty where it had none.
    """

    def __init__(self, content: bytes = CONTENT) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.ranges, self.kind = content, '"one"', True, "application/zip"
        self.breaks: list[int] = []
        self.statuses: list[int] = []
        self.asked: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that turns away is none."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    """What http.server lacks: Range, If-Range and failures."""

    server: Server

    def do_GET(self) -> None:
        server, start = self.server, 0
        server.asked.append(self.headers.get("Range", ""))
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        fresh = self.headers.get("If-Range") in (None, server.tag)
        if server.ranges and fresh and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Type", server.kind)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = threading.Thread(target=partial(serving.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)


def _source(server: Server, name: str = "a.zip", sha256: str = "", **more: object) -> Source:
    return Source("a file", server.url(name), len(server.content), "CC0", sha256=sha256, automatic=True, **more)  # type: ignore[arg-type]


def _hash(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_comes_whole_and_its_hash_is_recorded(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    fetched = fetch(_source(server), tmp_path, tell=lambda *words: told.append(words))
    assert fetched.path == tmp_path / "a.zip"
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.checked) == (_hash(), False)
    assert recorded_hash(tmp_path, "a.zip") == _hash()
    assert told[-1] == ("check", len(CONTENT), len(CONTENT))
    assert ("download", len(CONTENT), len(CONTENT)) in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "a.zip.sha256"]


def test_it_goes_on_where_the_connection_broke_off(server: Server, tmp_path: Path) -> None:
    server.breaks = [1_000_000, 2_000_000]
    assert fetch(_source(server, sha256=_hash()), tmp_path, wait=0.0).checked
    assert server.asked == ["", "bytes=1000000-", "bytes=3000000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.breaks, server.statuses = [1_234_567], []
    part = tmp_path / "a.zip.part"
    part.write_bytes(CONTENT[:1_000_000])
    server.tag = '"two"'
    (tmp_path / "a.zip.part.tag").write_text('"two"')
    fetch(_source(server, sha256=_hash()), tmp_path, wait=0.0)
    assert server.asked == ["bytes=1000000-", "bytes=2234567-"]
    assert not part.exists()


@pytest.mark.parametrize("tag", ['"one"', '"old"'])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path, tag: str) -> None:
    start = CONTENT[:1000] if tag == server.tag else b"x" * 1000
    (tmp_path / "a.zip.part").write_bytes(start)
    (tmp_path / "a.zip.part.tag").write_text(tag)
    fetch(_source(server), tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, [500_000]
    fetch(_source(server, sha256=_hash()), tmp_path, wait=0.0)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_and_one_that_is_too_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(_source(server, sha256=_hash()), tmp_path)
    (tmp_path / "b.zip.part").write_bytes(CONTENT + b"more")
    fetch(_source(server, "b.zip", sha256=_hash()), tmp_path, wait=0.0)
    assert (tmp_path / "b.zip").read_bytes() == CONTENT
    assert server.asked[1:] == [f"bytes={len(CONTENT) + 4}-", ""]


def test_a_wrong_hash_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"hash of a.zip is {_hash()}, not {'0' * 64}") as caught:
        fetch(_source(server, sha256="0" * 64), tmp_path)
    assert caught.value.where == server.url("a.zip")
    assert list(tmp_path.iterdir()) == []


def test_what_was_trusted_once_is_checked_from_then_on(server: Server, tmp_path: Path) -> None:
    assert not fetch(_source(server), tmp_path).checked
    (tmp_path / "a.zip").unlink()
    assert fetch(_source(server), tmp_path).checked
    (tmp_path / "a.zip").unlink()
    server.content, server.tag = b"another file", '"two"'
    with pytest.raises(DataError, match=f"not {_hash()}"):
        fetch(_source(server), tmp_path)
    assert recorded_hash(tmp_path, "a.zip") == _hash()


def test_an_address_without_a_file_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.statuses = [404, 404]
    with pytest.raises(DataError, match="answers 404") as caught:
        fetch(_source(server), tmp_path)
    assert len(server.asked) == 1
    assert "by hand" in caught.value.remedy


def test_a_server_in_trouble_is_asked_again_but_not_for_ever(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 502]
    assert fetch(_source(server), tmp_path, wait=0.0).sha256 == _hash()
    server.statuses, server.asked = [503] * 20, []
    with pytest.raises(DataError, match="cannot be fetched: the server answers 503") as caught:
        fetch(_source(server, "b.zip"), tmp_path, wait=0.0)
    assert len(server.asked) == download.RETRIES
    assert "goes on where this one stopped" in caught.value.remedy


def test_nobody_answers(tmp_path: Path) -> None:
    closed = Server()
    source = _source(closed)
    closed.server_close()
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch(source, tmp_path, wait=0.0)


def test_a_page_that_asks_to_sign_in_is_no_file(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="web page"):
        fetch(_source(server), tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_addresses_that_are_no_http(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no http address"):
        fetch(Source("a file", f"file://{tmp_path}/x.zip", 1, "CC0"), tmp_path)


def test_offline_forbids(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    for attempt in (fetch, lambda source, folder: check_before([source], folder)):
        with pytest.raises(UsageError, match="--offline"):
            attempt(_source(server), tmp_path)
    assert server.asked == []


def test_a_full_disk_is_noticed_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": download.SPARE + 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match="needs 5 MB, but only 200 MB are free"):
        fetch(_source(server), tmp_path)
    with pytest.raises(DataError, match="the download needs 10 MB"):
        check_before([_source(server, unpack_to=".")], tmp_path)


# --- putting it in place ---------------------------------------------------------------------------------------------


def _zip(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"images/{name}.jpg", content)
    return packed.getvalue()


def test_an_archive_is_unpacked_and_goes(server: Server, tmp_path: Path) -> None:
    server.content = _zip(a=b"1", b=b"2")
    source = _source(server, unpack_to=".")
    assert not is_here(source, tmp_path)
    story = install(source, tmp_path)
    assert "recorded" in story
    assert "2 files unpacked" in story
    assert (tmp_path / "images" / "b.jpg").read_bytes() == b"2"
    assert is_here(source, tmp_path)
    assert sorted(path.name for path in downloads(tmp_path).iterdir()) == ["a.zip.done", "a.zip.sha256"]
    assert "checked" in install(source, tmp_path, keep=True)
    assert (downloads(tmp_path) / "a.zip").is_file()


def test_a_file_that_is_no_archive_goes_into_the_root(server: Server, tmp_path: Path) -> None:
    source = _source(server, "notes.csv", sha256=_hash(), makes=("notes.csv",))
    assert "checked" in install(source, tmp_path)
    assert (tmp_path / "notes.csv").read_bytes() == CONTENT
    assert is_here(source, tmp_path)


def test_what_a_person_put_there_counts(server: Server, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    assert is_here(_source(server, unpack_to=".", makes=("val", "images/val*")), tmp_path)
    (tmp_path / "val").rename(tmp_path / "other")
    assert not is_here(_source(server, unpack_to=".", makes=("val", "images/val*")), tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "val_1.jpg").touch()
    assert is_here(_source(server, unpack_to=".", makes=("val", "images/val*")), tmp_path)
    (tmp_path / "list.txt").write_text("1")
    assert is_here(_source(server, "list.txt"), tmp_path)


def test_an_archive_that_a_person_put_there_is_unpacked_and_stays(server: Server, tmp_path: Path) -> None:
    packed = _zip(a=b"1")
    source = _source(server, sha256=_hash(packed), unpack_to="deep")
    assert waiting_archive(source, tmp_path) is None
    (tmp_path / "a.zip").write_bytes(packed)
    archive = waiting_archive(source, tmp_path)
    assert archive == tmp_path / "a.zip"
    assert "1 files unpacked" in unpack_waiting(source, archive, tmp_path)
    assert (tmp_path / "deep" / "images" / "a.jpg").is_file()
    assert archive.is_file()
    assert waiting_archive(source, tmp_path) is None


def test_an_archive_with_another_hash_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    source = _source(server, sha256="0" * 64, unpack_to=".")
    (tmp_path / "a.zip").write_bytes(_zip(a=b"1"))
    with pytest.raises(DataError, match="not 0000"):
        unpack_waiting(source, tmp_path / "a.zip", tmp_path)
    assert not (tmp_path / "images").exists()


def test_names_and_sizes() -> None:
    assert Source("x", "https://host/a%20b.zip?download=1", 1, "CC0").file == "a b.zip"
    assert Source("x", "https://host/view?id=1", 1, "CC0", saved_as="c.tgz").file == "c.tgz"
    sizes = [0, 12, 12_345, 252_907_541, 19_336_861_798, 513_000_000_000]
    assert [size_text(size) for size in sizes] == [
        *("size not published", "12 bytes", "12 kB", "253 MB", "19.3 GB", "513 GB")
    ]
