"""One server process: the gateway and the management side behind uvicorn, with all that runs beside them."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType

import uvicorn

from indigo.backends.sql.database import Database
from indigo.features.models.catalog import ProviderSpec
from indigo.kernel.clock import Clock
from indigo.kernel.errors import IndigoError, InvalidRequest
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from indigo.processes.wiring import Parts, ServerStatus, build

log = logging.getLogger("indigo.server")

SWITCH_SECONDS = 0.0005
"""How long a thread (of the database, say) may keep the interpreter from the event loop; Python's own is 5 ms."""
FLUSH_SECONDS = 10.0
"""How long the end waits for the database to take the last usage; what is left stays in the spool."""


class Server(uvicorn.Server):
    """uvicorn's, telling `/readyz` at the first signal and `ready` once it listens."""

    def __init__(self, config: uvicorn.Config, status: ServerStatus, ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._status = status
        self._ready = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains, a second one ends at once. Unlike uvicorn's it is not raised again afterwards:
        that would kill the process before the usage is in the database.
        """
        self._status.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            self._ready(sockets[0].getsockname()[1])


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises InvalidRequest where the address is not to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(4096)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(
            f"Cannot listen on {settings.host} port {settings.port}: {reason}. Choose others with --host and --port.",
            code="address_not_available",
        ) from None
    listener.set_inheritable(True)
    listener.setblocking(False)
    return listener


def config(parts: Parts, settings: Settings) -> uvicorn.Config:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise InvalidRequest("TLS needs both INDIGO_TLS_CERT and INDIGO_TLS_KEY.", code="invalid_setting")
    return uvicorn.Config(
        parts.app,
        http=parts.gateway.protocol(),
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )


async def run(
    settings: Settings,
    database: Database,
    clock: Clock,
    listener: socket.socket,
    offers: Sequence[ProviderSpec],
    ready: Callable[[int, Parts], Coroutine[None, None, None]],
) -> None:
    """Serve until told to stop; then let streams end, and bring the usage into the database."""
    sys.setswitchinterval(SWITCH_SECONDS)
    tasks = Tasks()
    parts = build(settings, database, clock, tasks)
    try:
        await parts.models.start(offers)
        tasks.start(parts.notices.run(), "change notices")
        tasks.start(parts.drain.run(), "usage drain")

        def announce(port: int) -> None:
            tasks.start(ready(port, parts), "announcement")

        server = Server(config(parts, settings), parts.status, announce)
        parts.gateway.start(server.server_state.connections)
        await server.serve(sockets=[listener])
        parts.gateway.stop()
        await _flush(parts)
    finally:
        await tasks.cancel()
        parts.drain.close()


async def _flush(parts: Parts) -> None:
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await parts.drain.drained()
    except TimeoutError:
        log.warning("the database is away: the last usage stays in the spool, and is stored at the next start")
    except IndigoError as error:
        log.warning("the last usage stays in the spool: %s", error.message)
