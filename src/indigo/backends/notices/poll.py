"""Tells subscribers of changes: at once of this process's own, within a second of those made elsewhere.

It polls the counters of `backends/sql/changes`: one tiny statement a second that works on every engine,
across processes and for the command line. A subscriber must not rely on it alone: while the database is
down nothing is told, so what is cached needs a life of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from indigo.backends.sql import changes
from indigo.backends.sql.database import Database
from indigo.kernel.errors import Unavailable

log = logging.getLogger("indigo.notices")


class ChangeNotices:
    """`subscribe` first, then start `run` as a background task."""

    def __init__(self, database: Database, *, interval: float = 1.0) -> None:
        self._database = database
        self._interval = interval
        self._subscribers: dict[str, list[Callable[[], None]]] = {}
        self._seen: dict[str, int] | None = None
        database.on_change(self.changed)

    def subscribe(self, topic: str, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever `topic` has changed; it may be called once too often."""
        self._subscribers.setdefault(topic, []).append(callback)

    def changed(self, topic: str) -> None:
        """Tell the subscribers of `topic` now."""
        for callback in self._subscribers.get(topic, ()):
            callback()

    async def run(self) -> None:
        """Poll until cancelled."""
        reachable = True
        while True:
            try:
                await self.poll()
            except Unavailable:
                if reachable:
                    log.warning("the database is away: changes made elsewhere are seen once it is back")
                reachable = False
            else:
                reachable = True
            await asyncio.sleep(self._interval)

    async def poll(self) -> None:
        """Look once. The first look only takes note, unless something was cached before it: tell all then."""
        async with self._database.read() as session:
            counters = await changes.counters(session)
        seen = self._seen
        self._seen = counters
        for topic in self._subscribers:
            if seen is None or counters.get(topic) != seen.get(topic):
                self.changed(topic)
