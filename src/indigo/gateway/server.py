"""The gateway as uvicorn sees it: what all connections share, and the way from an exchange to the pipeline."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import msgspec

from indigo.gateway import authenticate
from indigo.gateway.exchange import Exchange
from indigo.gateway.framing import Head
from indigo.gateway.http import GatewayProtocol
from indigo.gateway.metrics import Metrics
from indigo.gateway.outbox import Outbox
from indigo.gateway.pipeline import Pipeline
from indigo.gateway.ports import Grants
from indigo.gateway.record import Accounts
from indigo.gateway.steps import bridged
from indigo.gateway.sweeper import Sweeper
from indigo.kernel import api_keys
from indigo.kernel.errors import IndigoError, Internal, Unavailable
from indigo.kernel.ids import EventIds

log = logging.getLogger("indigo.gateway")


class Patience(msgspec.Struct, frozen=True):
    """Seconds that a client gets: for its head, its body, an idle connection, and a pause in reading."""

    head: float = 15.0
    body: float = 60.0
    keep_alive: float = 75.0
    stalled: float = 120.0


class Gateway:
    def __init__(
        self, *, grants: Grants, pipeline: Pipeline, accounts: Accounts, sweeper: Sweeper, metrics: Metrics,
        outbox: Outbox, max_body: int, patience: Patience,
    ) -> None:  # fmt: skip
        self._grants = grants
        self.outbox = outbox
        self._pipeline = pipeline
        self._accounts = accounts
        self._sweeper = sweeper
        self.metrics = metrics
        self.max_body = max_body
        self.patience = patience
        self.ids = EventIds()
        self._connections: set[Any] = set()
        self._headers_for: list[tuple[bytes, bytes]] | None = None
        self._headers = b""

    def protocol(self) -> Any:
        """What to give uvicorn as `http=`."""
        return functools.partial(GatewayProtocol, self)

    def start(self, connections: set[Any]) -> None:
        """Begin to watch the clock; `connections` is uvicorn's set of open ones."""
        self._connections = connections
        self._sweeper.also(self._sweep)
        self._sweeper.start()

    def stop(self) -> None:
        self._sweeper.stop()

    def _sweep(self, now: float) -> None:
        for connection in list(self._connections):
            connection.sweep(now)
        self._accounts.journal_progress()

    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """uvicorn's Date and the like as one piece; it makes a new list once a second."""
        if headers is not self._headers_for:
            self._headers_for = headers
            self._headers = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return self._headers

    def authenticate(self, exchange: Exchange, head: Head) -> None:
        """Sets the exchange's grant, or at least its digest where memory does not know the key. Raises IndigoError."""
        token = authenticate.credential(head.authorization, head.other_credential)
        exchange.digest = api_keys.digest(token)
        exchange.grant = self._grants.cached(exchange.digest)
        if exchange.grant is None:
            authenticate.check_format(token)

    async def answer(self, exchange: Exchange) -> None:
        try:
            grant = exchange.grant or await bridged(self._grants.find(exchange.digest))
            whole = await self._pipeline.answer(
                grant, exchange.operation, exchange.take_body(), exchange,
                id=exchange.id, request_id=exchange.request_id, stream=exchange.stream,
            )  # fmt: skip
        except IndigoError as error:
            self._failed(exchange, error)
        except asyncio.CancelledError:
            self._failed(exchange, Unavailable("The server is shutting down.", code="shutting_down", retry_after=5))
            raise
        except Exception:  # a task's edge: the client gets an answer, and the operator the reason
            log.exception("request %s failed", exchange.request_id)
            self._failed(exchange, Internal("Something went wrong on our side; the request id tells us where."))
        else:
            if whole is None:
                exchange.end()
            else:
                exchange.send(whole)

    def _failed(self, exchange: Exchange, error: IndigoError) -> None:
        if exchange.disconnected:
            return
        if exchange.begun:
            exchange.break_off(error)
        else:
            if not exchange.admitted:
                self.metrics.not_admitted(exchange.operation, error.status)
            exchange.refuse(error)
