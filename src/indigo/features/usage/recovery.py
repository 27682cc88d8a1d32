"""Delivers the journals that dead processes left: what was closed, and what was open as interrupted.

Any process may do it, at its start and from time to time; a folder's lock lets one do it at a time. Being
killed on the way is harmless: the next one starts the folder over, and every event is stored once.
"""

from __future__ import annotations

import logging

import msgspec

from indigo.backends.queue.spool import Orphan, Spool
from indigo.features.usage import records
from indigo.features.usage.delivery import Delivery
from indigo.gateway.ports import Admission, Progress, UsageEvent

log = logging.getLogger("indigo.usage")

BATCH = 256


class Recovery:
    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self._spool = spool
        self._delivery = delivery

    async def adopt(self) -> int:
        """Deal with every orphaned folder there is; returns how many. Raises Unavailable or OSError."""
        adopted = 0
        for orphan in self._spool.orphans():
            finished = False
            try:
                await self._deliver(orphan)
                finished = True
            finally:
                orphan.close(delete=finished)
            adopted += 1
        return adopted

    async def _deliver(self, orphan: Orphan) -> None:
        opened: dict[str, tuple[Admission, Progress | None]] = {}
        batch: list[UsageEvent] = []
        for payload, intact, done in orphan.records():
            event = self._read(payload, intact, done, opened)
            if event is not None and not done:
                batch.append(event)
            if len(batch) >= BATCH:
                await self._delivery.deliver(batch)
                batch.clear()
        await self._delivery.deliver(batch)
        left = [records.interrupted(admission, progress) for admission, progress in opened.values()]
        for start in range(0, len(left), BATCH):
            await self._delivery.deliver(left[start : start + BATCH])
        log.info("took over the usage journal %s: %d requests were interrupted", orphan.folder.name, len(left))

    def _read(
        self, payload: bytes, intact: bool, done: bool, opened: dict[str, tuple[Admission, Progress | None]]
    ) -> UsageEvent | None:
        """The event, if the record is one; others are noted in `opened`."""
        try:
            record = records.decode(payload) if intact else None
        except msgspec.DecodeError:
            record = None
        match record:
            case None:
                if not done:
                    self._delivery.set_aside(payload, "it cannot be read")
            case Admission():
                opened[record.id] = (record, opened.get(record.id, (record, None))[1])
            case Progress():
                if record.id in opened:
                    opened[record.id] = (opened[record.id][0], record)
            case UsageEvent():
                opened.pop(record.id, None)
                return record
        return None
