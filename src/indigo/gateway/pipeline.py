"""The whole request on one screen: read → authorize → admit → forward → settle and record.

Authentication comes before (`http.py`), and the writing of the answer after. The same lines serve a request
over HTTP and one that a feature makes from within the process, so both are limited and billed alike.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from indigo.gateway import body as bodies
from indigo.gateway import checks, operations, record
from indigo.gateway.authorize import authorize
from indigo.gateway.body import Ask
from indigo.gateway.forward import Forwarder
from indigo.gateway.ports import Grant, ModelEntry, Routes, Tokens
from indigo.gateway.record import Accounts, Run
from indigo.gateway.refusals import passed_on
from indigo.gateway.request import Client, Request
from indigo.gateway.steps import bridged
from indigo.gateway.upstream.call import Call
from indigo.kernel.errors import IndigoError, InvalidRequest

STREAMS = frozenset({operations.CHAT, operations.COMPLETIONS})


class PipelineClient(Client, Protocol):
    admitted: bool
    """Set once the request has been admitted: from then on it is counted by its usage event."""

    @property
    def gone(self) -> bool:
        """The client has closed its connection."""
        ...


class Pipeline:
    def __init__(self, routes: Routes, accounts: Accounts, forwarder: Forwarder) -> None:
        self._routes = routes
        self._accounts = accounts
        self._forwarder = forwarder

    async def answer(
        self, grant: Grant, operation: str, body: bytes, client: PipelineClient,
        *, id: str, request_id: str, stream: bool = False,
    ) -> bytes | None:  # fmt: skip
        """The whole answer, or None after a stream has been passed to `client`. `stream` asks for one as well.

        Raises IndigoError; where a stream had begun, the client still needs to be told of it.
        """
        if len(body) > checks.LARGE:
            await bridged(checks.large(body))
        ask = bodies.read(body, operation)
        entry = authorize(grant, ask.model, operation, self._routes)
        streaming = self._streaming(ask, operation, stream)
        run = self._admit(grant, entry, ask, id, request_id, operation, streaming, len(body))
        client.admitted = True
        request = Request(
            id=request_id, operation=operation, grant=grant, entry=entry, ask=ask, body=body, stream=streaming,
            client=client,
        )  # fmt: skip
        try:
            del body, ask  # a stream may last long: what it was asked with is not kept for it
            call = await self._forwarder.send(request, run)
            request.forget()
            if call.status != 200:
                return self._rejected(call, run)
            if streaming:
                await self._streamed(call, run)
                return None
            return self._whole(call, run)
        except IndigoError as error:
            run.close(
                error.status, record.UPSTREAM_REJECTED if error.status == 400 else record.UPSTREAM_FAILED, run.seen()
            )
            raise
        except asyncio.CancelledError:
            self._ended_early(run, client)
            raise
        finally:
            if not run.closed:
                run.close(500, record.INTERRUPTED, run.seen())

    def _ended_early(self, run: Run, client: PipelineClient) -> None:
        if not client.gone:
            run.close(503, record.INTERRUPTED, run.seen())
        elif run.relay is not None and run.relay.finish_seen:
            run.close(200, record.COMPLETED, run.seen())  # it left after the last word: that is no abort
        else:
            run.close(499, record.CLIENT_CLOSED, run.asked())

    def _streaming(self, ask: Ask, operation: str, stream: bool) -> bool:
        streaming = bool(ask.stream or stream)
        if streaming and operation not in STREAMS:
            raise InvalidRequest(f"{operation} cannot be streamed.", param="stream")
        return streaming

    def _admit(
        self, grant: Grant, entry: ModelEntry, ask: Ask, id: str, request_id: str, operation: str, stream: bool,
        size: int,
    ) -> Run:  # fmt: skip
        estimate = ask.estimate(size)
        reservation = self._accounts.limits.reserve(grant, entry, estimate)
        run = Run(
            self._accounts, grant, entry, id=id, request_id=request_id, operation=operation, stream=stream,
            prompt_estimate=estimate.input, reservation=reservation,
        )  # fmt: skip
        run.open()
        return run

    def _whole(self, call: Call, run: Run) -> bytes:
        body = call.whole
        run.close(200, record.COMPLETED, call.tokens or run.estimate(len(body)))
        return body

    def _rejected(self, call: Call, run: Run) -> bytes:
        assert run.target is not None
        error = passed_on(call, run.target)
        run.close(error.status, record.UPSTREAM_REJECTED, Tokens())
        raise error

    async def _streamed(self, call: Call, run: Run) -> None:
        relay = run.relay
        assert relay is not None
        ok: bool | None = False
        try:
            await relay.finished
            ok = True
        except asyncio.CancelledError:
            ok = None
            call.cancel()
            raise
        finally:
            self._forwarder.done(call, run, ok=ok)
        run.close(200, record.COMPLETED, run.seen())
