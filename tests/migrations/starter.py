"""One instance that starts: migrates the database at argv[1], bootstraps, and says what it found."""

from __future__ import annotations

import asyncio
import sys

from indigo.backends.sql.database import Database
from indigo.features.keys.first_start import first_start
from indigo.features.keys.service import Keys
from indigo.features.tenancy.passwords import Passwords
from indigo.features.tenancy.service import Tenancy
from indigo.kernel.clock import SystemClock
from indigo.migrations.run import upgrade


async def main(url: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    database = await Database.open(url)
    before = await upgrade(database)
    tenancy = Tenancy(SystemClock())
    first = await first_start(
        database, tenancy, Keys(tenancy, SystemClock()), Passwords(), email="a@b.c", password="secret"
    )
    print("migrated" if before.pending else "found", "made" if first else "found", flush=True)
    await database.close()


asyncio.run(main(sys.argv[1]))
