"""Organizations, projects and people, and the proof that an organization was looked up."""

from __future__ import annotations

import asyncio

import pytest

from indigo.backends.sql.database import Database
from indigo.features.tenancy.scope import OrgScope
from indigo.features.tenancy.service import Tenancy, canonical_email
from indigo.kernel.clock import FixedClock
from indigo.kernel.errors import Conflict, InvalidRequest, NotFound

TENANCY = Tenancy(FixedClock())


def test_a_scope_cannot_be_made_from_an_id() -> None:
    with pytest.raises(TypeError):
        OrgScope("org_1", object())


async def test_a_scope_is_given_for_a_live_organization_only(database: Database) -> None:
    async with database.write() as session:
        row, scope = await TENANCY.create_organization(session, "Acme")
        assert (await TENANCY.scope(session, row.id)).org_id == scope.org_id == row.id
        await TENANCY.archive_organization(session, scope)
    async with database.read() as session:
        for org_id in (row.id, "org_unknown"):
            with pytest.raises(NotFound):
                await TENANCY.scope(session, org_id)


async def test_another_organizations_project_does_not_exist(database: Database) -> None:
    async with database.write() as session:
        _, ours = await TENANCY.create_organization(session, "Ours")
        _, theirs = await TENANCY.create_organization(session, "Theirs")
        project = await TENANCY.create_project(session, ours, "Main")
        assert (await TENANCY.project(session, ours, project.id)).name == "Main"
        with pytest.raises(NotFound):
            await TENANCY.project(session, theirs, project.id)
        with pytest.raises(NotFound):
            await TENANCY.archive_project(session, theirs, project.id)
        assert [row.id for row in await TENANCY.projects(session, ours)] == [project.id]
        assert await TENANCY.projects(session, theirs) == []


async def test_an_email_address_belongs_to_one_person_however_it_is_spelt(database: Database) -> None:
    async with database.write() as session:
        await TENANCY.create_user(session, "Ann@Example.com")
        with pytest.raises(Conflict, match=r"ann@example\.com"):
            await TENANCY.create_user(session, " ann@example.COM ")
        await TENANCY.create_user(session, "bob@example.com")
    async with database.read() as session:
        assert await TENANCY.user_by_email(session, "BOB@example.com") is not None


@pytest.mark.parametrize("email", ["", "ann", "@example.com", "ann@", "a b@example.com", "a\0@b.c", "x" * 251 + "@b.c"])
def test_what_is_no_email_address_is_refused(email: str) -> None:
    with pytest.raises(InvalidRequest):
        canonical_email(email)


@pytest.mark.promise("P71")
@pytest.mark.threat("F37")
async def test_of_starts_at_the_same_time_one_bootstraps(database: Database) -> None:
    async def start() -> bool:
        async with database.write() as session:
            return await TENANCY.bootstrap(session, "admin@localhost", "hash") is not None

    assert sum(await asyncio.gather(*(start() for _ in range(8)))) == 1
    async with database.read() as session:
        scope = await TENANCY.installed_scope(session)
        assert [project.name for project in await TENANCY.projects(session, scope)] == ["Default"]


async def test_a_bootstrap_that_fails_is_done_by_the_next_start(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as session:
            assert await TENANCY.bootstrap(session, "admin@localhost", "hash") is not None
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await fail()
    async with database.write() as session:
        assert await TENANCY.installation(session) is None
        assert await TENANCY.bootstrap(session, "admin@localhost", "hash") is not None
