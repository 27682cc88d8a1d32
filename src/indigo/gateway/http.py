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
from indigo.gateway.framing import MAX_HEAD, MAX_URL, HeadTooLarge, check_head, header
from indigo.kernel.errors import IndigoError, InvalidRequest, TooLarge

if TYPE_CHECKING:
    from indigo.gateway.server import Gateway

HOT = {path.encode(): operation for path, operation in operations.PATHS.items()}
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
SLURP = 64 * 1024
"""A refused request's body up to this size is read and thrown away, so that the connection can be used again."""


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class ClientTooSlow(InvalidRequest):
    status = 408
    code = "client_too_slow"


class GatewayProtocol(HttpToolsProtocol):
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
                if exchange.task is not None:
                    exchange.task.cancel()
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
        exchange = self._exchange("", keep_alive=False)
        self.cycle = cast(Any, exchange)
        self.gateway.metrics.not_admitted("", error.status)
        exchange.refuse(error)

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head = True
        self.head_size = 0
        if not self.reading_since:
            self.reading_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.transport.is_closing():
            return
        version = self.parser.get_http_version()
        try:
            check_head(self.url, self.headers, version)
        except IndigoError as error:
            self.reject(error)
            return
        url, _, query = self.url.partition(b"?")
        operation = HOT.get(url)
        if operation is None:
            super().on_headers_complete()
        else:
            self._divert(operation, query, version)

    def _divert(self, operation: str, query: bytes, version: str) -> None:
        exchange = self._exchange(operation, keep_alive=version == "1.1" and self.parser.should_keep_alive())
        exchange.stream = bool(query) and parse_qs(query).get(b"stream", [b""])[-1].lower() in (b"true", b"1")
        previous = self.cycle
        self.cycle = cast(Any, exchange)
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        length = int(header(self.headers, b"content-length") or b"0")
        try:
            self._admit_head(exchange, length, version)
        except IndigoError as error:
            if length > SLURP or header(self.headers, b"transfer-encoding") is not None:
                exchange.keep_alive = False
            exchange.refusal = error
        if exchange.refusal is not None and exchange.more_body and not exchange.keep_alive:
            exchange.more_body = False
            self._ready(exchange)

    def _admit_head(self, exchange: Exchange, length: int, version: str) -> None:
        if self.parser.get_method() != b"POST":
            raise MethodNotAllowed(f"Use POST for {exchange.operation}.")
        self.gateway.authenticate(exchange, self.headers)
        if length > self.gateway.max_body:
            raise TooLarge(f"The body is larger than {self.gateway.max_body} bytes.")
        if version != "1.1" and exchange.stream:
            raise InvalidRequest("Streams need HTTP/1.1.")
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _exchange(self, operation: str, *, keep_alive: bool) -> Exchange:
        id = self.gateway.ids.next()
        given = header(self.headers, b"x-request-id") if self.headers else None
        request_id = given.decode() if given is not None and REQUEST_ID.fullmatch(given) else "req_" + id
        return Exchange(
            self.transport, operation, id=id, request_id=request_id, stream=False, keep_alive=keep_alive,
            date=self._date, on_complete=self.on_response_complete,
        )  # fmt: skip

    def _date(self) -> bytes:
        return self.gateway.default_headers(self.server_state.default_headers)

    def on_body(self, body: bytes) -> None:
        exchange = cast(Any, self.cycle)
        if type(exchange) is not Exchange:
            super().on_body(body)
        elif exchange.more_body and exchange.refusal is None:
            exchange.feed(body)
            if exchange.size > self.gateway.max_body:
                exchange.drop_body()
                exchange.keep_alive = exchange.more_body = False
                exchange.refusal = TooLarge(f"The body is larger than {self.gateway.max_body} bytes.")
                self._ready(exchange)

    def on_message_complete(self) -> None:
        self.reading_since = 0.0
        exchange = cast(Any, self.cycle)
        if type(exchange) is not Exchange:
            super().on_message_complete()
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
        task = self.loop.create_task(self.gateway.answer(exchange))
        exchange.task = task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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
        if type(cycle := cast(Any, self.cycle)) is Exchange and cycle.call is not None:
            cycle.call.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.paused_since = 0.0
        if type(cycle := cast(Any, self.cycle)) is Exchange and cycle.call is not None:
            cycle.call.resume()

    def sweep(self, now: float) -> None:
        """End a client that is too slow in sending or reading, or idle for too long."""
        limits = self.gateway.patience
        if self.paused_since and now - self.paused_since > limits.stalled:
            self.transport.abort()
        elif self.reading_since:
            if now - self.reading_since > (limits.head if self.in_head else limits.body):
                self.reject(ClientTooSlow("The request did not arrive in time."))
        elif (self.cycle is None or self.cycle.response_complete) and now - self.idle_since > limits.keep_alive:
            self.transport.close()
