"""All SQL of the registry. Rows only; what they mean is `service.py`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql.conflict import insert
from indigo.features.models.tables import ModelEndpointRow, ModelRow, ProviderRow


async def providers(session: AsyncSession) -> dict[str, ProviderRow]:
    """By name."""
    return {row.name: row for row in await session.scalars(select(ProviderRow))}


async def models(session: AsyncSession) -> dict[tuple[str, str], ModelRow]:
    """By provider's id and model's name."""
    return {(row.provider_id, row.name): row for row in await session.scalars(select(ModelRow))}


async def endpoints(session: AsyncSession) -> Sequence[ModelEndpointRow]:
    return list(await session.scalars(select(ModelEndpointRow).order_by(ModelEndpointRow.url)))


async def put_provider(session: AsyncSession, values: Mapping[str, Any]) -> str:
    """Insert, or update but for `id` and `created_at`; returns the row's id."""
    changed = {key: value for key, value in values.items() if key not in ("id", "name", "created_at")}
    await session.execute(
        insert(session, ProviderRow)
        .values(**values)
        .on_conflict_do_update(index_elements=[ProviderRow.name], set_=changed)
    )
    return (await session.scalars(select(ProviderRow.id).where(ProviderRow.name == values["name"]))).one()


async def put_model(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Insert, or update but for `id` and `created_at`."""
    changed = {key: value for key, value in values.items() if key not in ("id", "provider_id", "name", "created_at")}
    await session.execute(
        insert(session, ModelRow)
        .values(**values)
        .on_conflict_do_update(index_elements=[ModelRow.provider_id, ModelRow.name], set_=changed)
    )


async def disable_providers(session: AsyncSession, ids: Collection[str], at: float) -> None:
    statement = update(ProviderRow).where(ProviderRow.id.in_(ids))
    await session.execute(statement.values(enabled=False, updated_at=at))


async def disable_models(session: AsyncSession, ids: Collection[str], at: float) -> None:
    await session.execute(update(ModelRow).where(ModelRow.id.in_(ids)).values(enabled=False, updated_at=at))


async def put_endpoint(session: AsyncSession, provider: str, values: Mapping[str, Any]) -> None:
    """Insert or update the endpoint of the provider of that name, if there is one."""
    provider_id = await session.scalar(select(ProviderRow.id).where(ProviderRow.name == provider))
    if provider_id is None:
        return
    changed = {key: value for key, value in values.items() if key not in ("id", "url")}
    await session.execute(
        insert(session, ModelEndpointRow)
        .values(provider_id=provider_id, **values)
        .on_conflict_do_update(index_elements=[ModelEndpointRow.provider_id, ModelEndpointRow.url], set_=changed)
    )
