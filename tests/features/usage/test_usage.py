"""What people may ask about usage: their own organization's, listed and summed."""

from __future__ import annotations

from pathlib import Path

import pytest

from indigo.backends.sql.database import Database
from indigo.features.keys.service import Keys
from indigo.features.tenancy.service import Tenancy
from indigo.features.usage.service import Usage
from indigo.features.usage.store import Total
from indigo.kernel.clock import FixedClock
from indigo.kernel.errors import InvalidRequest
from tests.support.usage import Books

TENANCY = Tenancy(FixedClock())
DAY = 86_400.0


async def test_usage_is_counted_listed_and_summed_for_its_organization_only(database: Database, tmp_path: Path) -> None:
    keys = Keys(TENANCY, FixedClock())
    async with database.write() as session:
        _, ours = await TENANCY.create_organization(session, "Ours")
        _, theirs = await TENANCY.create_organization(session, "Theirs")
        key = await keys.create(session, ours, kind="organization", name="k")
    books = Books(database, tmp_path / "spool")
    books.start()
    mine = {"org_id": ours.org_id, "key_id": key.id}
    books.record("1", started_at=10 * DAY, **mine)
    books.record("2", started_at=10 * DAY + 86_399.9, model="other", estimated=True, **mine)
    books.record("3", started_at=11 * DAY, **mine)
    books.record("4", org_id=theirs.org_id, started_at=12 * DAY)
    await books.drain.drained()
    await books.stop()
    usage = Usage()
    async with database.read() as session:
        assert (await usage.count(session, ours), await usage.count(session, theirs)) == (3, 1)
        assert [row.id for row in await usage.latest(session, ours, 2)] == ["3", "2"]
        assert await usage.totals(session, ours, by="key") == [Total(key.id, 3, 30, 15, 3, 6, 81, 1)]
        by_model = await usage.totals(session, ours, by="model")
        assert [(total.group, total.requests) for total in by_model] == [("demo", 2), ("other", 1)]
        by_day = await usage.totals(session, ours, by="day", until=11 * DAY)
        assert [(total.group, total.requests) for total in by_day] == [(str(10 * 86_400), 2)]
        with pytest.raises(InvalidRequest):
            await usage.totals(session, ours, by="1; DROP TABLE usage_events")
        (row,) = await keys.list(session, ours)
        assert row.last_used_at == 11 * DAY
