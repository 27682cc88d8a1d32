"""Plain HTTP to an engine, over its unix socket or port."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from indigo.engines.supervisor import Child, EngineState, Supervisor, Timing
from indigo.kernel.clock import SystemClock
from indigo.kernel.tasks import Tasks

QUICK = Timing(check=0.05, answer=0.3, failures=2, back_off=0.05)


def exchange(base_url: str, path: str, body: Any = None) -> tuple[int, str]:
    """One request, in this thread; status and text of the answer."""
    connection = http.client.HTTPConnection("localhost", timeout=20)
    if base_url.startswith("unix:"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(base_url[5:])
    else:
        host, _, port = base_url.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        encoded = None if body is None else json.dumps(body)
        method = "GET" if body is None else "POST"
        connection.request(method, path, encoded, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def ask(base_url: str, path: str, body: Any = None) -> tuple[int, Any]:
    status, text = await asyncio.to_thread(exchange, base_url, path, body)
    return status, json.loads(text)


@asynccontextmanager
async def supervised(child: Child, timing: Timing = QUICK) -> AsyncGenerator[Supervisor]:
    tasks = Tasks()
    supervisor = Supervisor(child, tasks, SystemClock(), timing)
    supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()
        await tasks.cancel()


async def until(supervisor: Supervisor, wanted: Callable[[EngineState], bool]) -> EngineState:
    async with asyncio.timeout(15):
        while not wanted(supervisor.state):
            await asyncio.sleep(0.01)
    return supervisor.state
