"""The gateway's `UsageSink` port: every admission, progress and end goes into the spool, in memory's time.

It knows which requests are open, so that room for their ends is set aside, and so that their admissions are
carried forward out of segments that could otherwise not be deleted. Delivery is `drain.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from indigo.backends.queue.spool import Spool
from indigo.features.usage import records
from indigo.gateway.ports import Admission, Progress, UsageEvent

MORE_AT_THE_END = 1024
"""Bytes that an end may be larger than its admission: provider, endpoint, served name and figures."""

CARRY_AFTER = 2
"""Segments an admission may fall behind before it is carried forward."""


@dataclass(slots=True)
class _Open:
    payload: bytes
    segment: int
    reserved: int
    progress: bytes | None = None


class UsageJournal:
    """Implements `gateway.ports.UsageSink` over one spool."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._open: dict[str, _Open] = {}

    @property
    def open_count(self) -> int:
        return len(self._open)

    def opened(self, admission: Admission) -> None:
        payload = records.opened(admission)
        reserved = len(payload) + MORE_AT_THE_END
        segment = self.spool.append(payload, reserved)
        self._open[admission.id] = _Open(payload, segment, reserved)

    def progressed(self, progress: Progress) -> None:
        """Left out when the spool is full: it only makes an estimate better."""
        entry = self._open.get(progress.id)
        payload = records.progressed(progress)
        if entry is not None and self.spool.append_spare(payload):
            entry.progress = payload

    def closed(self, event: UsageEvent) -> None:
        entry = self._open.pop(event.id, None)
        self.spool.append_reserved(records.closed(event), 0 if entry is None else entry.reserved)

    def oldest_needed(self) -> int:
        """The number of the first segment that a still open request needs, else the current one's.

        Admissions stand in the order of their segments, since those carried forward go to the end.
        """
        for entry in self._open.values():
            return entry.segment
        return self.spool.current.number

    def carry_forward(self) -> None:
        """Write the admissions of old segments again, as far as there is room, so that those can go."""
        behind = self.spool.current.number - CARRY_AFTER
        for id in [id for id, entry in self._open.items() if entry.segment < behind]:
            entry = self._open[id]
            if not self.spool.append_spare(entry.payload):
                return
            if entry.progress is not None:
                self.spool.append_spare(entry.progress)
            entry.segment = self.spool.current.number
            self._open[id] = self._open.pop(id)
