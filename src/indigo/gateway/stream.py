"""Passes a stream of server-sent events on, event by event, and remembers what it used.

Only complete, well-formed events reach the client, so that an error can be put between two of them. What breaks
off upstream ends here with a typed error and without the transfer's final chunk: it never looks complete.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from indigo.gateway import usage
from indigo.gateway.ports import Tokens
from indigo.gateway.steps import Signal
from indigo.gateway.upstream.call import AttemptFailed, Call
from indigo.kernel.errors import IndigoError, UpstreamFailed, UpstreamTimeout

MAX_EVENT = 8 * 1024 * 1024
DONE = b"data: [DONE]\n\n"


class StreamClient(Protocol):
    """The client's side of a stream. `begin` sends the head together with the first events."""

    def begin(self, data: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...


class Relay:
    __slots__ = (
        "_call",
        "_client",
        "_done_seen",
        "_error",
        "_keep_usage",
        "_parts",
        "_parts_size",
        "begun",
        "events",
        "events_stated",
        "finish_seen",
        "finished",
        "first_byte",
        "tokens",
    )

    def __init__(self, client: StreamClient, *, keep_usage: bool) -> None:
        self._client = client
        self._keep_usage = keep_usage
        self._call: Call | None = None
        self._done_seen = False
        self._error: IndigoError | None = None
        self._parts: list[bytes] = []
        self._parts_size = 0
        self.begun = False
        self.events = 0
        """Events that carried choices: for a stream that states no usage, about its completion tokens."""
        self.events_stated = 0
        """How many of them had come when `tokens` were stated."""
        self.finish_seen = False
        self.first_byte = 0.0
        self.tokens: Tokens | None = None
        self.finished: Signal[None] = Signal()
        """Resolves at the stream's good end; fails with the IndigoError that the client is to see."""

    def attach(self, call: Call) -> None:
        self._call = call

    def feed(self, data: bytes) -> None:
        if self.finished.done:
            return  # what follows [DONE] is nobody's
        if self._parts or not data.endswith(b"\n\n") or b"\r" in data:
            data = self._complete(data)
            if not data:
                return
        if not data.isascii() and not _utf8(data):
            self._break(UpstreamFailed("The model's answer is not UTF-8.", code="upstream_garbage"))
            return
        events = data.split(b"\n\n")
        kept: list[bytes] = []
        for event in events:
            if not event:
                continue
            passed = self._event(event)
            if passed:
                kept.append(passed)
            if self._done_seen or self._error is not None:
                break
        if kept:
            self._pass_on(data if kept == events[:-1] else b"".join([event + b"\n\n" for event in kept]))
        if self._error is not None:
            self._break(self._error)
        elif self._done_seen:
            self._finish()

    def _pass_on(self, data: bytes) -> None:
        if self.begun:
            self._client.write(data)
            return
        assert self._call is not None
        if self._call.answered.done or self._error is not None:
            return  # this attempt has failed: nothing of it may reach the client
        self.begun = True
        self.first_byte = self._call.last_data
        self._client.begin(data)
        self._call.answered.set(None)

    def _event(self, event: bytes) -> bytes:
        """The event as it is to be passed on; empty where it is not."""
        if not event.startswith(b"data: {") or b"\n" in event:
            event = _normal(event)
            if event == b"data: [DONE]":
                self._done_seen = True
                return b""
            if not event:
                return b""
        try:
            found = usage.decode_event(memoryview(event)[6:])
        except (msgspec.DecodeError, RecursionError):
            found = usage.of_event(event[6:])
        if found is None:
            self._error = UpstreamFailed("The model's answer holds an event that is not JSON.", code="upstream_garbage")
            return b""
        if found.error is not msgspec.UNSET and bytes(found.error) != b"null":
            self._error = UpstreamFailed("The model broke its answer off with an error.", code="upstream_error")
            return b""
        return self._counted(event, found)

    def _counted(self, event: bytes, found: usage.Event) -> bytes:
        if found.choices:
            self.events += 1
            for choice in found.choices:
                if choice.finish_reason:
                    self.finish_seen = True
        elif not self._keep_usage and found.usage is not None:
            event = b""
        if found.usage:
            self.tokens = found.usage.tokens()
            self.events_stated = self.events
        return event

    def _complete(self, data: bytes) -> bytes:
        """What is complete of the events so far, with line ends made LF (WHATWG HTML §9.2.6)."""
        last = self._parts[-1] if self._parts else b""
        if last.endswith(b"\r"):  # was held back: its LF may be in this packet
            data = b"\r" + data
            if len(last) > 1:
                self._parts[-1] = last = last[:-1]
            else:
                self._parts.pop()
                last = self._parts[-1] if self._parts else b""
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        cut = (last[-1:] + data).rfind(b"\n\n")
        if cut < 0:
            self._keep(data + held)
            return b""
        cut += 2 - len(last[-1:])
        text = b"".join(self._parts) + data[:cut]
        self._parts.clear()
        self._parts_size = 0
        self._keep(data[cut:] + held)
        return text

    def _keep(self, part: bytes) -> None:
        """Part of an event whose end is still to come."""
        if part:
            self._parts.append(part)
            self._parts_size += len(part)
        if self._parts_size > MAX_EVENT:
            self._parts.clear()
            self._break(UpstreamFailed("The model sent an event that is too large.", code="upstream_garbage"))

    def ended(self) -> None:
        """The endpoint ended its answer in good order. Without [DONE] it counts as whole if a finish_reason came."""
        if self.finished.done:
            return
        if self._parts:
            self.feed(b"\n\n")
        if self.finished.done:
            return
        if self.finish_seen:
            self._finish()
        else:
            self._break(UpstreamFailed("The model's answer ended before it was complete.", code="upstream_truncated"))

    def lost(self, text: str, *, timeout: bool = False) -> None:
        message = f"The model's answer broke off: {text}."
        self._break(UpstreamTimeout(message) if timeout else UpstreamFailed(message, code="upstream_truncated"))

    def _finish(self) -> None:
        if not self.begun:
            self._break(UpstreamFailed("The model's answer is empty.", code="upstream_truncated"))
        elif not self.finished.done:
            self.finished.set(None)

    def _break(self, error: IndigoError) -> None:
        assert self._call is not None
        if self.finished.done:
            return
        self._call.cancel()
        if self.begun:
            self.finished.fail(error)
        elif not self._call.answered.done:
            timeout = isinstance(error, UpstreamTimeout)
            self._call.answered.fail(AttemptFailed(error.message, status=self._call.status, timeout=timeout))


def _utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _normal(event: bytes) -> bytes:
    """An event as `data: …` alone: comments, ids, names and retry times are between us and the endpoint."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"data: " + b" ".join(lines) if lines else b""
