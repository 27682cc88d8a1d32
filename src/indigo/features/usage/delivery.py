"""Puts usage events into the database, and sets aside what it will never take.

A batch is one transaction. An event that the database refuses for what it is (not because the database is
away) goes with its bytes into a file of the poison folder, so that the events behind it are not held up.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from indigo.backends.sql.database import Database
from indigo.features.keys.service import Keys
from indigo.features.usage import records, store
from indigo.gateway.ports import UsageEvent

log = logging.getLogger("indigo.usage")


class Delivery:
    def __init__(self, database: Database, keys: Keys, poison: Path) -> None:
        self._database = database
        self._keys = keys
        self._poison = poison

    async def deliver(self, events: Sequence[UsageEvent]) -> None:
        """Store all, each once. Raises Unavailable when the database is away: then deliver all again."""
        if not events:
            return
        try:
            await self._store(events)
        except (SQLAlchemyError, ValueError, OverflowError):
            for event in events:
                await self._store_alone(event)

    def set_aside(self, payload: bytes, reason: str) -> None:
        """Keep a record that cannot be delivered, for a person to look at; the same one makes the same file.

        Raises OSError on a full disk.
        """
        self._poison.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._poison / f"{hashlib.sha256(payload).hexdigest()[:32]}.bin"
        path.write_bytes(payload)
        log.error("set a usage record of %d bytes aside in %s: %s", len(payload), path, reason)

    async def _store(self, events: Sequence[UsageEvent]) -> None:
        used: dict[str, float] = {}
        for event in events:
            used[event.key_id] = max(used.get(event.key_id, 0.0), event.started_at)
        async with self._database.write() as session:
            await store.add(session, events)
            await self._keys.used(session, used)

    async def _store_alone(self, event: UsageEvent) -> None:
        try:
            await self._store([event])
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            self.set_aside(records.closed(event), f"the database refuses it: {type(error).__name__}")
