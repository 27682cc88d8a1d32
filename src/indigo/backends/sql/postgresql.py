"""How PostgreSQL is opened: a bounded pool that tests a connection before it lends it, and time-outs.

asyncpg itself reads the URL and understands what libpq does: `sslmode`, `host=/socket/folder` and more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30
UNANSWERED_SECONDS = STATEMENT_SECONDS + 5
"""When the server does not even send its own time-out (it is paused, or the network is gone)."""


def location_of(url: str) -> str:
    """Host and name of the database, without credentials."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
    return f"{host}{parts.path}"


def engines(url: str, *, pool_size: int, acquire_seconds: float) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine for writing, and the same pool for reading only."""
    milliseconds = str(STATEMENT_SECONDS * 1000)
    writer = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=_connector(
            url,
            command_timeout=UNANSWERED_SECONDS,
            server_settings={
                "application_name": "indigo",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
            },
        ),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=acquire_seconds,
        pool_pre_ping=True,
        pool_recycle=1800,
    )
    return writer, writer.execution_options(postgresql_readonly=True)


def patient_engine(url: str) -> AsyncEngine:
    """Connections of its own without time-outs, for schema changes."""
    creator = _connector(url, server_settings={"application_name": "indigo migrations"})
    return create_async_engine("postgresql+asyncpg://", async_creator=creator, poolclass=NullPool)


def _connector(url: str, **options: Any) -> Callable[[], Awaitable[Any]]:
    dsn = "postgresql:" + url.partition(":")[2]
    driver: Any = asyncpg

    async def connect() -> Any:
        return await driver.connect(dsn, timeout=CONNECT_SECONDS, **options)

    return connect
