"""API keys as people manage them: created, listed, revoked; shown once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from indigo.backends.sql.database import Database
from indigo.features.keys.first_start import first_start
from indigo.features.keys.service import Keys
from indigo.features.tenancy.passwords import Passwords
from indigo.features.tenancy.service import Tenancy
from indigo.kernel import api_keys
from indigo.kernel.clock import FixedClock
from indigo.kernel.errors import InvalidRequest, NotFound

CLOCK = FixedClock()
TENANCY = Tenancy(CLOCK)
KEYS = Keys(TENANCY, CLOCK)


@pytest.mark.promise("P34")
@pytest.mark.parametrize("kind", list(api_keys.KINDS))
async def test_a_key_of_each_kind_is_shown_once_and_stored_as_a_digest(database: Database, kind: str) -> None:
    expiry = CLOCK.now() + 60 if kind == "ephemeral" else None
    async with database.write() as session:
        _, scope = await TENANCY.create_organization(session, "Acme")
        project = await TENANCY.create_project(session, scope, "Main")
        project_id = None if kind in ("admin", "organization") else project.id
        key = await KEYS.create(
            session,
            scope,
            kind=kind,
            name="ci",
            project_id=project_id,
            models=["b", "a", "b"],
            expires_at=expiry,
        )
    assert api_keys.well_formed(key.secret)
    assert key.secret not in repr(key)
    async with database.read() as session:
        (row,) = await KEYS.list(session, scope)
        everything = str((await session.execute(text("SELECT * FROM api_keys"))).all())
    assert row.digest == api_keys.digest(key.secret.encode())
    assert (row.kind, row.name, row.models, row.redacted[-4:]) == (kind, "ci", ["a", "b"], key.secret[-4:])
    assert key.secret not in everything


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "root", "name": "x"},
        {"kind": "project", "name": "x"},
        {"kind": "admin", "name": "x", "project_id": "proj_1"},
        {"kind": "organization", "name": " "},
        {"kind": "organization", "name": "x", "expires_at": CLOCK.now()},
        {"kind": "organization", "name": "x", "expires_at": float("nan")},
        {"kind": "organization", "name": "x", "expires_at": float("inf")},
        {"kind": "organization", "name": "a\0b"},
    ],
)
async def test_arguments_that_do_not_fit_are_refused(database: Database, arguments: dict[str, str]) -> None:
    async with database.write() as session:
        _, scope = await TENANCY.create_organization(session, "Acme")
        with pytest.raises(InvalidRequest):
            await KEYS.create(session, scope, **arguments)  # pyright: ignore[reportArgumentType]


async def test_another_organizations_keys_and_projects_do_not_exist(database: Database) -> None:
    async with database.write() as session:
        _, ours = await TENANCY.create_organization(session, "Ours")
        _, theirs = await TENANCY.create_organization(session, "Theirs")
        project = await TENANCY.create_project(session, ours, "Main")
        key = await KEYS.create(session, ours, kind="project", name="k", project_id=project.id)
        with pytest.raises(NotFound):
            await KEYS.revoke(session, theirs, key.id)
        with pytest.raises(NotFound):
            await KEYS.create(session, theirs, kind="project", name="k", project_id=project.id)
        assert await KEYS.list(session, theirs) == []
        assert [row.revoked_at for row in await KEYS.list(session, ours)] == [None]


async def test_the_last_use_of_a_key_never_goes_backwards(database: Database) -> None:
    async with database.write() as session:
        _, scope = await TENANCY.create_organization(session, "Acme")
        key = await KEYS.create(session, scope, kind="organization", name="k")
    for at, expected in ((5.0, 5.0), (7.5, 7.5), (6.0, 7.5)):
        async with database.write() as session:
            await KEYS.used(session, {key.id: at, "key_gone": 1.0})
        async with database.read() as session:
            assert [row.last_used_at for row in await KEYS.list(session, scope)] == [expected]


async def test_the_first_start_gives_working_keys_and_the_second_nothing(database: Database) -> None:
    first = await first_start(database, TENANCY, KEYS, Passwords(), email="Admin@Example.com")
    assert first is not None
    assert first.admin_email == "admin@example.com"
    assert api_keys.well_formed(first.project_key)
    assert api_keys.well_formed(first.admin_key)
    assert first.admin_password is not None
    assert not any(secret in repr(first) for secret in (first.project_key, first.admin_password))
    async with database.read() as session:
        user = await TENANCY.user_by_email(session, "admin@EXAMPLE.com")
    assert user is not None
    assert user.password_hash is not None
    assert user.password_hash.startswith("$argon2id$")
    assert await Passwords().verify(user.password_hash, first.admin_password)
    assert not await Passwords().verify(user.password_hash, first.admin_password + "x")
    assert await first_start(database, TENANCY, KEYS, Passwords(), email="admin@example.com") is None
