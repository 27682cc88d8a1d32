"""A small stand-in for the hub: one repository, ranges, gates, cuts and lies on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FakeHub:
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self.cut_after: int | None = None
        self.token: str | None = None
        self.ranges: list[str | None] = []
        self.requests = 0
        self.endpoint = ""

    @contextmanager
    def running(self) -> Generator[FakeHub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, format: str, *args: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        path = urlsplit(request.path).path
        if not path.startswith(("/api/models/owner/repo", "/owner/repo/")):
            return _send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _send(request, 401, b"", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/api/"):
            entries = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files]
            body = entries if "/tree/" in path else {"id": "owner/repo", "siblings": _siblings(self.files)}
            return _send(request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        name = path.removeprefix("/owner/repo/resolve/main/")
        if name not in self.files:
            return _send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})
        return self._file(request, name)

    def _file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        headers = {
            "ETag": f'"{self.checksums[name]}"',
            "X-Linked-Etag": f'"{self.checksums[name]}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": "0" * 40,
            "Accept-Ranges": "bytes",
        }
        if request.command == "HEAD":
            return _send(request, 200, data, headers)
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        status = 200
        if wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        cut, self.cut_after = self.cut_after, None
        return _send(request, status, data, headers, cut)


def _siblings(files: dict[str, bytes]) -> list[dict[str, str]]:
    return [{"rfilename": name} for name in files]


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if cut is None else body[:cut])
        request.wfile.flush()
    if cut is not None:
        request.close_connection = True
