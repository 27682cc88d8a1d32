"""Several server processes that share one port: started, watched, started again when one dies, ended together.

Engines run in the parent; each worker is told what they offer, and the listening socket, on standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from indigo.features.models.catalog import ProviderSpec
from indigo.kernel import logs, settings
from indigo.kernel.clock import SystemClock
from indigo.kernel.settings import Settings
from indigo.processes import server
from indigo.processes.storage import open_database
from indigo.processes.wiring import Parts

log = logging.getLogger("indigo.workers")

RESTART_SECONDS = 1.0


class Ready(msgspec.Struct, frozen=True):
    """What a worker says on its standard output, one line, once it listens."""

    models: list[str]


class Start(msgspec.Struct, frozen=True):
    """What a worker reads from its standard input. It holds secrets, so it is never an argument."""

    listener: int
    offers: list[ProviderSpec]


async def run(
    settings: Settings,
    listener: socket.socket,
    offers: Sequence[ProviderSpec],
    ready: Callable[[int, list[str]], Awaitable[None]],
) -> None:
    """Returns after SIGTERM or SIGINT, once every worker has ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    start = msgspec.json.encode(Start(listener.fileno(), list(offers)))
    started: list[asyncio.Future[list[str]]] = [loop.create_future() for _ in range(settings.workers)]
    async with asyncio.TaskGroup() as group:
        for number in range(settings.workers):
            group.create_task(_keep(number, settings, listener, start, stop, started[number]))
        stopped = asyncio.ensure_future(stop.wait())
        all_started = asyncio.gather(*started)
        await asyncio.wait([all_started, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await ready(listener.getsockname()[1], all_started.result()[0])
        await stopped
        all_started.cancel()


async def _keep(
    number: int,
    settings: Settings,
    listener: socket.socket,
    start: bytes,
    stop: asyncio.Event,
    started: asyncio.Future[list[str]],
) -> None:
    """One worker's place: whoever dies in it is replaced."""
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "indigo.processes.workers",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment(settings),
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(start)
        process.stdin.close()
        line = await process.stdout.readline()
        if line and not started.done():
            started.set_result(msgspec.json.decode(line, type=Ready).models)
        stopping = asyncio.ensure_future(stop.wait())
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await ended
            return
        log.warning("worker %d ended with status %s; another takes its place", number, process.returncode)
        await asyncio.sleep(RESTART_SECONDS)


def environment(chosen: Settings) -> dict[str, str]:
    """The environment in which a worker comes to the same settings as its parent."""
    values = {field.metadata["env"]: str(getattr(chosen, field.name)) for field in settings.fields()}
    return {**os.environ, **values}


async def _work() -> None:
    start = msgspec.json.decode(sys.stdin.buffer.read(), type=Start)
    chosen = settings.load()
    lines = logs.start(chosen.log_level, chosen.log_format)
    listener = socket.socket(fileno=start.listener)
    database = await open_database(chosen)

    async def ready(port: int, parts: Parts) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(Ready(parts.models.ids())) + b"\n")
        sys.stdout.flush()

    try:
        await server.run(chosen, database, SystemClock(), listener, start.offers, ready)
    finally:
        await database.close()
        lines.stop()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_work())
