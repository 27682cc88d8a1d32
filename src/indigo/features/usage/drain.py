"""The background task that brings what the journal holds into the database, and keeps the spool small.

It reads the segments where it left off, so memory stays flat however long the database is away, and moves on
only after a batch is committed. Beside that it syncs the spool to disk about once a second, deletes segments
nobody needs, and takes over the folders of dead processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from indigo.backends.queue.segment import Segment
from indigo.features.usage import records
from indigo.features.usage.delivery import Delivery
from indigo.features.usage.recovery import Recovery
from indigo.features.usage.sink import UsageJournal
from indigo.gateway.ports import UsageEvent
from indigo.kernel.errors import Unavailable

log = logging.getLogger("indigo.usage")

BATCH = 400
"""Events of one transaction: enough to be quick, few enough not to hold the event loop up."""

SCAN = 4 * BATCH
"""Records looked at for one batch; most are no events."""

DRAIN_SECONDS = 0.2
SYNC_SECONDS = 1.0
ADOPT_SECONDS = 5.0
LONGEST_PAUSE = 5.0


class Drain:
    """Start `run` as a background task; at shutdown `drained`, then cancel it, then `close`."""

    def __init__(self, journal: UsageJournal, delivery: Delivery, recovery: Recovery) -> None:
        self._journal = journal
        self._spool = journal.spool
        self._delivery = delivery
        self._recovery = recovery
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_forever(self._drain, self._pause))
            group.create_task(_forever(self._tidy, lambda: asyncio.sleep(SYNC_SECONDS)))
            group.create_task(_forever(self._recovery.adopt, lambda: asyncio.sleep(ADOPT_SECONDS)))

    async def drained(self) -> None:
        """Wait until all that is in the journal now is in the database. Needs `run` to be running."""
        last = self._spool.current
        end = last.end
        while any(
            segment.done < (end if segment is last else segment.end)
            for segment in self._spool.segments
            if segment.number <= last.number
        ):
            self._moved.clear()
            self._hurry.set()
            await self._moved.wait()

    def close(self) -> None:
        """Let go of the spool: what is not delivered, the next process to start delivers."""
        self._spool.close(delete=self._spool.drained and self._journal.open_count == 0)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):  # not wait_for, which may swallow a cancellation
                await self._hurry.wait()
        except TimeoutError:
            return
        self._hurry.clear()

    async def _drain(self) -> None:
        for segment in list(self._spool.segments):
            while segment.done < segment.end:
                await self._deliver_some(segment)
                self._moved.set()

    async def _deliver_some(self, segment: Segment) -> None:
        events: list[UsageEvent] = []
        offset = segment.done
        for scanned, (after, payload, intact) in enumerate(segment.records(segment.done)):
            if scanned >= SCAN or len(events) >= BATCH:
                break
            event = self._event(payload, intact)
            if event is not None:
                events.append(event)
            offset = after
        await self._delivery.deliver(events)
        segment.finish(offset)

    def _event(self, payload: bytes, intact: bool) -> UsageEvent | None:
        if intact and payload[:1] in (records.OPENED, records.PROGRESSED):
            return None
        try:
            record = records.decode(payload) if intact else None
        except msgspec.DecodeError:
            record = None
        if not isinstance(record, UsageEvent):
            self._delivery.set_aside(payload, "it cannot be read")
            return None
        return record

    async def _tidy(self) -> None:
        """Sync and delete in turn: a segment must not be closed while a thread syncs it."""
        await asyncio.to_thread(self._spool.sync)
        self._spool.write_late()
        self._journal.carry_forward()
        self._spool.release(self._journal.oldest_needed())


async def _forever(step: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[None]]) -> None:
    """Take `step` after `step`; after a failure wait longer and longer, and say so once."""
    failures = 0
    while True:
        try:
            await step()
            failures = 0
        except (Unavailable, OSError) as error:
            failures += 1
            if failures == 1:
                log.warning("usage stays in the journal for now: %s", error)
        except Exception:  # the edge of a task that must not end
            failures += 1
            log.exception("usage stays in the journal for now")
        if failures:
            await asyncio.sleep(min(0.1 * 2**failures, LONGEST_PAUSE))
        else:
            await pause()
