"""What the hot path needs from the world: five ports, and the frozen records that cross them.

Each port is implemented by one adapter in a feature or backend. No database object crosses them, and every
method that is called for a warm request is synchronous and touches memory only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from indigo.gateway.endpoints import Endpoint


class Grant(msgspec.Struct, frozen=True):
    """The compiled answer to "what may this credential do?". `None` in a set's place means everything."""

    key_id: str
    kind: str
    org_id: str
    project_id: str | None = None
    user_id: str | None = None
    models: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    expires_at: float = float("inf")


class Price(msgspec.Struct, frozen=True):
    """Micro-dollars per million tokens, and micro-dollars per request."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    request: int = 0


class Target(msgspec.Struct, frozen=True):
    """One way to have a model answered: an endpoint, and the name the model has there."""

    endpoint: Endpoint
    served_name: str
    weight: int = 1
    tier: int = 0
    """Targets of a higher tier are asked only when none of a lower one is available."""


class ModelEntry(msgspec.Struct, frozen=True):
    """A model as clients name it. `operations` holds what it can do: see `gateway.operations`."""

    id: str
    operations: frozenset[str]
    targets: tuple[Target, ...]
    context_length: int | None = None
    price: Price = Price()
    fallbacks: tuple[str, ...] = ()
    single_tool_choice: bool = False
    """The engine ignores a `tool_choice` that names a function: send only that tool, and `required`."""


class Estimate(msgspec.Struct, frozen=True):
    """The most a request may use, in tokens; `output` is None where neither request nor model bounds it."""

    input: int
    output: int | None


class Tokens(msgspec.Struct, frozen=True):
    """What a request did use. `estimated` where the upstream did not say."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """Written to the journal before the upstream is asked; enough to bill a request whose process was killed."""

    id: str
    request_id: str
    started_at: float
    org_id: str
    project_id: str | None
    key_id: str
    user_id: str | None
    operation: str
    model: str
    stream: bool
    prompt_tokens: int
    price: Price


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a running stream has come, journalled a few times a second."""

    id: str
    completion_tokens: int
    endpoint: str


class UsageEvent(msgspec.Struct, frozen=True, array_like=True):
    """What one admitted request did cost, whatever its end. `id` is the admission's, a UUIDv7.

    `outcome` is completed | client_closed | upstream_failed | upstream_rejected | interrupted. Latencies are
    microseconds from the complete request to the first byte and to the end of the answer; cost is micro-dollars.
    """

    id: str
    request_id: str
    started_at: float
    org_id: str
    project_id: str | None
    key_id: str
    user_id: str | None
    operation: str
    model: str
    stream: bool
    provider: str
    endpoint: str
    served_name: str
    status: int
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated: bool
    cost_micros: int
    first_byte_us: int
    latency_us: int
    attempts: int


class Grants(Protocol):
    def cached(self, digest: bytes) -> Grant | None:
        """The live grant for a key's SHA-256, from memory; None when memory does not know.

        Raises Unauthorized for a key that memory knows to be unknown, revoked or expired (re-checked here).
        """
        ...

    def find(self, digest: bytes) -> Awaitable[Grant]:
        """The same with a look into the database; concurrent calls for one key share one query.

        Raises Unauthorized for an unknown, revoked or expired key; Unavailable when the database is down.
        """
        ...


class Limits(Protocol):
    def reserve(self, grant: Grant, model: ModelEntry, estimate: Estimate) -> object:
        """Take the worst case from every limit that applies, or from none. Returns the reservation.

        Raises RateLimited naming the limit, or Unavailable when the server itself is full.
        """
        ...

    def settle(self, reservation: object, used: Tokens, cost_micros: int) -> None:
        """Give back what was not used. Called exactly once for every reservation."""
        ...


class Routes(Protocol):
    def entry(self, model: str) -> ModelEntry | None:
        """The model of that id or alias, whether or not it is healthy now."""
        ...

    def entries(self) -> Sequence[ModelEntry]:
        """Every model, ordered by id."""
        ...


class UsageSink(Protocol):
    def opened(self, admission: Admission) -> None:
        """Journal an admitted request. Raises Unavailable when the journal cannot take it: then do not ask upstream."""
        ...

    def progressed(self, progress: Progress) -> None: ...

    def closed(self, event: UsageEvent) -> None:
        """Journal the end of an opened request. Durable against the death of this process when it returns."""
        ...
