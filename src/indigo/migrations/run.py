"""Brings the schema up to date, once, however many instances start together; or says how it stands.

All pending migrations are one transaction, on both engines: a process killed on the way leaves the schema as
it was, and the next start does them. Writing migrations is for developers and not done here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from indigo.backends.sql.database import Database
from indigo.kernel.errors import Conflict

LOCK_SECONDS = 3
"""How long a migration may wait for a table, since the traffic behind it waits as well (PostgreSQL)."""


class Status(msgspec.Struct, frozen=True):
    """`current` is None for an empty database; `pending` are the revisions to be applied, in order."""

    current: str | None
    head: str
    pending: tuple[str, ...]


async def check(database: Database) -> Status:
    """How the schema stands. Raises Conflict when it is of a newer version than this program."""
    async with database.read() as session:
        return await _status(session)


async def upgrade(database: Database) -> Status:
    """Apply what is pending; returns how it stood before. Raises Conflict as `check` does."""
    before = await check(database)
    if not before.pending:
        return before
    async with database.exclusive() as session:
        before = await _status(session)
        if before.pending:
            if database.dialect == "postgresql":
                await session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            await (await session.connection()).run_sync(_upgrade)
    return before


async def _status(session: AsyncSession) -> Status:
    current = await (await session.connection()).run_sync(_current)
    script = ScriptDirectory.from_config(_config())
    known = [revision.revision for revision in script.walk_revisions()]
    known.reverse()
    if current is not None and current not in known:
        raise Conflict(
            f"The database is of a newer version ({current}) than this program ({known[-1]}): "
            "start the newer program, or restore a backup.",
            code="database_newer",
        )
    pending = known if current is None else known[known.index(current) + 1 :]
    return Status(current=current, head=known[-1], pending=tuple(pending))


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
