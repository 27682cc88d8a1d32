"""The accounts of one admitted request: opened once, closed exactly once, whatever happens in between."""

from __future__ import annotations

import time

import msgspec

from indigo.gateway import usage
from indigo.gateway.metrics import Metrics
from indigo.gateway.ports import (
    Admission,
    Grant,
    Limits,
    ModelEntry,
    Progress,
    Target,
    Tokens,
    UsageEvent,
    UsageSink,
)
from indigo.gateway.stream import Relay

COMPLETED = "completed"
CLIENT_CLOSED = "client_closed"
UPSTREAM_FAILED = "upstream_failed"
UPSTREAM_REJECTED = "upstream_rejected"
INTERRUPTED = "interrupted"


class Accounts:
    """The parts that every request's run needs: built once."""

    __slots__ = ("limits", "metrics", "open", "sink")

    def __init__(self, limits: Limits, sink: UsageSink, metrics: Metrics) -> None:
        self.limits = limits
        self.sink = sink
        self.metrics = metrics
        self.open: set[Run] = set()

    def journal_progress(self) -> None:
        """Called a few times a second: what a killed process's streams had delivered is then known."""
        for run in self.open:
            relay = run.relay
            if relay is not None and relay.events != run.journalled:
                run.journalled = relay.events
                endpoint = run.target.endpoint.id if run.target else ""
                self.sink.progressed(Progress(run.id, relay.events, endpoint))


class Run:
    __slots__ = (
        "_accounts",
        "_entry",
        "_grant",
        "_operation",
        "_prompt_estimate",
        "_reservation",
        "_started",
        "_started_at",
        "_stream",
        "attempts",
        "begun",
        "closed",
        "first_byte",
        "id",
        "journalled",
        "price",
        "relay",
        "request_id",
        "target",
    )

    def __init__(
        self, accounts: Accounts, grant: Grant, entry: ModelEntry, *, id: str, request_id: str,
        operation: str, stream: bool, prompt_estimate: int, reservation: object,
    ) -> None:  # fmt: skip
        self._accounts = accounts
        self._grant = grant
        self._entry = entry
        self._operation = operation
        self._stream = stream
        self._prompt_estimate = prompt_estimate
        self._reservation = reservation
        self.closed = False
        self._started = time.monotonic()
        self._started_at = time.time()  # noqa: TID251 - the hot path reads the clock itself: 40 ns against 120
        self.id = id
        self.request_id = request_id
        self.price = entry.price
        self.relay: Relay | None = None
        self.target: Target | None = None
        self.attempts = 0
        self.begun = 0
        """What the endpoint's `begin` gave for the attempt under way."""
        self.first_byte = 0.0
        self.journalled = 0

    def open(self) -> None:
        """Journal the admission. Raises Unavailable, with the reservation given back, when the journal is full."""
        grant = self._grant
        try:
            self._accounts.sink.opened(
                Admission(
                    self.id, self.request_id, self._started_at, grant.org_id, grant.project_id, grant.key_id,
                    grant.user_id, self._operation, self._entry.id, self._stream, self._prompt_estimate, self.price,
                )
            )  # fmt: skip
        except BaseException:
            self._accounts.limits.settle(self._reservation, Tokens(), 0)
            self.closed = True
            raise
        self._accounts.open.add(self)

    def close(self, status: int, outcome: str, tokens: Tokens) -> None:
        """Settle and journal the end; later calls do nothing, so that every way out may call it."""
        if self.closed:
            return
        self.closed = True
        accounts = self._accounts
        accounts.open.discard(self)
        free = outcome == UPSTREAM_REJECTED or (outcome == UPSTREAM_FAILED and not tokens.prompt + tokens.completion)
        spent = 0 if free else usage.price_of(tokens, self.price)
        accounts.limits.settle(self._reservation, tokens, spent)
        now = time.monotonic()
        latency = int((now - self._started) * 1e6)
        first = self.first_byte or (self.relay.first_byte if self.relay else 0.0)
        first_us = max(0, int((first - self._started) * 1e6)) if first else latency
        grant, target = self._grant, self.target
        accounts.sink.closed(
            UsageEvent(
                self.id, self.request_id, self._started_at, grant.org_id, grant.project_id, grant.key_id,
                grant.user_id, self._operation, self._entry.id, self._stream,
                target.endpoint.provider if target else "", target.endpoint.id if target else "",
                target.served_name if target else "", status, outcome, tokens.prompt, tokens.completion,
                tokens.cached, tokens.reasoning, tokens.estimated, spent, first_us, latency, self.attempts,
            )
        )  # fmt: skip
        accounts.metrics.closed(self._operation, self._entry.id, outcome, tokens, latency, first_us)

    def seen(self) -> Tokens:
        """What a stream that broke off had used, as far as anyone can tell: an estimate unless it was stated."""
        relay = self.relay
        if relay is None or not relay.begun:
            return Tokens(estimated=True)
        stated = relay.tokens
        if stated is None:
            return Tokens(prompt=self._prompt_estimate, completion=relay.events, estimated=True)
        if relay.events > relay.events_stated and stated.completion < relay.events:
            return msgspec.structs.replace(stated, completion=relay.events, estimated=True)  # stated before the content
        return stated

    def asked(self) -> Tokens:
        """What a client that left before the first byte has cost: the endpoint was at work on its prompt."""
        if self.attempts and (self.relay is None or not self.relay.begun):
            return Tokens(prompt=self._prompt_estimate, estimated=True)
        return self.seen()

    def estimate(self, answer_bytes: int) -> Tokens:
        """For a whole answer that states no usage."""
        completion = 0 if self._operation in ("embeddings", "rerank") else answer_bytes // 4
        return Tokens(prompt=self._prompt_estimate, completion=completion, estimated=True)
