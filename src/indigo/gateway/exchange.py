"""One request over HTTP and its answer: the body as it comes in, the bytes as they go out.

It stands where uvicorn's `RequestResponseCycle` stands, so that keep-alive, pipelining and draining remain
uvicorn's; the attributes without underscore that have no comment are what its protocol class looks at.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Protocol

from indigo.gateway.errors import error_body, error_event
from indigo.gateway.outbox import Outbox
from indigo.gateway.ports import Grant
from indigo.gateway.steps import Steps
from indigo.gateway.stream import DONE
from indigo.gateway.upstream.call import Call
from indigo.kernel.errors import IndigoError

LAST = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Connection(Protocol):
    """What an exchange needs of the connection it runs on."""

    transport: asyncio.Transport
    outbox: Outbox

    def date_header(self) -> bytes: ...
    def on_response_complete(self) -> None: ...


class _NoEvent:
    """uvicorn sets an event when a body comes in or a client leaves; nobody waits for ours."""

    def set(self) -> None: ...


NO_EVENT = _NoEvent()


class Exchange:
    __slots__ = (
        "_connection",
        "_outbox",
        "_parts",
        "_transport",
        "admitted",
        "begun",
        "call",
        "chunked",
        "digest",
        "disconnected",
        "expects",
        "grant",
        "headless",
        "id",
        "keep_alive",
        "linger",
        "more_body",
        "operation",
        "refusal",
        "request_id",
        "response_complete",
        "size",
        "steps",
        "stream",
    )
    message_event = NO_EVENT

    def __init__(self, connection: Connection, operation: str, id: str, request_id: str, keep_alive: bool) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._outbox = connection.outbox
        self._parts: list[bytes] = []
        self.operation = operation
        self.id = id
        self.request_id = request_id
        self.stream = False
        self.keep_alive = keep_alive
        self.size = 0
        self.more_body = True
        self.linger = False
        """The client still sends: close only our side, so that it reads the answer and not a reset."""
        self.expects = False
        """The client waits for a 100 (Continue) that it has not been sent yet."""
        self.chunked = True
        self.headless = False
        """A HEAD request: its answer has no body (RFC 9110 §9.3.2)."""
        self.admitted = False
        self.begun = False
        self.response_complete = False
        self.disconnected = False
        self.grant: Grant | None = None
        self.digest = b""
        self.refusal: IndigoError | None = None
        self.call: Call | None = None
        self.steps: Steps | None = None

    @property
    def gone(self) -> bool:
        return self.disconnected

    def take_body(self) -> bytes:
        """The body, which is not kept here: a stream may last long."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self._parts.append(data)

    def drop_body(self) -> None:
        self._parts.clear()

    # The stream, as the relay writes it. Its chunks come one by one, so there is nothing to gain from the outbox:

    def begin(self, data: bytes) -> None:
        self.begun = True
        self._outbox.flush()  # an earlier answer on this connection goes first
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-store\r\n"
            b"x-accel-buffering: no\r\n"
        )
        if self.chunked:
            framing = b"transfer-encoding: chunked\r\n"
            self._transport.write(b"%b%b%b\r\n%x\r\n%b\r\n" % (head, framing, self._tail(), len(data), data))
        else:
            self._transport.write(b"%b%b\r\n%b" % (head, self._tail(), data))

    def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self) -> None:
        """The stream was whole."""
        self._transport.write(LAST if self.chunked else DONE)
        self._completed()

    def break_off(self, error: IndigoError) -> None:
        """An error as the last event, and no final chunk: the client sees that the stream is not whole."""
        data = error_event(error, self.request_id)
        self.write(data)
        self.keep_alive = False
        self._completed()

    # Whole answers:

    def send(self, body: bytes) -> None:
        self._send(200, b"", body)

    def refuse(self, error: IndigoError, *, extra: bytes = b"") -> None:
        if error.retry_after is not None:
            extra += b"retry-after: %d\r\n" % error.retry_after
        if error.status == 401:
            extra += b"www-authenticate: Bearer\r\n"
        self._send(error.status, extra, error_body(error, self.request_id))

    def _send(self, status: int, extra: bytes, body: bytes) -> None:
        if self.response_complete:
            return
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        head = b"%bcontent-type: application/json\r\ncache-control: no-store\r\n%bcontent-length: %d\r\n%b\r\n"
        self._outbox.write(
            self._transport, head % (line, extra, len(body), self._tail()) + (b"" if self.headless else body)
        )
        self._completed()

    def _write(self, data: bytes) -> None:
        self._outbox.write(self._transport, data)

    def _tail(self) -> bytes:
        close = b"" if self.keep_alive else b"connection: close\r\n"
        return b"x-request-id: %b\r\n%b%b" % (self.request_id.encode(), self._connection.date_header(), close)

    def _completed(self) -> None:
        self.response_complete = True
        self._parts.clear()
        if not self.keep_alive:
            self._outbox.flush()
            if not self.linger:
                self._transport.close()
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        self._connection.on_response_complete()
