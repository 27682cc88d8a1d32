"""The gateway's `Grants` port: which key may do what, from memory, else by one query.

What memory holds lives `grant_seconds` at the most, so a lost notice costs that long; a notice clears it at
once. Expiry is looked at on every hit. Unknown keys are remembered too, but few and briefly, apart from the
good ones, so that a flood of guesses pushes nobody out.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable
from typing import TypeVar

from indigo.backends.sql.database import Database
from indigo.features.keys import store
from indigo.gateway.ports import Grant
from indigo.kernel.clock import Clock
from indigo.kernel.errors import IndigoError, Unauthorized, Unavailable
from indigo.kernel.tasks import Tasks

REFUSAL_SECONDS = 5.0
MOST_GRANTS = 200_000
MOST_REFUSALS = 10_000

Entry = TypeVar("Entry")

UNKNOWN = "This API key is not known. Check that it was copied whole, or create a new one."
REVOKED = "This API key was revoked. Create a new one."
EXPIRED = "This API key has expired. Create a new one."
CLOSED = "This API key belongs to an organization, project or user that is closed."


class KeyDirectory:
    """Implements `gateway.ports.Grants`. Subscribe `clear` to the topic of `tenancy.service.TOPIC`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tasks: Tasks,
        *,
        grant_seconds: float = 10.0,
        query_seconds: float = 5.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._grant_seconds = grant_seconds
        self._query_seconds = query_seconds
        self._grants: dict[bytes, tuple[float, Grant]] = {}
        self._refusals: dict[bytes, tuple[float, str]] = {}
        self._flights: dict[bytes, asyncio.Task[Grant | IndigoError]] = {}
        self._generation = 0

    def clear(self) -> None:
        """Forget everything, and what running queries are about to say: something was revoked or closed."""
        self._generation += 1
        self._grants.clear()
        self._refusals.clear()
        self._flights.clear()

    def cached(self, digest: bytes) -> Grant | None:
        entry = self._grants.get(digest)
        if entry is not None:
            good_until, grant = entry
            if grant.expires_at <= self._clock.now():
                raise _refused(EXPIRED)
            return grant if self._clock.monotonic() < good_until else None
        refusal = self._refusals.get(digest)
        if refusal is not None and self._clock.monotonic() < refusal[0]:
            raise _refused(refusal[1])
        return None

    def find(self, digest: bytes) -> Awaitable[Grant]:
        flight = self._flights.get(digest)
        if flight is None:
            flight = self._tasks.start(self._load(digest, self._generation), name="look a key up")
            self._flights[digest] = flight
        return self._landed(flight)

    async def _landed(self, flight: asyncio.Task[Grant | IndigoError]) -> Grant:
        """Shielded, so that one caller who leaves does not take the answer from the others."""
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, Grant):
            return outcome
        raise type(outcome)(outcome.message, code=outcome.code, retry_after=outcome.retry_after)

    async def _load(self, digest: bytes, generation: int) -> Grant | IndigoError:
        flight = asyncio.current_task()
        try:
            async with asyncio.timeout(self._query_seconds), self._database.read() as session:
                found = await store.by_digest(session, digest)
        except Unavailable as error:
            return error
        except TimeoutError:
            return Unavailable("The database does not answer. Try again shortly.", retry_after=1)
        finally:
            if self._flights.get(digest) is flight:
                del self._flights[digest]
        refusal = self._refusal(found, digest)
        if found is None or refusal is not None:
            self._remember_refusal(digest, refusal or UNKNOWN, generation)
            return _refused(refusal or UNKNOWN)
        return self._remember(digest, _grant(found), generation)

    def _refusal(self, found: store.Found | None, digest: bytes) -> str | None:
        if found is None or not hmac.compare_digest(found.digest, digest):
            return UNKNOWN
        if found.revoked_at is not None:
            return REVOKED
        if found.expires_at is not None and found.expires_at <= self._clock.now():
            return EXPIRED
        closed = (found.org_archived_at, found.project_archived_at, found.user_disabled_at)
        return CLOSED if any(at is not None for at in closed) else None

    def _remember(self, digest: bytes, grant: Grant, generation: int) -> Grant:
        if generation == self._generation:
            self._refusals.pop(digest, None)
            _bounded_put(self._grants, digest, (self._clock.monotonic() + self._grant_seconds, grant), MOST_GRANTS)
        return grant

    def _remember_refusal(self, digest: bytes, reason: str, generation: int) -> None:
        if generation == self._generation:
            self._grants.pop(digest, None)
            _bounded_put(self._refusals, digest, (self._clock.monotonic() + REFUSAL_SECONDS, reason), MOST_REFUSALS)


def _bounded_put(cache: dict[bytes, Entry], key: bytes, value: Entry, most: int) -> None:
    cache.pop(key, None)
    if len(cache) >= most:
        del cache[next(iter(cache))]
    cache[key] = value


def _refused(reason: str) -> Unauthorized:
    return Unauthorized(reason)


def _grant(found: store.Found) -> Grant:
    """Admin keys manage and never infer, so that one that leaks from a pipeline cannot spend on models."""
    return Grant(
        key_id=found.key_id,
        kind=found.kind,
        org_id=found.org_id,
        project_id=found.project_id,
        user_id=found.user_id,
        models=None if found.models is None else frozenset(found.models),
        operations=frozenset() if found.kind == "admin" else None,
        expires_at=float("inf") if found.expires_at is None else found.expires_at,
    )
