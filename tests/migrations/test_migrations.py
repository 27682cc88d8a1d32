"""The schema's history: complete, applied once, and the same as what the code declares."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, select, text

from indigo.backends.sql.database import Database
from indigo.features.keys.tables import ApiKey
from indigo.features.tenancy.tables import Organization, User
from indigo.kernel.errors import Conflict
from indigo.migrations.metadata import all_tables
from indigo.migrations.run import check, upgrade

STARTER = str(Path(__file__).with_name("starter.py"))


@pytest.mark.threat("F40")
@pytest.mark.promise("P71")
async def test_the_migrated_schema_is_what_the_code_declares(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return compare_metadata(context, all_tables())

    async with database.read() as session:
        connection = await session.connection()
        assert await connection.run_sync(differences) == []


@pytest.mark.threat("F40")
async def test_check_constraints_and_indexes_have_the_declared_names(database: Database) -> None:
    """What the comparison above does not look at."""
    names = {
        str(constraint.name)
        for table in all_tables().tables.values()
        for constraint in table.constraints
        if constraint.name is not None and str(constraint.name).startswith("ck_")
    }
    assert len(names) >= 4
    if database.dialect == "sqlite":
        statement = "SELECT sql FROM sqlite_master WHERE type = 'table'"
    else:
        statement = "SELECT conname FROM pg_constraint WHERE contype = 'c'"
    async with database.read() as session:
        found = " ".join(str(row) for row in await session.scalars(text(statement)))
    assert [name for name in names if name not in found] == []
    assert "ck_api_keys_ck_" not in found


async def test_upgrading_twice_applies_nothing_the_second_time(empty_database: Database) -> None:
    first = await upgrade(empty_database)
    assert first.current is None
    assert first.pending[0] == "0001"
    second = await upgrade(empty_database)
    assert (second.current, second.pending) == (second.head, ())
    assert await check(empty_database) == second


@pytest.mark.threat("F39")
async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refusing in (check, upgrade):
        with pytest.raises(Conflict, match="newer version"):
            await refusing(database)


@pytest.mark.threat("F38")
async def test_a_migration_that_fails_half_way_leaves_nothing_behind(empty_database: Database) -> None:
    async with empty_database.write() as session:
        await session.execute(text("CREATE TABLE usage_events (id TEXT PRIMARY KEY)"))
    with pytest.raises(Exception, match="already exists"):
        await upgrade(empty_database)
    assert (await check(empty_database)).current is None
    async with empty_database.write() as session:
        await session.execute(text("DROP TABLE usage_events"))
    await upgrade(empty_database)
    assert (await check(empty_database)).pending == ()


@pytest.mark.threat("F38")
async def test_a_migration_killed_on_the_way_is_done_by_the_next_start(empty_database_url: str) -> None:
    for milliseconds in (5, 20, 50):
        process = _starter(empty_database_url)
        _go(process)
        await asyncio.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = _starter(empty_database_url)
    _go(process)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    database = await Database.open(empty_database_url)
    try:
        assert (await check(database)).pending == ()
        async with database.read() as session:
            assert (await session.execute(select(func.count()).select_from(Organization))).scalar_one() == 1
    finally:
        await database.close()


@pytest.mark.threat("F37")
@pytest.mark.promise("P71")
async def test_instances_that_start_together_migrate_and_bootstrap_once(empty_database_url: str) -> None:
    processes = [_starter(empty_database_url) for _ in range(6)]
    for process in processes:
        _go(process)
    outputs = [process.communicate(timeout=100)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert sum(words[0] == "migrated" for words in outputs) == 1
    assert sum(words[1] == "made" for words in outputs) == 1
    await _one_of_each(empty_database_url)


@pytest.mark.threat("F37")
async def test_fifty_starts_at_once_migrate_once(empty_database_url: str) -> None:
    async def start() -> bool:
        database = await Database.open(empty_database_url)
        try:
            return bool((await upgrade(database)).pending)
        finally:
            await database.close()

    assert sum(await asyncio.gather(*(start() for _ in range(50)))) == 1


async def _one_of_each(url: str) -> None:
    database = await Database.open(url)
    try:
        async with database.read() as session:
            counts = [
                (await session.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (Organization, User, ApiKey)
            ]
    finally:
        await database.close()
    assert counts == [1, 1, 2]


def _starter(url: str) -> subprocess.Popen[str]:
    """A process that has imported everything and waits for `_go`."""
    process = subprocess.Popen([sys.executable, STARTER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
