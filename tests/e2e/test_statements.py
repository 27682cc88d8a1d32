"""A warm request asks the database nothing: counted on a server in this process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2

from indigo.backends.sql.database import Database
from indigo.engines.launch import launch
from indigo.features.models.catalog import from_offer
from indigo.kernel.clock import SystemClock
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from indigo.processes import server
from indigo.processes.storage import prepare
from indigo.processes.wiring import Parts
from tests.support.waiting import until

LOOK = "SELECT change_counters."
BACKGROUND = (LOOK, "INSERT INTO usage_events", "UPDATE api_keys SET last_used_at")
"""What the server does on its own: usage in batches, when a key was used, the look for changes made elsewhere."""


async def test_a_warm_request_sends_no_statement(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0, engine="mock", database_url=database_url, grant_seconds=60.0)
    database = await Database.open(database_url)
    clock, tasks = SystemClock(), Tasks()
    first = await prepare(database, settings, clock)
    assert first is not None
    engines = await launch(settings, tasks, clock)
    ready: asyncio.Future[Parts] = asyncio.get_running_loop().create_future()
    listener = server.listen(settings)

    async def announce(port: int, parts: Parts) -> None:
        ready.set_result(parts)

    offers = [from_offer(offer) for offer in engines.offers]
    restore = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn sends itself what it was sent
    serving = asyncio.ensure_future(server.run(settings, database, clock, listener, offers, announce))
    try:
        parts = await asyncio.wait_for(ready, 10)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {first.project_key}"}) as client:
            with database.counting() as before:  # the first look for changes forgets what was remembered before it
                await until(lambda: any(one.startswith(LOOK) for one in before.sent))
            await _ask(client, url, 1)
            await parts.drain.drained()
            with database.counting() as statements:
                await _ask(client, url, 300)
                await parts.drain.drained()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 20)
        signal.signal(signal.SIGTERM, restore)
        await engines.stop()
        await tasks.cancel()
    async with database.read() as session:
        connection = await session.connection()
        stored = (await connection.exec_driver_sql("SELECT count(*) FROM usage_events")).scalar_one()
    await database.close()
    listener.close()
    assert stored == 301
    others = [one for one in statements.sent if not one.startswith(BACKGROUND)]
    assert others == []
    assert len(statements.sent) < 100, "usage goes in batches"


async def _ask(client: httpx2.AsyncClient, url: str, times: int) -> None:
    asked = {"model": "mock", "messages": [{"role": "user", "content": "Hello!"}]}
    answers = await asyncio.gather(*(client.post(url, json=asked) for _ in range(times)))
    assert {answer.status_code for answer in answers} == {200}
