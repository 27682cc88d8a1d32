"""Sends a request upstream and fails over, before the first byte only, within one deadline and a retry budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import msgspec

from indigo.gateway import resolve, usage
from indigo.gateway.endpoints import Endpoint
from indigo.gateway.outbox import Outbox
from indigo.gateway.ports import ModelEntry, Routes, Target
from indigo.gateway.record import Run
from indigo.gateway.refusals import blames_the_client, reason, refusal
from indigo.gateway.request import Request
from indigo.gateway.steps import bridged
from indigo.gateway.stream import Relay
from indigo.gateway.sweeper import Sweeper
from indigo.gateway.upstream.call import AttemptFailed, Call
from indigo.gateway.upstream.connection import Connection
from indigo.gateway.upstream.pool import ConnectFailed, Pool, PoolFull

RETRYABLE = frozenset({401, 402, 403, 407, 408, 429})
"""With every 5xx and 3xx: what says more about the endpoint, or our credential there, than about the request."""


class RetryBudget:
    """At most a tenth more requests upstream than clients sent, and a floor of ten (Google SRE book, ch. 21)."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 10.0

    def earn(self) -> None:
        if self.left < 100.0:
            self.left += 0.1

    def take(self) -> bool:
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Forwarder:
    def __init__(
        self, routes: Routes, sweeper: Sweeper, outbox: Outbox, *, connect_seconds: float, first_byte_seconds: float,
        idle_seconds: float, max_connections: int,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox
        self._routes = routes
        self._sweeper = sweeper
        self._connect_seconds = connect_seconds
        self._first_byte_seconds = first_byte_seconds
        self._idle_seconds = idle_seconds
        self._max_connections = max_connections
        self._budget = RetryBudget()

    async def send(self, request: Request, run: Run) -> Call:
        """The first decided answer: a whole 200, a stream that has begun, or a 4xx to pass on.

        At the end of a stream the caller calls `done`.
        Raises Unavailable, RateLimited, UpstreamFailed or UpstreamTimeout when no target gave one.
        """
        now = self._loop.time()
        deadline = now + self._first_byte_seconds
        self._budget.earn()
        failed: AttemptFailed | None = None
        for entry, target in self._plan(request.entry, request, now):
            if failed is not None:
                now = self._loop.time()
                if not target.endpoint.available(now):
                    continue
                if now >= deadline or not self._budget.take():
                    break
            run.target, run.price = target, entry.price
            run.attempts += 1
            try:
                return await self._attempt(request, run, entry, target, now, deadline)
            except AttemptFailed as error:
                failed = error
        raise refusal(request.entry, failed, self._loop.time())

    def _plan(self, entry: ModelEntry, request: Request, now: float) -> Iterator[tuple[ModelEntry, Target]]:
        for target in resolve.ordered(entry.targets, now):
            yield entry, target
        for name in entry.fallbacks:
            other = self._routes.entry(name)
            allowed = request.grant.models
            if other is None or request.operation not in other.operations:
                continue
            if allowed is None or other.id in allowed:
                for target in resolve.ordered(other.targets, now):
                    yield other, target

    async def _attempt(
        self, request: Request, run: Run, entry: ModelEntry, target: Target, now: float, deadline: float
    ) -> Call:
        endpoint = target.endpoint
        payload = request.payload(entry, target)
        begun = run.begun = endpoint.begin(now)
        try:
            call = await self._exchange(request, run, endpoint, payload, deadline)
            if call.status == 200:
                if not call.streaming:
                    _check_whole(call, request.stream)
            elif blames_the_client(call):
                call.status = 400
            elif call.status in RETRYABLE or not 400 <= call.status < 500:
                raise AttemptFailed(reason(call.status), status=call.status, retry_after=call.retry_after)
        except AttemptFailed as error:
            if error.ours:
                endpoint.released(begun)
            else:
                endpoint.failed(begun, self._loop.time(), error.retry_after)
            raise
        except BaseException:
            endpoint.released(begun)
            raise
        if call.streaming:
            endpoint.answered(begun, call.last_data)
        else:
            endpoint.succeeded(begun, call.last_data or now)
        return call

    async def _exchange(self, request: Request, run: Run, endpoint: Endpoint, payload: bytes, deadline: float) -> Call:
        """Send, and wait until the attempt is decided. A reused connection that was just closed is replaced once."""
        pool = self._pool(endpoint)
        connection = pool.idle()
        while True:
            if connection is None:
                try:
                    connection = await bridged(pool.dial(), unwanted=pool.released)
                except ConnectFailed as error:
                    raise AttemptFailed(str(error), ours=isinstance(error, PoolFull)) from None
            call = self._send(connection, request, run, payload, deadline)
            try:
                await call.answered
                return call
            except AttemptFailed as error:
                if not error.stale:
                    raise
                connection = None
            except asyncio.CancelledError:
                call.cancel()
                self._sweeper.discard(call)
                raise
            finally:
                if not call.streaming or call.answered.failed:
                    self._sweeper.discard(call)

    def _send(self, connection: Connection, request: Request, run: Run, payload: bytes, deadline: float) -> Call:
        relay: Relay | None = None
        if request.stream:
            relay = run.relay = Relay(request.client, keep_usage=request.ask.wants_usage)
        call = Call(self._loop, connection, relay, deadline=deadline, idle_seconds=self._idle_seconds)
        if relay is not None:
            relay.attach(call)
        request.client.call = call
        connection.send(call, payload)
        self._sweeper.add(call)
        return call

    def done(self, call: Call, run: Run, *, ok: bool | None) -> None:
        """A stream has ended: well, badly, or (None) for a reason that is not the endpoint's."""
        assert run.target is not None
        endpoint = run.target.endpoint
        if ok:
            call.let_go()  # the sweeper forgets it once the transfer has ended too
            endpoint.succeeded(run.begun, call.last_data)
            return
        self._sweeper.discard(call)
        if ok is None:
            endpoint.released(run.begun)
        else:
            endpoint.failed(run.begun, self._loop.time())

    def _pool(self, endpoint: Endpoint) -> Pool:
        if endpoint.pool is None:
            pool = Pool(
                endpoint.address, self._outbox, most=self._max_connections, connect_seconds=self._connect_seconds
            )
            endpoint.pool = pool
            self._sweeper.watch_pool(pool)
        return cast(Pool, endpoint.pool)


def _check_whole(call: Call, stream: bool) -> None:
    """What calls itself a success must be one, while another endpoint can still be asked instead."""
    if stream:
        raise AttemptFailed("it did not stream its answer", status=200)
    body = call.whole
    try:
        if not body.isascii():
            body.decode()
        call.tokens = usage.of_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AttemptFailed("its answer is not a JSON object", status=200) from None
    except ValueError:
        raise AttemptFailed("it answered with an error", status=200) from None
