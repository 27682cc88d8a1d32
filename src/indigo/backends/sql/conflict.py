"""INSERT … ON CONFLICT, which both engines know, each in a construct of its own."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql.base import Base

Insert = sqlite.Insert | postgresql.Insert


def insert(session: AsyncSession, table: type[Base]) -> Insert:
    """An INSERT into `table` that has `.on_conflict_do_nothing` and `.on_conflict_do_update`."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
