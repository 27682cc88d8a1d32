"""The unit of work, the same on both engines: all or nothing, one outcome, one error for "not now"."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from indigo.backends.notices.poll import ChangeNotices
from indigo.backends.sql import changes
from indigo.backends.sql.database import Database
from indigo.kernel.errors import InvalidRequest, Unavailable
from indigo.kernel.tasks import Tasks
from tests.support.databases import PostgresqlServer
from tests.support.waiting import until


async def counter(database: Database) -> int:
    async with database.read() as session:
        return (await changes.counters(session)).get("topic", 0)


@pytest.mark.promise("P72")
async def test_a_unit_of_work_is_committed_at_its_end(database: Database) -> None:
    async with database.write() as session:
        await changes.bump(session, "topic")
        assert await counter(database) == 0
    assert await counter(database) == 1


@pytest.mark.promise("P72")
async def test_a_unit_of_work_that_fails_leaves_nothing(database: Database) -> None:
    async def fail(error: BaseException) -> None:
        async with database.write() as session:
            await changes.bump(session, "topic")
            raise error

    for error in (ValueError("x"), asyncio.CancelledError(), OSError("y")):
        with pytest.raises(type(error)):
            await fail(error)
    assert await counter(database) == 0


async def test_an_error_in_a_statement_passes_as_it_is(database: Database) -> None:
    with pytest.raises(SQLAlchemyError, match="nothing_here"):
        async with database.write() as session:
            await session.execute(text("SELECT * FROM nothing_here"))


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.read() as session:
            await changes.bump(session, "topic")
    assert await counter(database) == 0


@pytest.mark.threat("F7")
async def test_two_hundred_writers_at_once_all_get_their_turn(database: Database, database_url: str) -> None:
    """Over two connections pools, as two processes would have."""
    other = await Database.open(database_url, acquire_seconds=30.0)
    patient = await Database.open(database_url, acquire_seconds=30.0)

    async def write(through: Database) -> None:
        async with through.write() as session:
            await changes.bump(session, "topic")

    await asyncio.gather(*(write(patient if number % 2 else other) for number in range(200)))
    assert await counter(database) == 200
    await other.close()
    await patient.close()


async def test_sqlite_keeps_its_promises_to_the_disk(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/indigo.db")
    async with database.write() as session:
        found = [
            (await session.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert found == ["wal", 2, 1, 10_000]
    await database.close()


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "indigo.db"])
async def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        await Database.open(url)


async def test_a_location_for_people_has_no_password() -> None:
    database = await Database.open("postgres://me:secret@db.example/indigo?sslmode=require")
    assert database.location == "db.example/indigo"
    await database.close()


async def test_a_sqlite_file_that_cannot_be_opened_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await Database.open("sqlite:////proc/nowhere/indigo.db")


@pytest.mark.threat("F1")
async def test_a_database_that_is_down_is_unavailable_and_heals(
    own_postgresql_server: PostgresqlServer,
) -> None:
    database = await Database.open(own_postgresql_server.url("postgres"))
    await database.ping()
    own_postgresql_server.stop()
    with pytest.raises(Unavailable):
        await database.ping()
    with pytest.raises(Unavailable):
        async with database.write():
            raise AssertionError("it was let in")
    own_postgresql_server.start()
    await database.ping()
    await database.close()


@pytest.mark.threat("F1", "F3")
async def test_a_connection_cut_in_mid_transaction_is_unavailable(
    own_postgresql_server: PostgresqlServer,
) -> None:
    database = await Database.open(own_postgresql_server.url("postgres"))

    async def cut() -> None:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE half (id TEXT)"))
            await own_postgresql_server.execute_async(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'indigo'"
            )
            await session.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await cut()
    async with database.read() as session:
        assert (await session.execute(text("SELECT to_regclass('half')"))).scalar_one() is None
    await database.close()


@pytest.mark.threat("F2")
async def test_a_pool_that_is_used_up_refuses_after_its_time_out(postgresql_server: PostgresqlServer) -> None:
    database = await Database.open(postgresql_server.url("postgres"), pool_size=1, acquire_seconds=0.05)
    async with database.read():
        with pytest.raises(Unavailable):
            await database.ping()
    await database.ping()
    await database.close()


async def test_a_change_is_told_at_once_here_and_soon_elsewhere(database: Database, database_url: str) -> None:
    elsewhere = await Database.open(database_url)
    told: list[str] = []
    here_notices, there_notices = ChangeNotices(database), ChangeNotices(elsewhere, interval=0.02)
    here_notices.subscribe("topic", lambda: told.append("here"))
    there_notices.subscribe("topic", lambda: told.append("there"))
    there_notices.subscribe("other", lambda: told.append("other"))
    await there_notices.poll()
    told.clear()
    async with database.write() as session:
        await changes.bump(session, "topic")
        assert told == []
    assert told == ["here"]
    tasks = Tasks()
    tasks.start(there_notices.run(), name="notices")
    await until(lambda: told == ["here", "there"])
    await tasks.cancel()
    await elsewhere.close()


async def test_a_change_that_is_rolled_back_is_not_told(database: Database) -> None:
    told: list[str] = []
    ChangeNotices(database).subscribe("topic", lambda: told.append("told"))

    async def fail() -> None:
        async with database.write() as session:
            await changes.bump(session, "topic")
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    assert told == []
