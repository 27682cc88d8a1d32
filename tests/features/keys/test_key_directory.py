"""The gateway's Grants port over the database: what memory may say, and when the database is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass

import psutil
import pytest
import pytest_asyncio

from indigo.backends.notices.poll import ChangeNotices
from indigo.backends.sql.database import Database
from indigo.features.keys import directory as key_directory
from indigo.features.keys.directory import KeyDirectory
from indigo.features.keys.service import CreatedKey, Keys
from indigo.features.tenancy.scope import OrgScope
from indigo.features.tenancy.service import TOPIC, Tenancy
from indigo.gateway.ports import Grant
from indigo.kernel import api_keys
from indigo.kernel.clock import FixedClock
from indigo.kernel.errors import Unauthorized, Unavailable
from indigo.kernel.tasks import Tasks
from indigo.migrations.run import upgrade
from tests.support.databases import PostgresqlServer


@dataclass
class Desk:
    """One project, and everything that issues and looks up its keys."""

    database: Database
    clock: FixedClock
    tenancy: Tenancy
    keys: Keys
    directory: KeyDirectory
    scope: OrgScope
    project_id: str

    async def create(self, kind: str = "project", expires_at: float | None = None) -> CreatedKey:
        async with self.database.write() as session:
            return await self.keys.create(
                session,
                self.scope,
                kind=kind,
                name="a key",
                project_id=None if kind in ("admin", "organization") else self.project_id,
                expires_at=expires_at,
            )

    async def revoke(self, key: CreatedKey) -> None:
        async with self.database.write() as session:
            await self.keys.revoke(session, self.scope, key.id)


async def open_desk(database: Database, tasks: Tasks) -> Desk:
    clock = FixedClock()
    tenancy = Tenancy(clock)
    directory = KeyDirectory(database, clock, tasks, grant_seconds=10.0, query_seconds=1.0)
    ChangeNotices(database).subscribe(TOPIC, directory.clear)
    async with database.write() as session:
        _, scope = await tenancy.create_organization(session, "Acme")
        project = await tenancy.create_project(session, scope, "Main")
    return Desk(database, clock, tenancy, Keys(tenancy, clock), directory, scope, project.id)


@pytest_asyncio.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    tasks = Tasks()
    yield await open_desk(database, tasks)
    await tasks.cancel()


def digest_of(key: CreatedKey) -> bytes:
    return api_keys.digest(key.secret.encode())


async def refused(desk: Desk, digest: bytes) -> str:
    """The reason for which both memory and the database refuse it."""
    with pytest.raises(Unauthorized) as found:
        await desk.directory.find(digest)
    with pytest.raises(Unauthorized) as cached:
        desk.directory.cached(digest)
    assert cached.value.message == found.value.message
    return found.value.message


@pytest.mark.promise("P34")
async def test_a_key_is_looked_up_by_one_statement_and_then_known_without(desk: Desk) -> None:
    digest = digest_of(key := await desk.create())
    assert desk.directory.cached(digest) is None
    with desk.database.counting() as statements:
        grant = await desk.directory.find(digest)
        assert statements.count == 1
        for _ in range(1000):
            assert desk.directory.cached(digest) is grant
        assert statements.count == 1
    assert grant == Grant(key_id=key.id, kind="project", org_id=desk.scope.org_id, project_id=desk.project_id)


async def test_concurrent_lookups_of_one_key_share_one_statement(desk: Desk) -> None:
    digest = digest_of(await desk.create())
    with desk.database.counting() as statements:
        grants = await asyncio.gather(*(desk.directory.find(digest) for _ in range(100)))
    assert statements.count == 1
    assert len({grant.key_id for grant in grants}) == 1


async def test_a_caller_who_leaves_does_not_take_the_answer_from_the_others(desk: Desk) -> None:
    digest = digest_of(await desk.create())

    async def look() -> Grant:
        return await desk.directory.find(digest)

    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(look())
        staying = group.create_task(look())
        await asyncio.sleep(0)
        leaving.cancel()
    assert staying.result().org_id == desk.scope.org_id


@pytest.mark.threat("T2")
async def test_an_unknown_key_is_refused_and_the_refusal_remembered_briefly(desk: Desk) -> None:
    digest = api_keys.digest(b"sk-proj-unknown")
    assert "not known" in await refused(desk, digest)
    desk.clock.advance(5.0)
    assert desk.directory.cached(digest) is None


@pytest.mark.threat("T4", "T5", "T33")
@pytest.mark.parametrize("credential", [b"' OR '1'='1", b"x' OR (SELECT pg_sleep(8)) IS NOT NULL --", b"X", b"\xff"])
async def test_a_credential_that_carries_sql_or_nonsense_is_unknown(desk: Desk, credential: bytes) -> None:
    started = time.monotonic()
    assert "not known" in await refused(desk, api_keys.digest(credential))
    assert "not known" in await refused(desk, credential)
    assert time.monotonic() - started < 5


@pytest.mark.promise("P34")
async def test_a_revoked_key_is_refused_at_once_in_this_process(desk: Desk) -> None:
    digest = digest_of(key := await desk.create())
    await desk.directory.find(digest)
    await desk.revoke(key)
    assert desk.directory.cached(digest) is None
    assert "revoked" in await refused(desk, digest)


async def test_a_revocation_whose_notice_is_lost_counts_within_the_life_of_a_grant(
    desk: Desk, database_url: str
) -> None:
    digest = digest_of(key := await desk.create())
    await desk.directory.find(digest)
    elsewhere = await Database.open(database_url)
    async with elsewhere.write() as session:
        await desk.keys.revoke(session, desk.scope, key.id)
    await elsewhere.close()
    assert desk.directory.cached(digest) is not None
    desk.clock.advance(10.0)
    assert desk.directory.cached(digest) is None
    assert "revoked" in await refused(desk, digest)


async def test_a_lookup_that_a_revocation_overtakes_is_not_remembered(desk: Desk) -> None:
    digest = digest_of(await desk.create())
    looking = asyncio.ensure_future(desk.directory.find(digest))
    await asyncio.sleep(0)
    desk.directory.clear()
    await looking
    assert desk.directory.cached(digest) is None


async def test_a_key_expires_to_the_second_though_it_is_remembered(desk: Desk) -> None:
    digest = digest_of(await desk.create(expires_at=desk.clock.now() + 3))
    await desk.directory.find(digest)
    desk.clock.advance(2.9)
    assert desk.directory.cached(digest) is not None
    desk.clock.advance(0.1)
    with pytest.raises(Unauthorized, match="expired"):
        desk.directory.cached(digest)
    assert "expired" in await refused(desk, digest)


@pytest.mark.parametrize("what", ["organization", "project", "user"])
async def test_a_key_is_dead_once_what_it_belongs_to_is_closed(desk: Desk, what: str) -> None:
    async with desk.database.write() as session:
        user = await desk.tenancy.create_user(session, "a@example.com")
        key = await desk.keys.create(
            session, desk.scope, kind="project", name="k", project_id=desk.project_id, user_id=user.id
        )
    digest = digest_of(key)
    await desk.directory.find(digest)
    async with desk.database.write() as session:
        match what:
            case "organization":
                await desk.tenancy.archive_organization(session, desk.scope)
            case "project":
                await desk.tenancy.archive_project(session, desk.scope, desk.project_id)
            case _:
                await desk.tenancy.disable_user(session, user.id)
    assert "closed" in await refused(desk, digest)


async def test_a_flood_of_unknown_keys_pushes_no_good_key_out_and_takes_little_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_directory, "MOST_REFUSALS", 20)
    digest = digest_of(await desk.create())
    await desk.directory.find(digest)
    for number in range(50):
        with pytest.raises(Unauthorized):
            await desk.directory.find(number.to_bytes(32, "big"))
    assert desk.directory.cached(digest) is not None
    assert desk.directory.cached((29).to_bytes(32, "big")) is None
    with pytest.raises(Unauthorized):
        desk.directory.cached((30).to_bytes(32, "big"))


async def test_an_admin_key_may_use_no_model_and_an_organization_key_every_project(desk: Desk) -> None:
    admin = await desk.directory.find(digest_of(await desk.create("admin")))
    organization = await desk.directory.find(digest_of(await desk.create("organization")))
    assert (admin.operations, admin.project_id) == (frozenset(), None)
    assert (organization.operations, organization.project_id) == (None, None)


@pytest.mark.threat("T2", "F1")
async def test_with_the_database_down_known_keys_live_on_and_others_are_503_not_401(
    own_postgresql_server: PostgresqlServer,
) -> None:
    tasks = Tasks()
    database = await Database.open(own_postgresql_server.url("postgres"))
    await upgrade(database)
    desk = await open_desk(database, tasks)
    known, other = digest_of(await desk.create()), digest_of(await desk.create())
    await desk.directory.find(known)
    own_postgresql_server.stop()
    assert desk.directory.cached(known) is not None
    for digest in (other, api_keys.digest(b"unknown")):
        with pytest.raises(Unavailable):
            await desk.directory.find(digest)
        assert desk.directory.cached(digest) is None
    desk.clock.advance(10.0)
    with pytest.raises(Unavailable):
        await desk.directory.find(known)
    own_postgresql_server.start()
    assert (await desk.directory.find(other)).org_id == desk.scope.org_id
    await tasks.cancel()
    await database.close()


@pytest.mark.threat("F2")
async def test_a_paused_database_costs_a_bounded_wait_and_heals(
    own_postgresql_server: PostgresqlServer,
) -> None:
    tasks = Tasks()
    database = await Database.open(own_postgresql_server.url("postgres"), pool_size=2, acquire_seconds=0.5)
    await upgrade(database)
    desk = await open_desk(database, tasks)
    digests = [digest_of(await desk.create()) for _ in range(10)]
    with paused(own_postgresql_server.pid):
        started = time.monotonic()
        outcomes = await asyncio.gather(*(desk.directory.find(digest) for digest in digests), return_exceptions=True)
        assert time.monotonic() - started < 10
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    grants = [await desk.directory.find(digest) for digest in digests]
    assert len(grants) == 10
    await tasks.cancel()
    await database.close()


@contextlib.contextmanager
def paused(pid: int) -> Generator[None]:
    """Every process of the server stopped meanwhile."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children()]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
