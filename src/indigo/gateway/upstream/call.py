"""One attempt to have one endpoint answer: it gathers a whole answer, or hands a stream to its relay.

`answered` resolves once the attempt is decided: a whole answer is here, the stream's first event was passed on,
or it failed. Until then nothing has reached the client, and another endpoint may be asked instead.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from indigo.gateway.ports import Tokens
from indigo.gateway.steps import Signal
from indigo.gateway.upstream.connection import Connection, Headers

MAX_ANSWER = 64 * 1024 * 1024
LAST_BYTES_SECONDS = 2.0


class AttemptFailed(Exception):
    """The endpoint gave no answer that could be passed on. `stale` means: a reused connection was already closed.

    `text` is safe to show; `status` is the endpoint's, or 0; `retry_after` seconds where it asked for a pause.
    `ours` means that it was never asked, for a reason that lies on this side.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        stale: bool = False,
        timeout: bool = False,
        ours: bool = False,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.retry_after = retry_after
        self.stale = stale
        self.timeout = timeout
        self.ours = ours


class StreamReceiver(Protocol):
    """Where a stream's bytes go. `finished` happens at its last word."""

    finished: Signal[None]

    def feed(self, data: bytes) -> None: ...
    def ended(self) -> None: ...
    def lost(self, text: str, *, timeout: bool = False) -> None: ...


class Call:
    __slots__ = (
        "_pieces",
        "_size",
        "_stream",
        "_time",
        "answered",
        "connection",
        "content_type",
        "deadline",
        "idle_seconds",
        "last_data",
        "paused",
        "relay",
        "retry_after",
        "status",
        "tokens",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, relay: StreamReceiver | None,
        *, deadline: float, idle_seconds: float,
    ) -> None:  # fmt: skip
        self.answered: Signal[None] = Signal()
        self._time = loop.time
        self.connection = connection
        self.relay = relay
        self.deadline = deadline
        self.idle_seconds = idle_seconds
        self.last_data = 0.0
        self.paused = False
        self.status = 0
        self.tokens: Tokens | None = None
        """What a whole answer states to have used."""
        self.content_type = b""
        self.retry_after: float | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._stream = False

    @property
    def whole(self) -> bytes:
        """The body of an answer that is no stream."""
        return b"".join(self._pieces)

    @property
    def streaming(self) -> bool:
        """The answer is a stream, which goes to the relay."""
        return self._stream

    def head(self, status: int, headers: Headers) -> None:
        self.status = status
        for name, value in headers:
            if name == b"content-type":
                self.content_type = value.lower()
            elif name == b"retry-after":
                self.retry_after = seconds(value)
            elif name == b"content-encoding" and value.lower() != b"identity":
                self._fail("its answer is compressed, though it was asked not to")
                return
        if self.relay is not None and status == 200 and self.content_type.startswith(b"text/event-stream"):
            self._stream = True

    def body(self, data: bytes) -> None:
        self.last_data = self._time()
        if self._stream:
            assert self.relay is not None
            self.relay.feed(data)
            return
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._fail("its answer is too large")
        else:
            self._pieces.append(data)

    def end(self) -> None:
        if self._stream:
            assert self.relay is not None
            self.relay.ended()
        elif not self.answered.done:
            self.answered.set(None)

    def lost(self, reason: str, *, answered: bool) -> None:
        if self._stream:
            assert self.relay is not None
            self.relay.lost(reason)
        elif not self.answered.done:
            stale = self.connection.used and not answered
            self.answered.fail(AttemptFailed(reason, status=self.status, stale=stale))

    def let_go(self) -> None:
        """The stream has said its last word; the transfer gets a moment to end, so that the connection can stay."""
        self.paused = False
        self.deadline = self._time() + LAST_BYTES_SECONDS
        if self.connection.receiver is self:
            self.connection.resume_reading()

    def sweep(self, now: float) -> bool:
        """End what takes too long: the first byte, the silence between two, or the end after the last word.

        True once there is nothing more to watch.
        """
        if self.connection.receiver is not self and self.answered.done:
            return True
        if not self.answered.done:
            if now > self.deadline:
                self._fail("it did not answer in time", timeout=True)
        elif self.relay is not None and self.relay.finished.done:
            if now > self.deadline:
                self.connection.abort()
        elif self._stream and not self.paused and now - self.last_data > self.idle_seconds:
            self.connection.abort()
            assert self.relay is not None
            self.relay.lost("its answer stood still for too long", timeout=True)
        return False

    def cancel(self) -> None:
        """Stop the endpoint; nobody waits for the answer any more."""
        if self.connection.receiver is self:
            self.connection.abort()

    def pause(self) -> None:
        self.paused = True
        if self.connection.receiver is self:
            self.connection.pause_reading()

    def resume(self) -> None:
        self.paused = False
        self.last_data = self._time()
        if self.connection.receiver is self:
            self.connection.resume_reading()

    def _fail(self, text: str, *, timeout: bool = False) -> None:
        self.connection.abort()
        if not self.answered.done:
            self.answered.fail(AttemptFailed(text, status=self.status, timeout=timeout))


def seconds(value: bytes) -> float | None:
    """A Retry-After in seconds (RFC 9110 §10.2.3); the rarer HTTP date counts as none."""
    return float(value) if value.isdigit() and len(value) < 9 else None
