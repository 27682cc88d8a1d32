"""The mock's HTTP/1.1 server: one protocol a connection, lean enough to be the far end of a load test."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop

from indigo.engines.mock import answers
from indigo.engines.mock.answers import DONE, Ask
from indigo.engines.mock.faults import FAULTS, JSON, SSE
from indigo.kernel.tasks import Tasks

COMPLETIONS = {"/v1/chat/completions": True, "/v1/completions": False}
FAULT_PREFIX = "mock-fault-"


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds before the first byte and between chunks; `usage` false never tells it, asked or not."""

    first_byte: float = 0.0
    between: float = 0.0
    chunks: int = 10
    usage: bool = True
    keep: int = 1000


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came; header names are in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Mock:
    """A running mock: what it `received` (the last `keep`), and how often a client left in mid-answer."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.received: deque[Received] = deque(maxlen=options.keep)
        self.requests = 0
        self.abandoned = 0
        self.port = 0
        self.tasks = Tasks()
        self.connections: set[Connection] = set()
        self.server: asyncio.Server | None = None

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for connection in list(self.connections):
            connection.close()
        await self.tasks.cancel()


async def serve(address: str | Path, port: int = 0, options: Options | None = None) -> Mock:
    """Listens on a host and port (0: a free one, see `Mock.port`); on a unix socket if given a Path."""
    mock = Mock(options or Options())
    loop = asyncio.get_running_loop()
    if isinstance(address, Path):
        address.unlink(missing_ok=True)
        mock.server = await loop.create_unix_server(lambda: Connection(mock), str(address))
    else:
        mock.server = await loop.create_server(lambda: Connection(mock), address, port, backlog=4096)
        mock.port = mock.server.sockets[0].getsockname()[1]
    return mock


def run(host: str, port: int, options: Options | None = None) -> None:
    """Serves until interrupted."""

    async def main() -> None:
        mock = await serve(host, port, options)
        try:
            await asyncio.Event().wait()
        finally:
            await mock.close()

    uvloop.run(main())


class Connection(asyncio.Protocol):
    """Parses requests, answers them in turn. Also the `Exchange` that the faults work on."""

    def __init__(self, mock: Mock) -> None:
        self.ask = Ask()
        self.chat = True
        self._mock = mock
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._path = ""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._mock.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._mock.connections.discard(self)
        if self._task is not None and not self._task.done():
            self._mock.abandoned += 1
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        self._path = ""
        self._headers = []
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers:
            self.raw(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("ascii")
        received = Received(method, self._path, tuple(self._headers), b"".join(self._body))
        self._mock.received.append(received)
        self._mock.requests += 1
        self._route(received)

    def _route(self, received: Received) -> None:
        path = received.path.partition("?")[0]
        if received.method == "GET":
            return self._get(path)
        try:
            self.ask = ask = msgspec.json.decode(received.body, type=Ask)
        except msgspec.DecodeError as error:
            return self._whole(400, answers.error(400, str(error)))
        self.chat = COMPLETIONS.get(path, True)
        if ask.model.startswith(FAULT_PREFIX):
            return self._fail(ask.model.removeprefix(FAULT_PREFIX))
        if path in COMPLETIONS:
            return self._complete()
        if path == "/v1/embeddings":
            return self._whole(200, answers.embeddings(ask))
        if path == "/v1/rerank":
            return self._whole(200, answers.rerank(ask))
        return self._whole(404, answers.error(404, f"There is no {path} here."))

    def _get(self, path: str) -> None:
        if path == "/health":
            return self._whole(200, b'{"status":"ok"}')
        if path == "/v1/models":
            return self._whole(200, answers.models(["mock", *(FAULT_PREFIX + name for name in FAULTS)]))
        return self._whole(404, answers.error(404, f"There is no {path} here."))

    def _fail(self, name: str) -> None:
        fault = FAULTS.get(name)
        if fault is None:
            self._whole(404, answers.error(404, f"There is no fault {name}; there are {', '.join(FAULTS)}."))
        else:
            self._task = self._mock.tasks.start(fault(self), f"fault {name}")

    def _complete(self) -> None:
        options = self._mock.options
        if options.first_byte or (self.ask.stream and options.between):
            self._task = self._mock.tasks.start(self._slowly(), "answer")
        elif self.ask.stream:
            self.head(200, SSE)
            self.raw(b"".join(_framed(event) for event in self._events()) + b"0\r\n\r\n")
        else:
            self._whole(200, self._answer())

    async def _slowly(self) -> None:
        options = self._mock.options
        await asyncio.sleep(options.first_byte)
        if not self.ask.stream:
            return self._whole(200, self._answer())
        self.head(200, SSE)
        for event in self._events():
            self.chunk(event)
            await asyncio.sleep(options.between)
        return self.end()

    def _events(self) -> list[bytes]:
        options = self._mock.options
        usage = options.usage and self.ask.wants_usage
        return [*answers.events(self.ask, answers.words(self.ask, options.chunks), usage, self.chat), DONE]

    def _answer(self) -> bytes:
        options = self._mock.options
        return answers.whole(self.ask, answers.words(self.ask, options.chunks), options.usage, self.chat)

    def _whole(self, status: int, body: bytes) -> None:
        self.head(status, JSON, len(body))
        self.raw(body)

    def head(self, status: int, kind: str, length: int | None = None, extra: tuple[tuple[str, str], ...] = ()) -> None:
        """Status line and headers; without a length the body is chunked."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}"]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in extra]
        self.raw("\r\n".join([*lines, "\r\n"]).encode("latin-1"))

    def chunk(self, data: bytes) -> None:
        self.raw(_framed(data))

    def end(self) -> None:
        self.raw(b"0\r\n\r\n")

    def raw(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset: no lingering, nothing sent."""
        if self._transport is None:
            return
        found: socket.socket | None = self._transport.get_extra_info("socket")
        if found is not None and found.family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
