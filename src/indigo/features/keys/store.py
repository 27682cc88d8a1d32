"""All SQL of API keys. `by_digest` is the one query a request may cost; everything else is org-scoped."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.features.keys.tables import ApiKey
from indigo.features.tenancy.scope import OrgScope
from indigo.features.tenancy.tables import Organization, Project, User


class Found(msgspec.Struct, frozen=True):
    """A key with everything that decides whether it lives."""

    digest: bytes
    key_id: str
    kind: str
    org_id: str
    project_id: str | None
    user_id: str | None
    models: list[str] | None
    expires_at: float | None
    revoked_at: float | None
    org_archived_at: float | None
    project_archived_at: float | None
    user_disabled_at: float | None


async def by_digest(session: AsyncSession, digest: bytes) -> Found | None:
    """One join; not org-scoped, since the key is what tells the organization."""
    statement = (
        select(
            ApiKey.digest,
            ApiKey.id,
            ApiKey.kind,
            ApiKey.org_id,
            ApiKey.project_id,
            ApiKey.user_id,
            ApiKey.models,
            ApiKey.expires_at,
            ApiKey.revoked_at,
            Organization.archived_at,
            Project.archived_at,
            User.disabled_at,
        )
        .join(Organization, Organization.id == ApiKey.org_id)
        .outerjoin(Project, Project.id == ApiKey.project_id)
        .outerjoin(User, User.id == ApiKey.user_id)
        .where(ApiKey.digest == digest)
    )
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else Found(*row)


async def add(session: AsyncSession, scope: OrgScope, row: ApiKey) -> None:
    row.org_id = scope.org_id
    session.add(row)
    await session.flush()


async def listed(session: AsyncSession, scope: OrgScope) -> list[ApiKey]:
    """Newest first, the revoked ones too."""
    statement = select(ApiKey).where(ApiKey.org_id == scope.org_id).order_by(ApiKey.created_at.desc(), ApiKey.id)
    return list(await session.scalars(statement))


async def one(session: AsyncSession, scope: OrgScope, key_id: str) -> ApiKey | None:
    statement = select(ApiKey).where(ApiKey.id == key_id, ApiKey.org_id == scope.org_id)
    return await session.scalar(statement)


async def touch(session: AsyncSession, used: Mapping[str, float]) -> None:
    """Note when keys were used, by key id; never backwards. In order, so that two writers cannot deadlock."""
    statement = (
        update(ApiKey)
        .where(
            ApiKey.id == bindparam("key"),
            ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < bindparam("at")),
        )
        .values(last_used_at=bindparam("at"))
    )
    connection = await session.connection()
    await connection.execute(statement, [{"key": key, "at": used[key]} for key in sorted(used)])
