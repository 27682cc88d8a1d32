"""The inference routes, diverted before an ASGI scope or task exists; every other route goes on to uvicorn."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qs

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from indigo.gateway import operations
from indigo.gateway.connection import SLURP, ClientConnection
from indigo.gateway.exchange import Exchange
from indigo.gateway.framing import Head, read_head
from indigo.gateway.steps import Steps
from indigo.kernel.errors import IndigoError, InvalidRequest, TooLarge

HOT = {path.encode(): operation for path, operation in operations.PATHS.items()}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class GatewayProtocol(ClientConnection):
    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.lingering or self.transport.is_closing():
            return
        version = self.parser.get_http_version()
        try:
            head = read_head(self.url, self.headers, version)
        except IndigoError as error:
            self.reject(error)
            return
        if self.parser.should_upgrade() and not self._should_upgrade():
            if head.upgrade:
                self.upgrading = True
            else:
                self.reject(MethodNotAllowed("This is no proxy: CONNECT is not served."))
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
        HttpToolsProtocol.on_message_begin(self)  # makes the ASGI scope, which ours leaves out
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = head.expects
        super().on_headers_complete()

    def _divert(self, operation: str, head: Head, version: str, *, stream: bool) -> None:
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        exchange = self._exchange(operation, head.request_id, keep_alive=keep_alive)
        exchange.stream = stream
        if version != "1.1":
            exchange.chunked = False
        previous = self.cycle
        self.cycle = exchange
        if previous is not None and not previous.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, None))
        self.headers = []  # a connection may be held for long; what matters is in `head`
        try:
            self._admit_head(exchange, head)
        except IndigoError as error:
            exchange.refusal = error
            if head.length > SLURP or head.chunked or head.expects:
                exchange.keep_alive = False
            if not exchange.keep_alive and (head.length or head.chunked):
                self._refuse_early(exchange)

    def _admit_head(self, exchange: Exchange, head: Head) -> None:
        method = self.parser.get_method()
        if method != b"POST":
            exchange.headless = method == b"HEAD"
            raise MethodNotAllowed(f"Use POST for {exchange.operation}.")
        self.gateway.authenticate(exchange, head)
        if head.length > self.gateway.max_body:
            raise TooLarge(f"The body is larger than {self.gateway.max_body} bytes.")
        if head.expects:
            if self.pipeline:
                exchange.expects = True
            else:
                self.outbox.write(self.transport, CONTINUE)

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
        """Answer before the body is in; what still comes is thrown away for a moment."""
        exchange.more_body = False
        exchange.linger = True
        self._ready(exchange)

    def on_message_complete(self) -> None:
        if self.upgrading:
            return
        self.reading_since = 0.0
        exchange = self.cycle
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
        self.current = exchange
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
        self.current = cycle
        if type(cycle) is not Exchange:
            super()._start_asgi_task(cycle, app)
        elif not cycle.more_body:
            self._answer(cycle)
        elif cycle.expects:
            self.outbox.write(self.transport, CONTINUE)
