"""A Hugging Face hub of one repository on this machine: the few answers that looking it up and downloading need."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """One repository; `files` may be changed, `fetched` lists what was taken."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.fetched = files, list[str]()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing on stderr."""

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        files, headers = self.server.files, {"X-Repo-Commit": SHA}
        if "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": len(b), "oid": f"oid-{n}"} for n, b in files.items()]
            content = json.dumps(tree).encode()
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": n, "size": len(b), "blobId": f"oid-{n}"} for n, b in files.items()]
            info = {"id": path.removeprefix("/api/models/"), "sha": SHA, "cardData": {"license": "apache-2.0"}}
            content = json.dumps({**info, "siblings": siblings, "private": False, "tags": []}).encode()
        else:
            name = path.rpartition("/")[2]
            content = files[name]
            headers["ETag"] = f'"oid-{name}"'
            if body:
                self.server.fetched.append(name)
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
