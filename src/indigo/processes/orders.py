"""What the command line does to the database without a server: the rules are the features', this opens the door."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql.database import Database
from indigo.features.keys.service import CreatedKey, Keys
from indigo.features.keys.tables import ApiKey
from indigo.features.tenancy.service import Installation, Tenancy
from indigo.kernel.clock import SystemClock
from indigo.kernel.errors import NotFound
from indigo.kernel.settings import Settings
from indigo.migrations import run as migrations
from indigo.processes.storage import open_database

OF_A_PROJECT = ("project", "service", "ephemeral")


class KeyRow(msgspec.Struct, frozen=True):
    """A key as it is listed: never its secret."""

    id: str
    kind: str
    name: str
    hint: str
    state: str
    expires_at: float | None
    last_used_at: float | None
    models: list[str] | None


async def migrate(settings: Settings, *, check: bool) -> migrations.Status:
    """Bring the schema up to date, or only say how it stands. Returns how it stood before."""
    if not settings.database_url:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = await open_database(settings)
    try:
        return await (migrations.check(database) if check else migrations.upgrade(database))
    finally:
        await database.close()


async def create_key(
    settings: Settings, *, name: str, kind: str, models: Sequence[str], days: int | None
) -> CreatedKey:
    """A new key for the default organization, and its default project where the kind belongs to one."""
    clock = SystemClock()
    async with _opened(settings) as (database, tenancy, keys), database.write() as session:
        installation = await _installation(tenancy, session)
        scope = await tenancy.scope(session, installation.org_id)
        return await keys.create(
            session,
            scope,
            kind=kind,
            name=name,
            project_id=installation.project_id if kind in OF_A_PROJECT else None,
            models=list(models) or None,
            expires_at=None if days is None else clock.now() + days * 86_400,
        )


async def list_keys(settings: Settings) -> list[KeyRow]:
    """Every key of the default organization, oldest first."""
    now = SystemClock().now()
    async with _opened(settings) as (database, tenancy, keys), database.read() as session:
        scope = await tenancy.installed_scope(session)
        return [_row(key, now) for key in await keys.list(session, scope)]


async def revoke_key(settings: Settings, key_id: str) -> KeyRow:
    """Running servers refuse the key within a second. Raises NotFound."""
    async with _opened(settings) as (database, tenancy, keys), database.write() as session:
        scope = await tenancy.installed_scope(session)
        return _row(await keys.revoke(session, scope, key_id), SystemClock().now())


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[tuple[Database, Tenancy, Keys]]:
    database = await open_database(settings)
    try:
        if (await migrations.check(database)).pending:
            raise NotFound(
                f"There is no Indigo in {database.location}, or one of an older version. Name its data folder with "
                "INDIGO_DATA_DIR or its DATABASE_URL, or start the server once with 'indigo serve'.",
                code="not_installed",
            )
        tenancy = Tenancy(SystemClock())
        yield database, tenancy, Keys(tenancy, SystemClock())
    finally:
        await database.close()


async def _installation(tenancy: Tenancy, session: AsyncSession) -> Installation:
    found = await tenancy.installation(session)
    if found is None:
        raise NotFound("There is no organization yet: start the server once with 'indigo serve'.", code="not_installed")
    return found


def _row(key: ApiKey, now: float) -> KeyRow:
    state = "revoked" if key.revoked_at else "expired" if key.expires_at and key.expires_at <= now else "live"
    return KeyRow(
        id=key.id,
        kind=key.kind,
        name=key.name,
        hint=key.redacted,
        state=state,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        models=key.models,
    )
