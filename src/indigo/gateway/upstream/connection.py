"""One HTTP/1.1 connection to an endpoint (RFC 9112), answering one call at a time. Parsing is httptools'."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from indigo.gateway.outbox import Outbox

MAX_HEAD = 64 * 1024

Headers = list[tuple[bytes, bytes]]


class Receiver(Protocol):
    """What a connection tells the call it serves."""

    def head(self, status: int, headers: Headers) -> None: ...
    def body(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def lost(self, reason: str, *, answered: bool) -> None: ...


class Keeper(Protocol):
    """Where a connection goes back to."""

    def released(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    __slots__ = (
        "_answered",
        "_complete",
        "_head_size",
        "_headers",
        "_keeper",
        "_outbox",
        "_parser",
        "_pieces",
        "_reusable",
        "_status",
        "_transport",
        "_until_close",
        "idle_since",
        "receiver",
        "used",
    )

    def __init__(self, keeper: Keeper, outbox: Outbox) -> None:
        self._keeper = keeper
        self._outbox = outbox
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self.receiver: Receiver | None = None
        self.used = False
        """Whether it has served a call before: then the other side may have closed it just now."""
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._headers: Headers = []
        self._head_size = 0
        self._status = 0
        self._answered = False
        self._complete = False
        self._reusable = False
        self._until_close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class, only by its methods

    def send(self, receiver: Receiver, request: bytes) -> None:
        assert self._transport is not None
        self.receiver = receiver
        self._outbox.write(self._transport, request)

    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once: the endpoint sees it and stops generating."""
        self.receiver = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._complete or (self.receiver is None and not self._answered):
            self.abort()  # bytes that nobody asked for: never let the next request see them
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break("its answer is not HTTP")
            return
        if self._pieces:
            self._head_size = 0
            self._flush()
        elif not self._complete:
            self._head_size += len(data)  # a head, or trailers, that the parser gathers
            if self._head_size > MAX_HEAD:
                self._break("its answer's headers are too large")
        if self._complete:
            self._finish()

    def _flush(self) -> None:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.receiver is not None:
            self.receiver.body(data)

    def _finish(self) -> None:
        receiver = self.receiver
        self.receiver = None
        if self._reusable and not self._until_close and self.usable():
            self.used = True
            self._reset()
            self.resume_reading()
            self._keeper.released(self)
        elif self._transport is not None:
            self._transport.close()
        if receiver is not None:
            receiver.end()

    def _break(self, reason: str) -> None:
        receiver = self.receiver
        self.abort()
        if receiver is not None:
            receiver.lost(reason, answered=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.closed(self)
        receiver = self.receiver
        self.receiver = None
        if receiver is None:
            return
        if self._until_close and exc is None:
            receiver.end()
        else:
            receiver.lost("it closed the connection", answered=self._answered)

    # What httptools calls:

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._status = status
        framed = False
        for name, _ in self._headers:
            if name == b"content-length" or name == b"transfer-encoding":
                framed = True
        self._until_close = not framed and status not in (204, 304)
        if self.receiver is not None:
            self.receiver.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()
        else:
            self._headers = []  # an interim answer (1xx); the real one follows
