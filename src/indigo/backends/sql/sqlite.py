"""How SQLite is opened: WAL, one writer that begins IMMEDIATE and syncs fully, readers that cannot write.

The writer's pool of one is the queue of this process; between processes SQLite's own lock and the busy
time-out decide.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from indigo.backends.sql.failures import unavailable
from indigo.kernel.errors import InvalidRequest

BUSY_SECONDS = 10.0
READERS = 4
QUEUE_SECONDS = 30.0
"""How long a unit of work waits for the writer before it is refused."""


def path_of(url: str) -> str:
    """The file of `sqlite:///path`; raises InvalidRequest for a database in memory, unshareable."""
    path = make_url(url).database
    if not path or path == ":memory:":
        raise InvalidRequest("A SQLite URL needs a file: sqlite:///path.", code="invalid_setting")
    return path


async def engines(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """The writer's and the readers' engine."""
    path = path_of(url)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        async with locked(path):
            await asyncio.to_thread(_prepare, path)
    except (OSError, sqlite3.Error) as error:
        raise unavailable(error) from error
    writer = _engine(path, 1, QUEUE_SECONDS, "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE")
    reader = _engine(path, READERS, QUEUE_SECONDS, "PRAGMA query_only=ON", "BEGIN")
    return writer, reader


@asynccontextmanager
async def locked(path: str) -> AsyncGenerator[None]:
    """One process at a time; the kernel lets go when its holder dies."""
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(file):  # noqa: ASYNC110 - another process holds it, no event tells
            await asyncio.sleep(0.02)
        yield
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(path: str) -> None:
    """Switch to WAL, once: SQLite answers "locked" at once where two processes switch at the same time."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _engine(path: str, size: int, wait: float, pragma: str, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait,
        connect_args={"timeout": BUSY_SECONDS},
    )

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: the driver's own begins too late
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(pragma)
        cursor.close()

    def begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine
