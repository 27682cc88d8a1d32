"""Active health: every endpoint is asked on a schedule whether it is alive, and where needed what it serves.

Results go to `Endpoint.probed_healthy` and the routing table. What traffic tells (the breaker) is the
gateway's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from indigo.features.models.probe import Probe, ProbeFailed
from indigo.features.models.routing_table import Listing, RoutingTable
from indigo.gateway.endpoints import Endpoint
from indigo.kernel.clock import Clock
from indigo.kernel.tasks import Tasks

log = logging.getLogger("indigo.models")

AT_ONCE = 10
FAILURES_TO_UNHEALTHY = 2
TIMEOUT_MOST = 5.0
MODELS_MOST = 10_000


@dataclass(slots=True)
class Checked:
    """What the probes know of one endpoint. `error` is for people and holds no secret."""

    endpoint: Endpoint
    failures: int = 0
    latency_ms: float | None = None
    error: str = ""
    at: float | None = None
    has_health: bool = True


class _ListedModel(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _ListedModels(msgspec.Struct):
    data: list[_ListedModel]


class HealthProbes:
    """See the module. `changed` hears of each endpoint whose health changed, or that was checked first."""

    def __init__(
        self,
        *,
        table: RoutingTable,
        probe: Probe,
        clock: Clock,
        tasks: Tasks,
        seconds: float,
        changed: Callable[[Checked], Awaitable[None]],
        listed: Callable[[], Awaitable[None]],
    ) -> None:
        self._table = table
        self._probe = probe
        self._clock = clock
        self._tasks = tasks
        self._seconds = seconds
        self._changed = changed
        self._listed = listed
        self._checked: dict[Endpoint, Checked] = {}
        self._due: dict[Endpoint, float] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def checked(self, endpoint: Endpoint) -> Checked:
        return self._checked.get(endpoint) or Checked(endpoint)

    async def check_all(self) -> None:
        """One round over every endpoint now; the schedule goes on from it, each endpoint in its own phase."""
        endpoints = self._table.endpoints()
        now = self._clock.monotonic()
        for endpoint in endpoints:
            self._due[endpoint] = now + self._seconds * (0.2 + 0.8 * random.random())
        await asyncio.gather(*(self._check(endpoint) for endpoint in endpoints))

    async def run(self) -> None:
        """Probe for ever. An endpoint that appears is probed within a second."""
        while True:
            self.start_due()
            await asyncio.sleep(min(1.0, self._seconds / 4))

    def start_due(self) -> None:
        """Start the probes whose time has come."""
        now = self._clock.monotonic()
        current = set(self._table.endpoints())
        self._checked = {one: known for one, known in self._checked.items() if one in current}
        self._due = {one: due for one, due in self._due.items() if one in current}
        for endpoint in current:
            if self._due.get(endpoint, 0.0) <= now:
                self._due[endpoint] = float("inf")
                self._tasks.start(self._scheduled(endpoint), f"probe of {endpoint.id}")

    async def _scheduled(self, endpoint: Endpoint) -> None:
        try:
            await self._check(endpoint)
        finally:
            if endpoint in self._due:
                in_doubt = endpoint.probed_healthy and self.checked(endpoint).failures
                seconds = min(self._seconds, 1.0) if in_doubt else self._seconds
                self._due[endpoint] = self._clock.monotonic() + seconds * (0.9 + 0.2 * random.random())

    async def _check(self, endpoint: Endpoint) -> None:
        async with self._places:
            known = self._checked.setdefault(endpoint, Checked(endpoint))
            began = self._clock.monotonic()
            error, listing = await self._ask(endpoint, known)
            known.latency_ms = None if error else (self._clock.monotonic() - began) * 1000
        first, known.at, before = known.at is None, self._clock.now(), endpoint.probed_healthy
        known.error = error
        known.failures = known.failures + 1 if error else 0
        if not error:
            endpoint.probed_healthy = True
        elif known.failures >= FAILURES_TO_UNHEALTHY:
            endpoint.probed_healthy = False
        if before != endpoint.probed_healthy:
            log.warning("endpoint %s is %s", endpoint.id, f"unhealthy: {error}" if error else "healthy again")
        if listing is not None and self._table.listed(endpoint, listing):
            await self._listed()
        if first or before != endpoint.probed_healthy:
            await self._changed(known)

    async def _ask(self, endpoint: Endpoint, known: Checked) -> tuple[str, Listing | None]:
        """(what is wrong or "", what it lists where that is wanted)."""
        timeout = min(TIMEOUT_MOST, max(self._seconds, 0.1))
        lists = self._table.lists(endpoint)
        try:
            if known.has_health and not lists:
                status, _ = await self._probe.get(endpoint, "/health", timeout)
                if 200 <= status < 300:
                    return "", None
                if status >= 500:
                    return f"/health answered {status}", None
            status, body = await self._probe.get(endpoint, f"{endpoint.address.prefix}/models", timeout)
        except ProbeFailed as error:
            return str(error), None
        known.has_health = False
        if status in (401, 403):
            return f"it refuses our credentials ({status})", None
        if 300 <= status < 400 or status >= 500:
            return f"{endpoint.address.prefix}/models answered {status}", None
        if not lists:
            return "", None
        return _listing(status, body)


def _listing(status: int, body: bytes) -> tuple[str, Listing | None]:
    if status != 200:
        return f"its list of models answered {status}", None
    try:
        models = msgspec.json.decode(body, type=_ListedModels).data
    except (msgspec.DecodeError, RecursionError):
        return "its list of models is none", None
    found = {
        model.id: model.max_model_len if (model.max_model_len or 0) > 0 else None
        for model in models[:MODELS_MOST]
        if 0 < len(model.id) <= 255 and model.id.isprintable()
    }
    return "", tuple(found.items())
