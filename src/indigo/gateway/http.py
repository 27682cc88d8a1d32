"""uvicorn's HTTP protocol, with the inference routes diverted before an ASGI scope or task exists.

Limits of the head, ambiguous framing and slow clients are checked here for every route, ours and FastAPI's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from indigo.gateway import operations
from indigo.gateway.exchange import Exchange
from indigo.gateway.framing import MAX_HEAD, MAX_URL, Head, HeadTooLarge, read_head
from indigo.gateway.steps import Steps
from indigo.kernel.errors import IndigoError, InvalidRequest, TooLarge

if TYPE_CHECKING:
    from indigo.gateway.server import Gateway

HOT = {path.encode(): operation for path, operation in operations.PATHS.items()}
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
LINGER_SECONDS = 5.0
SLURP = 64 * 1024
"""A refused request's body up to this size is read and thrown away, so that the connection can be used again."""


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class ClientTooSlow(InvalidRequest):
    status = 408
    code = "client_too_slow"


class GatewayProtocol(HttpToolsProtocol):
    # What uvicorn types as its own cycle is now one of two things, or none yet.
    cycle: Any
    pipeline: Any
    parser: Any

    def __init__(self, gateway: Gateway, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gateway = gateway
        self.url = b""
        self.head_size = 0
        self.reading_since = 0.0
        """When the head or body now being read began; 0 when none is."""
        self.in_head = True
        self.idle_since = 0.0
        self.paused_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.reading_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self.cycle
        super().connection_lost(exc)
        for exchange in (cycle, *(queued for queued, _ in self.pipeline)):
            if type(exchange) is Exchange:
                exchange.disconnected = True
                if exchange.steps is not None:
                    exchange.steps.cancel()
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.in_head and self.reading_since and not self.transport.is_closing():
            self.head_size += len(data)
            if self.head_size > MAX_HEAD + MAX_URL:
                self.reject(HeadTooLarge(f"The headers are larger than {MAX_HEAD} bytes."))

    def send_400_response(self, msg: str) -> None:
        self.reject(InvalidRequest("This is not a valid HTTP/1.1 request.", code="invalid_http"))

    def reject(self, error: IndigoError) -> None:
        """Answer what cannot be served at all, and close; the bytes that follow mean nothing."""
        self.reading_since = 0.0
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an earlier answer is under way: nothing may be mixed into it
            return
        exchange = self._exchange("", None, keep_alive=False)
        self.cycle = exchange
        self.gateway.metrics.not_admitted("", error.status)
        exchange.refuse(error)

    # Parser callbacks

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.in_head = True
        self.head_size = 0
        if not self.reading_since:
            self.reading_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.transport.is_closing():
            return
        version = self.parser.get_http_version()
        try:
            head = read_head(self.url, self.headers, version)
        except IndigoError as error:
            self.reject(error)
            return
        operation = HOT.get(self.url)
        if operation is not None:
            self._divert(operation, head, version, stream=False)
            return
        url, _, query = self.url.partition(b"?")
        operation = HOT.get(url)
        if operation is not None:
            stream = parse_qs(query).get(b"stream", [b""])[-1].lower() in (b"true", b"1")
            self._divert(operation, head, version, stream=stream)
        else:
            self._leave_to_asgi(head)

    def _leave_to_asgi(self, head: Head) -> None:
        """Every other route is uvicorn's, as if nothing had been looked at."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = head.expect is not None and head.expect.lower() == b"100-continue"
        super().on_headers_complete()

    def _divert(self, operation: str, head: Head, version: str, *, stream: bool) -> None:
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        exchange = self._exchange(operation, head.request_id, keep_alive=keep_alive)
        exchange.stream = stream
        previous = self.cycle
        self.cycle = exchange
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, None))
        try:
            self._admit_head(exchange, head, version)
        except IndigoError as error:
            exchange.refusal = error
            if head.length > SLURP or head.chunked:
                exchange.keep_alive = False
            if not exchange.keep_alive and (head.length or head.chunked):
                self._refuse_early(exchange)

    def _admit_head(self, exchange: Exchange, head: Head, version: str) -> None:
        if self.parser.get_method() != b"POST":
            raise MethodNotAllowed(f"Use POST for {exchange.operation}.")
        self.gateway.authenticate(exchange, head)
        if head.length > self.gateway.max_body:
            raise TooLarge(f"The body is larger than {self.gateway.max_body} bytes.")
        if version != "1.1" and exchange.stream:
            raise InvalidRequest("Streams need HTTP/1.1.")
        if head.expect is not None and head.expect.lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _exchange(self, operation: str, request_id: bytes | None, *, keep_alive: bool) -> Exchange:
        id = self.gateway.ids.next()
        given = request_id is not None and REQUEST_ID.fullmatch(request_id)
        return Exchange(self, operation, id, request_id.decode() if given and request_id else "req_" + id, keep_alive)

    def date_header(self) -> bytes:
        """The Date header and its like, as one piece."""
        return self.gateway.default_headers(self.server_state.default_headers)

    def on_body(self, body: bytes) -> None:
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_body(body)
        elif exchange.more_body and exchange.refusal is None:
            exchange.feed(body)
            if exchange.size > self.gateway.max_body:
                exchange.drop_body()
                exchange.keep_alive = False
                exchange.refusal = TooLarge(f"The body is larger than {self.gateway.max_body} bytes.")
                self._refuse_early(exchange)

    def _refuse_early(self, exchange: Exchange) -> None:
        """Answer before the body is in, and throw the rest of it away for a moment."""
        exchange.more_body = False
        exchange.linger = True
        self.reading_since = self.loop.time()
        self._ready(exchange)

    def on_message_complete(self) -> None:
        self.reading_since = 0.0
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_message_complete()
        elif exchange.linger:
            self.transport.close()
        elif exchange.more_body:
            exchange.more_body = False
            self._ready(exchange)

    def _ready(self, exchange: Exchange) -> None:
        """The body is complete, or will not be waited for; answer now unless earlier answers are still due."""
        if not any(queued is exchange for queued, _ in self.pipeline):
            self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        if exchange.refusal is not None:
            self.gateway.metrics.not_admitted(exchange.operation, exchange.refusal.status)
            extra = b"allow: POST\r\n" if exchange.refusal.status == 405 else b""
            exchange.refuse(exchange.refusal, extra=extra)
            return
        steps = Steps(self.gateway.answer(exchange), self.tasks.discard)
        exchange.steps = steps
        self.tasks.add(cast(Any, steps))
        steps.step()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is not Exchange:
            super()._start_asgi_task(cycle, app)
        elif not cycle.more_body:
            self._answer(cycle)

    def on_response_complete(self) -> None:
        """uvicorn's, with one sweep for all connections in place of a timer for each."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.idle_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    # Back-pressure and time

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused_since = self.loop.time()
        cycle = self.cycle
        if type(cycle) is Exchange and cycle.call is not None:
            cycle.call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.paused_since = 0.0
        cycle = self.cycle
        if type(cycle) is Exchange and cycle.call is not None:
            cycle.call.resume()

    def sweep(self, now: float) -> None:
        """End a client that is too slow in sending or reading, or idle for too long."""
        limits = self.gateway.patience
        if self.paused_since and now - self.paused_since > limits.stalled:
            self.transport.abort()
        elif self.reading_since:
            lingering = self.cycle
            if type(lingering) is Exchange and lingering.linger:
                if now - self.reading_since > LINGER_SECONDS:
                    self.transport.abort()
            elif now - self.reading_since > (limits.head if self.in_head else limits.body):
                self.reject(ClientTooSlow("The request did not arrive in time."))
        elif (self.cycle is None or self.cycle.response_complete) and now - self.idle_since > limits.keep_alive:
            self.transport.close()
