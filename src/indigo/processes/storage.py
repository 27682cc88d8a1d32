"""The database at start: opened, brought up to date, and filled on the very first start."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator

from indigo.backends.sql.database import Database
from indigo.features.keys.first_start import FirstStart, first_start
from indigo.features.keys.service import Keys
from indigo.features.tenancy.passwords import Passwords
from indigo.features.tenancy.service import Tenancy
from indigo.kernel.clock import Clock
from indigo.kernel.errors import Conflict, Unavailable
from indigo.kernel.settings import Settings
from indigo.migrations import run as migrations


def database_url(settings: Settings) -> str:
    """Where the data is: what the settings name, or a SQLite file in the data folder."""
    return settings.database_url or f"sqlite:///{settings.data_dir.resolve() / 'indigo.db'}"


@contextlib.contextmanager
def data_folder(settings: Settings) -> Generator[None]:
    """The data folder, made if need be, and ours alone while this lasts: engines' sockets live in it.

    Raises Conflict where another server runs on it, Unavailable where it cannot be made.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(settings.data_dir / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"The data folder {settings.data_dir} cannot be used: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(
            f"Another Indigo already runs on the data folder {settings.data_dir}; choose another with --data-dir.",
            code="data_folder_in_use",
        ) from None
    try:
        yield
    finally:
        os.close(lock)


async def open_database(settings: Settings) -> Database:
    """Raises InvalidRequest for a wrong URL, Unavailable where there is no such file."""
    return await Database.open(database_url(settings))


async def prepare(database: Database, settings: Settings, clock: Clock) -> FirstStart | None:
    """Migrate, and make the first organization, admin and keys; the latter to be shown, or None.

    Raises Conflict where the schema is not what this program needs and may not be changed.
    """
    if settings.auto_migrate:
        await migrations.upgrade(database)
    elif (status := await migrations.check(database)).pending:
        raise Conflict(
            f"The database lacks {len(status.pending)} migration(s) and AUTO_MIGRATE is off: run 'indigo migrate'.",
            code="migration_needed",
        )
    tenancy = Tenancy(clock)
    return await first_start(
        database,
        tenancy,
        Keys(tenancy, clock),
        Passwords(),
        email=settings.admin_email,
        password=settings.admin_password,
    )
