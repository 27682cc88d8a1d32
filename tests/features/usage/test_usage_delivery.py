"""From the journal into the database: every event once, whatever dies on the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from indigo.backends.queue.segment import START
from indigo.backends.sql.database import Database
from indigo.features.usage.tables import UsageEventRow
from indigo.gateway.ports import Progress, UsageEvent
from indigo.kernel.ids import EventIds
from indigo.migrations.run import upgrade
from tests.support.databases import PostgresqlServer
from tests.support.usage import Books, admission, event
from tests.support.waiting import until

REPOSITORY = Path(__file__).parents[3]


@pytest_asyncio.fixture
async def books(database: Database, tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(database, tmp_path / "spool")
    yield made
    await made.stop()


async def rows(database: Database) -> dict[str, UsageEventRow]:
    async with database.read() as session:
        return {row.id: row for row in await session.scalars(select(UsageEventRow))}


async def count(database: Database) -> int:
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(UsageEventRow))).scalar_one()


def test_the_table_has_the_fields_of_the_event() -> None:
    assert tuple(UsageEventRow.__table__.columns.keys()) == UsageEvent.__struct_fields__


@pytest.mark.promise("P34")
async def test_a_closed_request_becomes_a_row_with_every_field(database: Database, books: Books) -> None:
    books.start()
    books.record("a", estimated=True, user_id="user_a")
    books.journal.opened(admission("still open"))
    await books.drain.drained()
    (row,) = (await rows(database)).values()
    sent = event("a", estimated=True, user_id="user_a")
    assert {name: getattr(row, name) for name in UsageEvent.__struct_fields__} == {
        name: getattr(sent, name) for name in UsageEvent.__struct_fields__
    }


async def test_an_event_delivered_twice_is_one_row(database: Database, books: Books, tmp_path: Path) -> None:
    for id in ("a", "b"):
        books.record(id)
    books.start()
    await books.drain.drained()
    books.record("c")
    books.spool.current.finish(START)
    await books.drain.drained()
    assert sorted(await rows(database)) == ["a", "b", "c"]
    assert not (tmp_path / "spool" / "poison").exists()


async def test_thousands_of_events_are_all_delivered_and_their_segments_deleted(
    database: Database, books: Books
) -> None:
    books.start()
    for number in range(4000):
        books.record(f"id-{number}")
    assert len(books.spool.segments) >= 4
    await books.drain.drained()
    assert await count(database) == 4000
    await until(lambda: len(books.spool.segments) == 1)


@pytest.mark.threat("F13")
async def test_a_request_that_stays_open_is_carried_forward_so_that_old_segments_can_go(
    database: Database, books: Books, tmp_path: Path
) -> None:
    books.start()
    books.journal.opened(admission("long"))
    books.journal.progressed(Progress("long", 41, "local/0"))
    for number in range(6000):
        books.record(f"id-{number}")
    await books.drain.drained()
    await until(lambda: books.spool.segments[0].number > 3)
    await books.stop()
    successor = Books(database, tmp_path / "spool")
    await successor.recovery.adopt()
    row = (await rows(database))["long"]
    assert (row.outcome, row.completion_tokens, row.prompt_tokens) == ("interrupted", 41, 10)
    await successor.stop()


@pytest.mark.threat("F12", "F13")
@pytest.mark.parametrize("delivering", [False, True], ids=["journal only", "delivering"])
async def test_after_kill_9_every_request_is_booked_exactly_once(
    database: Database, database_url: str, tmp_path: Path, delivering: bool
) -> None:
    root = tmp_path / "spool"
    closed: set[str] = set()
    opened: set[str] = set()
    for round in range(3):
        lines = _run_and_kill(root, database_url if delivering else None, 300 + 311 * round)
        for word, id in lines:
            (closed if word == "closed" else opened).add(id)
    successor = Books(database, root)
    adopted = await successor.recovery.adopt()
    assert 1 <= adopted <= 3 if delivering else adopted == 3  # a process may adopt those before it
    stored = await rows(database)
    assert {id for id in closed if stored[id].outcome == "completed"} == closed
    left = {id: row for id, row in stored.items() if id not in closed}
    assert opened <= set(left)
    for id in opened:
        row = left[id]
        assert (row.outcome, row.estimated, row.completion_tokens) == ("interrupted", True, 4)
        assert row.cost_micros == 10 * 1 + 4 * 2 + 7
    # at most what was on its way to us when the process died: one request, or one left open, a round
    assert len(left) - len(opened) <= 3
    assert await successor.recovery.adopt() == 0
    await successor.stop()
    assert not [folder for folder in root.iterdir() if folder.is_dir()]


def _run_and_kill(root: Path, url: str | None, lines: int) -> list[tuple[str, str]]:
    """What the process said of its requests, all of it, until it was killed after so many lines."""
    arguments = [sys.executable, "-m", "tests.features.usage.writer", str(root), *([url] if url else [])]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    rest, _ = process.communicate()
    words = [line.split() for line in (*said, *rest.splitlines(keepends=True)) if line.endswith("\n")]
    assert len(words) >= lines
    return [(word, id) for word, id in words]


async def test_a_living_process_keeps_its_journal(database: Database, books: Books, tmp_path: Path) -> None:
    books.journal.opened(admission("mine"))
    other = Books(database, tmp_path / "spool")
    assert await other.recovery.adopt() == 0
    await other.stop()
    assert await count(database) == 0


@pytest.mark.threat("F1", "F12")
async def test_with_the_database_down_events_wait_on_disk_in_flat_memory_and_arrive_after(
    own_postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    database = await Database.open(own_postgresql_server.url("postgres"))
    await upgrade(database)
    books = Books(database, tmp_path / "spool", segment_bytes=1 << 20)
    books.start()
    books.record("before")
    await books.drain.drained()
    own_postgresql_server.stop()
    for number in range(500):
        books.record(f"first-{number}")
    await asyncio.sleep(0.05)
    memory = psutil.Process().memory_full_info().uss
    for number in range(20_000):
        books.record(f"id-{number}")
        if number % 1000 == 0:
            await asyncio.sleep(0.01)
    # the mapped segments are the page cache's and count as shared or not by system: allow for them alone
    assert psutil.Process().memory_full_info().uss - memory < books.spool.bytes_used + (1 << 21)
    own_postgresql_server.start()
    await books.drain.drained()
    assert await count(database) == 20_501
    await books.stop()
    await database.close()


async def test_a_damaged_record_is_set_aside_and_holds_nothing_up(
    database: Database, books: Books, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    books.record("a")
    books.journal.opened(admission("damaged"))
    at = books.spool.current.end
    books.journal.closed(event("damaged"))
    books.spool.append(b"\x63 neither this")
    books.record("b")
    with open(books.spool.current.path, "r+b") as file:
        file.seek(at + 30)
        file.write(b"\xff\xff")
    books.start()
    await books.drain.drained()
    assert sorted(await rows(database)) == ["a", "b"]
    assert len(list((tmp_path / "spool" / "poison").iterdir())) == 2
    assert "set a usage record" in caplog.text


async def test_an_event_that_the_database_refuses_is_set_aside_alone(
    database: Database, books: Books, tmp_path: Path
) -> None:
    books.record("a")
    books.record("poison", completion_tokens=1 << 63)
    books.record("b")
    books.start()
    await books.drain.drained()
    assert sorted(await rows(database)) == ["a", "b"]
    assert len(list((tmp_path / "spool" / "poison").iterdir())) == 1


async def test_shutting_down_with_all_delivered_leaves_no_folder(database: Database, tmp_path: Path) -> None:
    books = Books(database, tmp_path / "spool")
    books.start()
    books.record("a")
    await books.drain.drained()
    await books.stop()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_shutting_down_in_mid_stream_leaves_it_to_the_next_process(database: Database, tmp_path: Path) -> None:
    books = Books(database, tmp_path / "spool")
    books.record("undelivered")
    books.journal.opened(admission("open"))
    await books.stop()
    successor = Books(database, tmp_path / "spool")
    successor.start()

    async def both() -> bool:
        return await count(database) == 2

    await until(both)
    assert (await rows(database))["open"].outcome == "interrupted"
    await successor.stop()


async def test_recovery_killed_on_the_way_starts_over_and_stores_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Books(database, tmp_path / "spool")
    for number in range(600):
        dead.record(f"id-{number}")
    dead.journal.opened(admission("open"))
    await dead.stop()
    successor = Books(database, tmp_path / "spool")
    deliver = successor.delivery.deliver
    batches = 0

    async def die_after_one(events: list[UsageEvent]) -> None:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise OSError("killed")
        await deliver(events)

    monkeypatch.setattr(successor.delivery, "deliver", die_after_one)
    with pytest.raises(OSError, match="killed"):
        await successor.recovery.adopt()
    assert 0 < await count(database) < 600
    monkeypatch.undo()
    assert await successor.recovery.adopt() == 1
    assert await count(database) == 601
    await successor.stop()


async def test_ids_of_one_process_are_stored_in_order(database: Database, books: Books) -> None:
    ids = EventIds()
    minted = [ids.next() for _ in range(50)]
    for id in minted:
        books.record(id)
    books.start()
    await books.drain.drained()
    assert sorted(await rows(database)) == minted
