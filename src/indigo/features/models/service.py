"""The model registry: what is offered, kept in step with file, engines, DNS and Kubernetes; what people see.

The hot path reads the `RoutingTable` that this fills; nothing here is called for an inference request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from indigo.backends.sql.database import Database
from indigo.features.models import providers_file
from indigo.features.models.catalog import Catalog, ProviderSpec
from indigo.features.models.discovery import Discovery, Kubernetes
from indigo.features.models.health import Checked, HealthProbes
from indigo.features.models.probe import Probe
from indigo.features.models.records import Records
from indigo.features.models.routing_table import RoutingTable
from indigo.features.models.status import EndpointStatus, Status
from indigo.features.models.watch import FollowedFile
from indigo.gateway.endpoints import parse_address
from indigo.kernel.clock import Clock
from indigo.kernel.errors import Unavailable
from indigo.kernel.tasks import Tasks

log = logging.getLogger("indigo.models")

FILE_SECONDS = 1.0
DISCOVER_SECONDS = 10.0
FIRST_ROUND_SECONDS = 1.5
"""The start waits no longer for the first round of probes: an endpoint that is silent must not hold it up."""


class Models:
    """See the module. `start` it once; the background tasks end with `tasks`.

    `standing` are providers that settings name, such as one known by its URL alone.
    """

    def __init__(
        self,
        *,
        database: Database,
        table: RoutingTable,
        probe: Probe,
        clock: Clock,
        tasks: Tasks,
        environ: Mapping[str, str],
        probe_seconds: float,
        file: Path | None = None,
        standing: Iterable[ProviderSpec] = (),
        kubernetes: Kubernetes | None = None,
        file_seconds: float = FILE_SECONDS,
        discover_seconds: float = DISCOVER_SECONDS,
    ) -> None:
        self._table = table
        self._clock = clock
        self._tasks = tasks
        self._environ = environ
        self._standing = tuple(standing)
        self._offers: tuple[ProviderSpec, ...] = ()
        self._read = Catalog()
        self._catalog = Catalog()
        self._file = FollowedFile(file, self._parse) if file is not None else None
        self._file_seconds = file_seconds
        self._discover_seconds = discover_seconds
        self._discovery = Discovery(kubernetes)
        self._records = Records(database, clock)
        self._unrecorded = False
        self._turn = asyncio.Lock()
        self._health = HealthProbes(
            table=table,
            probe=probe,
            clock=clock,
            tasks=tasks,
            seconds=probe_seconds,
            changed=self._health_changed,
            listed=self._record_if_possible,
        )

    async def start(self, offers: Iterable[ProviderSpec] = ()) -> None:
        """Read the file, write the registry, probe every endpoint once, then keep all of it in step.

        Raises ProvidersFileError for a bad file, Unavailable without a database.
        """
        self._offers = tuple(offers)
        if self._file is not None:
            self._read = self._file.load()
        await self._apply()
        await self._record()
        first_round = self._tasks.start(self._health.check_all(), "first round of health probes")
        await asyncio.wait({first_round}, timeout=FIRST_ROUND_SECONDS)
        self._tasks.start(self._health.run(), "health probes")
        self._tasks.start(_for_ever(self._discover_seconds, self._rediscover), "discovery of endpoints")
        if self._file is not None:
            follow = partial(self._take_over, self._file)
            self._tasks.start(_for_ever(self._file_seconds, follow), "following the providers file")

    async def offer(self, offers: Iterable[ProviderSpec]) -> None:
        """What this machine's engines offer from now on, instead of what they offered before."""
        self._offers = tuple(offers)
        await self._apply()
        await self._record_if_possible()
        self._health.start_due()

    async def probe_now(self) -> None:
        """Look at every endpoint without waiting for its turn: an engine has just come up, say."""
        await self._health.check_all()

    def revived(self, base_url: str) -> None:
        """An engine of this machine is ready, perhaps again: send to it at once, without another probe or pause."""
        address = parse_address(base_url)
        for endpoint in self._table.endpoints():
            if endpoint.address == address:
                endpoint.revived()

    def ids(self) -> list[str]:
        """Of every model, whether or not it can be asked now."""
        return [entry.id for entry in self._table.entries()]

    def created(self, model: str) -> int:
        """When a model of that id was first offered, in Unix seconds."""
        return int(self._records.created(model))

    def ready(self) -> bool:
        """Whether any model could be asked now."""
        now = self._clock.monotonic()
        targets = (target for entry in self._table.entries() for target in entry.targets)
        return any(target.endpoint.available(now) for target in targets)

    def status(self) -> Status:
        """How every endpoint is, and what is wrong with file and discovery; for `/readyz` and people."""
        now = self._clock.monotonic()
        serves: dict[str, set[str]] = {}
        for entry in self._table.entries():
            for target in entry.targets:
                serves.setdefault(target.endpoint.id, set()).add(entry.id)
        endpoints = sorted(self._table.endpoints(), key=lambda endpoint: endpoint.id)
        return Status(
            endpoints=tuple(
                EndpointStatus.of(one, self._health.checked(one), sorted(serves.get(one.id, ())), now)
                for one in endpoints
            ),
            file_error=self._file.error if self._file is not None else "",
            discovery_errors=dict(self._discovery.errors),
        )

    def _parse(self, text: str) -> Catalog:
        others = (*self._standing, *self._offers)
        known = frozenset(model.id for provider in others for model in provider.models)
        source = str(self._file.path) if self._file is not None else "providers"
        catalog = providers_file.parse(text, source, self._environ, known)
        catalog.with_offers(others)
        return catalog

    async def _apply(self) -> None:
        """Route by file, standing providers and offers as they are now, names looked up anew."""
        async with self._turn:
            catalog = self._read.with_offers((*self._standing, *self._offers))
            specs = {spec for provider in catalog.enabled() for spec in provider.all_endpoints() if spec.discover}
            found_anew = await self._discovery.refresh(specs)
            if found_anew or catalog != self._catalog:
                self._catalog = catalog
                self._table.update(catalog, self._discovery.found)
                self._unrecorded = True

    async def _record(self) -> None:
        async with self._turn:
            await self._records.write(self._catalog, self._table)
            self._unrecorded = False

    async def _record_if_possible(self) -> None:
        """While running the registry's rows may lag behind: routing needs none of them."""
        self._unrecorded = True
        try:
            await self._record()
        except Unavailable as error:
            log.warning("the model registry is not written now: %s", error.message)

    async def _health_changed(self, checked: Checked) -> None:
        try:
            await self._records.checked(checked)
        except Unavailable as error:
            self._unrecorded = True
            log.warning("the health of %s is not written now: %s", checked.endpoint.id, error.message)

    async def _take_over(self, file: FollowedFile) -> None:
        catalog = await file.news()
        if catalog is not None:
            self._read = catalog
            await self._apply()
            await self._record_if_possible()
            self._health.start_due()

    async def _rediscover(self) -> None:
        await self._apply()
        if self._unrecorded:
            await self._record_if_possible()


async def _for_ever(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await step()
        except Exception:
            log.exception("keeping the model registry in step failed; it is tried again")
