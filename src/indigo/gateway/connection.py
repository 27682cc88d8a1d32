"""One connection from a client, for every route, ours and FastAPI's: whose turn it is, what is refused outright,
and what takes too long. It extends uvicorn's protocol; `http.py` adds the inference routes.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from indigo.gateway.exchange import Exchange
from indigo.gateway.framing import MAX_HEAD, MAX_URL, HeadTooLarge
from indigo.kernel.errors import IndigoError, InvalidRequest, TooLarge

if TYPE_CHECKING:
    from indigo.gateway.server import Gateway

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
LINGER_SECONDS = 5.0
SLURP = 64 * 1024
"""A refused request's body up to this size is read and thrown away, so that the connection can be used again."""


class ClientTooSlow(InvalidRequest):
    status = 408
    code = "client_too_slow"


class ClientConnection(HttpToolsProtocol):
    # What uvicorn types as its own cycle is now one of two things, or none yet.
    cycle: Any
    pipeline: Any
    parser: Any

    def __init__(self, gateway: Gateway, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gateway = gateway
        self.outbox = gateway.outbox
        self.url = b""
        self.raw_size = 0
        self.reading_since = 0.0
        """When the head or body now being read began; 0 when none is."""
        self.in_head = True
        self.idle_since = 0.0
        self.paused_since = 0.0
        self.current: Any = None
        """What is being answered, or was last; `cycle` is what was read last, and may still wait for its turn."""
        self.lingering = False
        """The last answer is out and our side closed; whatever still comes in is thrown away."""
        self.draining = False
        self.upgrading = False
        """What was read last offered to go over to another protocol, which is ignored."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.reading_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        current = self.current
        self.current = None
        if current is None:
            return
        current.disconnected = True
        if type(current) is not Exchange:
            current.message_event.set()
        elif current.steps is not None:
            current.steps.end()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.reject(InvalidRequest("This is not a valid HTTP/1.1 request.", code="invalid_http"))
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._go_on_without_upgrade(data[upgrade.args[0] :])
        if self.reading_since:
            self._count(len(data))

    def _count(self, size: int) -> None:
        """Bound what the parser gathers on its own: a head without end, trailers, chunk extensions."""
        if self.raw_size < 0:
            self.raw_size = 0  # it began somewhere in these bytes
            return
        self.raw_size += size
        if self.in_head:
            if self.raw_size > MAX_HEAD + MAX_URL:
                self.reject(HeadTooLarge(f"The headers are larger than {MAX_HEAD} bytes."))
        elif type(self.cycle) is Exchange and self.raw_size > 2 * self.gateway.max_body + SLURP:
            self.reject(TooLarge(f"The body is larger than {self.gateway.max_body} bytes."))

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read a request as if it had not offered another protocol (RFC 9110 §7.8); its body would be skipped."""
        if not self.upgrading:
            return
        self.upgrading = False
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url), b"connection: close"]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in (b"upgrade", b"connection")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def reject(self, error: IndigoError) -> None:
        """Answer what cannot be served at all, and close; the bytes that follow mean nothing."""
        self.reading_since = 0.0
        if self.lingering or self.transport.is_closing():
            return
        if not self._may_reject():
            self.transport.abort()  # an answer is under way: nothing may be mixed into it
            return
        cycle = self.cycle
        if type(cycle) is Exchange and not cycle.response_complete:
            exchange = cycle
        else:
            exchange = self._exchange("", None, keep_alive=False)
        exchange.keep_alive = exchange.more_body = False
        exchange.drop_body()
        exchange.refusal = error
        exchange.linger = True
        self.cycle = exchange
        self._answer(exchange)

    def _may_reject(self) -> bool:
        """Whether the next bytes sent would be the answer to what is being read now."""
        cycle, current = self.cycle, self.current
        if self.pipeline or (current is not None and current is not cycle and not current.response_complete):
            return False
        if cycle is None or cycle.response_complete:
            return True
        if type(cycle) is Exchange:
            return cycle.steps is None
        if cycle.response_started or not cycle.more_body:
            return False
        cycle.disconnected = True  # the application is reading a broken body: to it the client has left
        cycle.message_event.set()
        return True

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.in_head = True
        self.raw_size = -1
        if not self.reading_since:
            self.reading_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.headers.append((name.lower(), value))  # and no trailer: what a header says was decided by then

    def _exchange(self, operation: str, request_id: bytes | None, *, keep_alive: bool) -> Exchange:
        id = self.gateway.ids.next()
        given = request_id is not None and REQUEST_ID.fullmatch(request_id)
        return Exchange(self, operation, id, request_id.decode() if given and request_id else "req_" + id, keep_alive)

    def date_header(self) -> bytes:
        """The Date header and its like, as one piece."""
        return self.gateway.default_headers(self.server_state.default_headers)

    def on_response_complete(self) -> None:
        """uvicorn's, with one sweep for all connections in place of a timer for each."""
        self.server_state.total_requests += 1
        self.idle_since = self.loop.time()
        current = self.current
        if type(current) is Exchange and current.linger:
            self.lingering = True
            self.reading_since = 0.0
            self.pipeline.clear()
            self.flow.resume_reading()
        elif self.transport.is_closing():
            return
        elif self.pipeline:
            self._next()
        else:
            self.flow.resume_reading()

    def _next(self) -> None:
        """Answer those that wait, in order, until one takes its time. A loop: calls within calls would pile up."""
        if self.draining:
            return
        self.draining = True
        try:
            while self.pipeline and self.current.response_complete and not self.transport.is_closing():
                cycle, app = self.pipeline.pop()
                if not self.pipeline:
                    self.flow.resume_reading()
                self._start_asgi_task(cycle, app)
        finally:
            self.draining = False

    def shutdown(self) -> None:
        self.outbox.flush()
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused_since = self.loop.time()
        current = self.current
        if type(current) is Exchange and current.call is not None:
            current.call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.paused_since = 0.0
        current = self.current
        if type(current) is Exchange and current.call is not None:
            current.call.resume()

    def sweep(self, now: float) -> None:
        """End a client that is too slow in sending or reading, or idle for too long."""
        limits = self.gateway.patience
        if self.paused_since and now - self.paused_since > limits.stalled:
            self.transport.abort()
        elif self.lingering:
            if now - self.idle_since > LINGER_SECONDS:
                self.transport.abort()
        elif self.transport.is_closing():
            if now - self.idle_since > limits.keep_alive:
                self.transport.abort()  # it does not even read its last answer
        elif self.reading_since:
            if self.flow.read_paused:
                self.reading_since = now  # it is we who do not read
            elif now - self.reading_since > (limits.head if self.in_head else limits.body):
                self.reject(ClientTooSlow("The request did not arrive in time."))
        elif (self.cycle is None or self.cycle.response_complete) and now - self.idle_since > limits.keep_alive:
            self.transport.close()

    def _answer(self, exchange: Exchange) -> None:
        """Answer a request of the gateway's whose turn it is."""
        raise TypeError(f"{type(self).__name__} answers nothing")
