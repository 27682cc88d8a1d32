"""Brings the registry's rows in line with what is offered: upserts, disables what is gone, deletes nothing.

Writes only where something differs, so that many processes may start with one file at the same time.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql import changes
from indigo.backends.sql.base import Base
from indigo.backends.sql.database import Database
from indigo.features.models import store
from indigo.features.models.catalog import Catalog, ModelSpec, ProviderSpec
from indigo.features.models.health import Checked
from indigo.features.models.routing_table import RoutingTable
from indigo.gateway.endpoints import Endpoint
from indigo.kernel.clock import Clock
from indigo.kernel.ids import new_id

TOPIC = "models"


class Records:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._created: dict[str, float] = {}

    def created(self, model: str) -> float:
        """When a model of that id was first offered."""
        return self._created.setdefault(model, self._clock.now())

    async def write(self, catalog: Catalog, table: RoutingTable) -> None:
        """Raises Unavailable."""
        offered: dict[str, dict[str, ModelSpec]] = {}
        for provider in catalog.providers:
            offered[provider.name] = {model.id: model for model in provider.models}
        for one in table.offered():
            offered[one.provider.name].setdefault(one.model.id, one.model)
        async with self._database.write() as session:
            changed = False
            for provider in catalog.providers:
                changed |= await self._put(session, provider, offered[provider.name])
            changed |= await self._disable_gone(session, catalog, offered)
            await self._mark_gone(session, table.endpoints())
            if changed:
                await changes.bump(session, TOPIC)
            rows = await store.models(session)
        created: dict[str, float] = {}
        for (_, name), row in rows.items():
            created[name] = min(row.created_at, created.get(name, row.created_at))
        self._created.update(created)

    async def checked(self, checked: Checked) -> None:
        """An endpoint's health changed. Raises Unavailable."""
        async with self._database.write() as session:
            await store.put_endpoint(
                session,
                checked.endpoint.provider,
                {
                    "id": new_id("endp"),
                    "url": _url(checked.endpoint),
                    "status": "healthy" if checked.endpoint.probed_healthy else "unhealthy",
                    "last_error": checked.error,
                    "last_checked": checked.at or self._clock.now(),
                },
            )

    async def _put(self, session: AsyncSession, provider: ProviderSpec, models: dict[str, ModelSpec]) -> bool:
        """Whether anything differed."""
        row = (await store.providers(session)).get(provider.name)
        values: dict[str, Any] = {
            "name": provider.name,
            "kind": provider.kind,
            "source": provider.source,
            "headers": dict(provider.written_headers),
            "enabled": provider.enabled,
        }
        changed = _differs(row, values)
        provider_id = row.id if row is not None else ""
        if changed:
            provider_id = await store.put_provider(session, self._stamped("prov", values))
        rows = await store.models(session)
        for model in models.values():
            values = {
                "provider_id": provider_id,
                "name": model.id,
                "served_name": model.served_name,
                "settings": _settings(model),
                "enabled": provider.enabled and model.enabled,
            }
            if _differs(rows.get((provider_id, model.id)), values):
                await store.put_model(session, self._stamped("model", values))
                changed = True
        return changed

    async def _disable_gone(
        self, session: AsyncSession, catalog: Catalog, offered: dict[str, dict[str, ModelSpec]]
    ) -> bool:
        """What a listing provider once listed stays enabled: it may merely not have been asked yet."""
        providers = await store.providers(session)
        names = {row.id: name for name, row in providers.items()}
        listing = {provider.name for provider in catalog.enabled() if provider.lists}
        providers_gone = [row.id for name, row in providers.items() if name not in offered and row.enabled]
        models_gone = [
            row.id
            for (provider_id, model), row in (await store.models(session)).items()
            if row.enabled and names[provider_id] not in listing and model not in offered.get(names[provider_id], {})
        ]
        now = self._clock.now()
        if providers_gone:
            await store.disable_providers(session, providers_gone, now)
        if models_gone:
            await store.disable_models(session, models_gone, now)
        return bool(providers_gone or models_gone)

    async def _mark_gone(self, session: AsyncSession, endpoints: tuple[Endpoint, ...]) -> None:
        names = {row.id: name for name, row in (await store.providers(session)).items()}
        current = {(endpoint.provider, _url(endpoint)) for endpoint in endpoints}
        for row in await store.endpoints(session):
            if row.status != "gone" and (names[row.provider_id], row.url) not in current:
                row.status = "gone"
        await session.flush()

    def _stamped(self, prefix: str, values: dict[str, Any]) -> dict[str, Any]:
        now = self._clock.now()
        return {"id": new_id(prefix), "created_at": now, "updated_at": now, **values}


def _url(endpoint: Endpoint) -> str:
    return endpoint.id.partition("/")[2]


def _settings(model: ModelSpec) -> dict[str, Any]:
    return {
        "operations": sorted(model.operations),
        "aliases": list(model.aliases),
        "fallbacks": list(model.fallbacks),
        "context_length": model.context_length,
        "price": msgspec.to_builtins(model.price),
        "single_tool_choice": model.single_tool_choice,
    }


def _differs(row: Base | None, values: dict[str, Any]) -> bool:
    return row is None or any(getattr(row, key) != value for key, value in values.items())
