"""All SQL of tenancy. Rows only; the rules are `service.py`'s."""

from __future__ import annotations

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql.base import Base
from indigo.backends.sql.conflict import insert
from indigo.features.tenancy.scope import OrgScope
from indigo.features.tenancy.tables import Installation, Organization, Project, User


async def add(session: AsyncSession, *rows: Base) -> None:
    """Insert in the given order; raises IntegrityError where one clashes."""
    for row in rows:
        session.add(row)
        await session.flush()


async def claim(session: AsyncSession, installation: Installation) -> bool:
    """Whether this unit of work is the first ever; on PostgreSQL it waits for a rival's end."""
    values = {column.key: getattr(installation, column.key) for column in Installation.__mapper__.column_attrs}
    result = await session.execute(insert(session, Installation).values(values).on_conflict_do_nothing())
    return isinstance(result, CursorResult) and result.rowcount == 1


async def installation(session: AsyncSession) -> Installation | None:
    return await session.get(Installation, 1)


async def organization(session: AsyncSession, org_id: str) -> Organization | None:
    """The organization, unless it is archived."""
    statement = select(Organization).where(Organization.id == org_id, Organization.archived_at.is_(None))
    return await session.scalar(statement)


async def project(session: AsyncSession, scope: OrgScope, project_id: str) -> Project | None:
    """The organization's project, unless it is archived."""
    statement = select(Project).where(
        Project.id == project_id, Project.org_id == scope.org_id, Project.archived_at.is_(None)
    )
    return await session.scalar(statement)


async def projects(session: AsyncSession, scope: OrgScope) -> list[Project]:
    statement = select(Project).where(Project.org_id == scope.org_id).order_by(Project.created_at, Project.id)
    return list(await session.scalars(statement))


async def user_by_email(session: AsyncSession, email: str) -> User | None:
    return await session.scalar(select(User).where(User.email == email))


async def archive_organization(session: AsyncSession, scope: OrgScope, at: float) -> None:
    await session.execute(update(Organization).where(Organization.id == scope.org_id).values(archived_at=at))


async def archive_project(session: AsyncSession, scope: OrgScope, project_id: str, at: float) -> bool:
    """Whether there was such a project to archive."""
    found = await project(session, scope, project_id)
    if found is not None:
        found.archived_at = at
        await session.flush()
    return found is not None


async def disable_user(session: AsyncSession, user_id: str, at: float) -> bool:
    """Whether there is such a user."""
    found = await session.get(User, user_id)
    if found is not None:
        found.disabled_at = at
        await session.flush()
    return found is not None
