"""Sends a request upstream and fails over, before the first byte only, within one deadline and a retry budget."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import cast

import msgspec

from indigo.gateway import resolve, usage
from indigo.gateway.endpoints import Endpoint
from indigo.gateway.ports import ModelEntry, Routes, Target
from indigo.gateway.record import Run
from indigo.gateway.request import Request
from indigo.gateway.steps import bridged
from indigo.gateway.stream import Relay
from indigo.gateway.sweeper import Sweeper
from indigo.gateway.upstream.call import AttemptFailed, Call
from indigo.gateway.upstream.connection import Connection
from indigo.gateway.upstream.pool import ConnectFailed, Pool
from indigo.kernel.errors import IndigoError, RateLimited, Unavailable, UpstreamFailed, UpstreamTimeout

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
        self, routes: Routes, sweeper: Sweeper, *, connect_seconds: float, first_byte_seconds: float,
        idle_seconds: float, max_connections: int,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
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
                if not target.endpoint.available(self._loop.time()):
                    continue
                if self._loop.time() >= deadline or not self._budget.take():
                    break
            run.target, run.price = target, entry.price
            run.attempts += 1
            try:
                return await self._attempt(request, run, target, deadline)
            except AttemptFailed as error:
                failed = error
        raise self._refusal(request.entry, failed, now)

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

    async def _attempt(self, request: Request, run: Run, target: Target, deadline: float) -> Call:
        endpoint = target.endpoint
        run.begun = endpoint.begin(self._loop.time())
        try:
            call = await self._exchange(request, run, target, deadline)
            if call.status == 200:
                if not call.streaming:
                    _check_whole(call, request.stream)
            elif call.status in RETRYABLE or not 400 <= call.status < 500:
                raise AttemptFailed(_reason(call.status), status=call.status, retry_after=call.retry_after)
        except AttemptFailed as error:
            endpoint.failed(run.begun, self._loop.time(), error.retry_after)
            raise
        except BaseException:
            endpoint.released(run.begun)
            raise
        if call.streaming:
            endpoint.answered(run.begun, self._loop.time())
        else:
            endpoint.succeeded(run.begun, self._loop.time())
        return call

    async def _exchange(self, request: Request, run: Run, target: Target, deadline: float) -> Call:
        """Send, and wait until the attempt is decided. A reused connection that was just closed is replaced once."""
        pool = self._pool(target.endpoint)
        payload = request.payload(target)
        connection = pool.idle()
        while True:
            if connection is None:
                try:
                    connection = await bridged(pool.dial())
                except ConnectFailed as error:
                    raise AttemptFailed(str(error)) from None
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
        self._sweeper.discard(call)
        endpoint = run.target.endpoint
        if ok:
            endpoint.succeeded(run.begun, self._loop.time())
        elif ok is None:
            endpoint.released(run.begun)
        else:
            endpoint.failed(run.begun, self._loop.time())

    def _pool(self, endpoint: Endpoint) -> Pool:
        if endpoint.pool is None:
            pool = Pool(endpoint.address, most=self._max_connections, connect_seconds=self._connect_seconds)
            endpoint.pool = pool
            self._sweeper.watch_pool(pool)
        return cast(Pool, endpoint.pool)

    def _refusal(self, entry: ModelEntry, failed: AttemptFailed | None, now: float) -> IndigoError:
        wait = int(min((target.endpoint.retry_in(now) for target in entry.targets), default=5.0)) + 1
        if failed is None:
            return Unavailable(
                f"No endpoint of the model {entry.id!r} is healthy at the moment; try again in {wait} s.",
                code="no_healthy_endpoint",
                retry_after=wait,
            )
        text = f"The model {entry.id!r} could not answer: {failed.text}."
        if failed.timeout:
            return UpstreamTimeout(text)
        if failed.status == 429:
            pause = int(failed.retry_after or 0) or wait
            return RateLimited(text, code="upstream_rate_limited", retry_after=pause)
        if failed.status == 0 or failed.status >= 500:
            return Unavailable(text, code="upstream_unavailable", retry_after=wait)
        return UpstreamFailed(text)


def _check_whole(call: Call, stream: bool) -> None:
    """What calls itself a success must be one, while another endpoint can still be asked instead."""
    if stream:
        raise AttemptFailed("it did not stream its answer", status=200)
    try:
        call.tokens = usage.of_answer(call.whole)
    except (msgspec.DecodeError, RecursionError):
        raise AttemptFailed("its answer is not a JSON object", status=200) from None
    except ValueError:
        raise AttemptFailed("it answered with an error", status=200) from None


def _reason(status: int) -> str:
    if status in (401, 402, 403, 407):
        return "its provider refuses the credential or account that this server is configured with"
    if status == 429:
        return "its provider is rate limiting this server"
    if 300 <= status < 400:
        return "its provider answered with a redirect, which is not followed"
    return f"its endpoint answered with status {status}"


class _ErrorDetail(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: str | None = None


def passed_on(call: Call, target: Target) -> IndigoError:
    """An endpoint's 4xx as an error of ours: its message, code and param, without anything secret."""
    detail = _ErrorDetail()
    try:
        body = msgspec.json.decode(call.whole, type=_ErrorBody)
        if isinstance(body.error, _ErrorDetail):
            detail = body.error
        else:
            detail.message = body.error or body.message or body.detail or ""
    except (msgspec.DecodeError, RecursionError):
        pass
    message = scrubbed(detail.message[:4096], target) or f"The model refused the request with status {call.status}."
    code = detail.code if isinstance(detail.code, str) else None
    if detail.type == "exceed_context_size_error":
        code = "context_length_exceeded"
    error = IndigoError(message, code=code or "upstream_rejected", param=detail.param)
    error.status = call.status
    error.type = "invalid_request_error"
    return error


def scrubbed(text: str, target: Target) -> str:
    """Without the headers that are configured for the endpoint, nor its address."""
    address = target.endpoint.address
    secrets = [part for _, value in target.endpoint.headers for part in value.split() if len(part) > 6]
    for secret in (*secrets, address.authority, address.unix or ""):
        if secret:
            text = text.replace(secret, "[redacted]")
    return re.sub(r"\b(?:sk|hf|gsk|xai|AIza)[-_A-Za-z0-9]{16,}", "[redacted]", text)
