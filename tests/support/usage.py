"""Usage records for tests, and a journal with its delivery as a process wires them."""

from __future__ import annotations

from pathlib import Path

from indigo.backends.queue.spool import Spool
from indigo.backends.sql.database import Database
from indigo.features.keys.service import Keys
from indigo.features.tenancy.service import Tenancy
from indigo.features.usage.delivery import Delivery
from indigo.features.usage.drain import Drain
from indigo.features.usage.recovery import Recovery
from indigo.features.usage.sink import UsageJournal
from indigo.gateway.ports import Admission, Price, UsageEvent
from indigo.kernel.clock import SystemClock
from indigo.kernel.tasks import Tasks

PRICE = Price(input=1_000_000, output=2_000_000, request=7)


def admission(id: str, **other: object) -> Admission:
    values: dict[str, object] = {
        "id": id,
        "request_id": f"req_{id}",
        "started_at": 1_800_000_000.0,
        "org_id": "org_a",
        "project_id": "proj_a",
        "key_id": "key_a",
        "user_id": None,
        "operation": "chat.completions",
        "model": "demo",
        "stream": True,
        "prompt_tokens": 10,
        "price": PRICE,
    }
    return Admission(**(values | other))  # pyright: ignore[reportArgumentType]


def event(id: str, **other: object) -> UsageEvent:
    values: dict[str, object] = {
        "id": id,
        "request_id": f"req_{id}",
        "started_at": 1_800_000_000.0,
        "org_id": "org_a",
        "project_id": "proj_a",
        "key_id": "key_a",
        "user_id": None,
        "operation": "chat.completions",
        "model": "demo",
        "stream": True,
        "provider": "local",
        "endpoint": "local/0",
        "served_name": "demo",
        "status": 200,
        "outcome": "completed",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 1,
        "reasoning_tokens": 2,
        "estimated": False,
        "cost_micros": 27,
        "first_byte_us": 1_000,
        "latency_us": 9_000,
        "attempts": 1,
    }
    return UsageEvent(**(values | other))  # pyright: ignore[reportArgumentType]


class Books:
    """One process's journal and the task that brings it into the database."""

    def __init__(
        self, database: Database, root: Path, *, max_bytes: int = 1 << 26, segment_bytes: int = 1 << 18
    ) -> None:
        keys = Keys(Tenancy(SystemClock()), SystemClock())
        self.spool = Spool(root, max_bytes=max_bytes, segment_bytes=segment_bytes)
        self.journal = UsageJournal(self.spool)
        self.delivery = Delivery(database, keys, root / "poison")
        self.recovery = Recovery(self.spool, self.delivery)
        self.drain = Drain(self.journal, self.delivery, self.recovery)
        self._tasks = Tasks()

    def start(self) -> None:
        self._tasks.start(self.drain.run(), name="usage")

    async def stop(self) -> None:
        await self._tasks.cancel()
        self.drain.close()

    def record(self, id: str, **other: object) -> None:
        """A whole request."""
        self.journal.opened(admission(id))
        self.journal.closed(event(id, **other))
