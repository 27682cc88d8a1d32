"""The gateway's ports held in memory, and a running server around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import uvicorn

from indigo.gateway import operations
from indigo.gateway.admit import Capacity
from indigo.gateway.authenticate import unknown_key
from indigo.gateway.endpoints import Endpoint, parse_address
from indigo.gateway.forward import Forwarder
from indigo.gateway.metrics import Metrics
from indigo.gateway.outbox import Outbox
from indigo.gateway.pipeline import Pipeline
from indigo.gateway.ports import Admission, Grant, ModelEntry, Price, Progress, Target, UsageEvent
from indigo.gateway.record import Accounts
from indigo.gateway.server import Gateway, Patience
from indigo.gateway.sweeper import Sweeper
from indigo.kernel import api_keys

KEY = api_keys.mint("project")


class MemoryGrants:
    """Keys in a dict; what `slow` holds is known to the database only."""

    def __init__(self) -> None:
        grant = Grant(key_id="key_1", kind="project", org_id="org_1", project_id="proj_1")
        self.live: dict[bytes, Grant] = {api_keys.digest(KEY.encode()): grant}
        self.slow: dict[bytes, Grant] = {}
        self.failure: Exception | None = None
        self.finds = 0

    def cached(self, digest: bytes) -> Grant | None:
        return self.live.get(digest)

    async def find(self, digest: bytes) -> Grant:
        self.finds += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if digest not in self.slow:
            raise unknown_key()
        return self.slow[digest]


class MemoryRoutes:
    def __init__(self) -> None:
        self.models: dict[str, ModelEntry] = {}

    def entry(self, model: str) -> ModelEntry | None:
        return self.models.get(model)

    def entries(self) -> Sequence[ModelEntry]:
        return sorted(self.models.values(), key=lambda entry: entry.id)


class MemorySink:
    def __init__(self) -> None:
        self.opens: list[Admission] = []
        self.events: list[UsageEvent] = []
        self.progress: list[Progress] = []
        self.failure: Exception | None = None

    def opened(self, admission: Admission) -> None:
        if self.failure is not None:
            raise self.failure
        self.opens.append(admission)

    def progressed(self, progress: Progress) -> None:
        self.progress.append(progress)

    def closed(self, event: UsageEvent) -> None:
        self.events.append(event)


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that knows no route."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class World:
    """A gateway with everything it needs, listening on loopback."""

    def __init__(self, *, app: Any = no_app, max_body: int = 20 * 1024 * 1024, patience: Patience | None = None,
                 first_byte: float = 30.0, idle: float = 30.0, most: int = 10_000) -> None:  # fmt: skip
        self.grants = MemoryGrants()
        self.routes = MemoryRoutes()
        self.sink = MemorySink()
        self.limits = Capacity(most)
        self.metrics = Metrics()
        self.sweeper = Sweeper()
        self.accounts = Accounts(self.limits, self.sink, self.metrics)
        outbox = Outbox(asyncio.get_running_loop())
        self.forwarder = Forwarder(
            self.routes, self.sweeper, outbox, connect_seconds=2.0, first_byte_seconds=first_byte, idle_seconds=idle,
            max_connections=10_000,
        )  # fmt: skip
        self.gateway = Gateway(
            grants=self.grants, pipeline=Pipeline(self.routes, self.accounts, self.forwarder),
            accounts=self.accounts, sweeper=self.sweeper, metrics=self.metrics, outbox=outbox, max_body=max_body,
            patience=patience or Patience(),
        )  # fmt: skip
        self.app = app
        self.port = 0

    def model(
        self, id: str, *urls: str, headers: tuple[tuple[str, str], ...] = (), price: Price | None = None,
        served: str | None = None, fallbacks: tuple[str, ...] = (), ops: frozenset[str] = operations.ALL,
    ) -> list[Endpoint]:  # fmt: skip
        """Offer a model at `urls`; returns its endpoints."""
        endpoints = [
            Endpoint(id=f"ep_{id}_{number}", provider="test", address=parse_address(url), headers=headers)
            for number, url in enumerate(urls)
        ]
        targets = tuple(Target(endpoint, served or id) for endpoint in endpoints)
        self.routes.models[id] = ModelEntry(
            id=id, operations=ops, targets=targets, price=price or Price(), fallbacks=fallbacks
        )
        return endpoints

    @contextlib.asynccontextmanager
    async def serving(self, *, drain: int = 2) -> AsyncGenerator[World]:
        config = uvicorn.Config(
            self.app, http=self.gateway.protocol(), ws="none", loop="none", log_config=None, access_log=False,
            lifespan="off", server_header=False, timeout_graceful_shutdown=drain, port=0,
        )  # fmt: skip
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        task = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.005)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self.gateway.start(server.server_state.connections)
        self.server = server
        try:
            yield self
        finally:
            server.should_exit = True
            await task
            self.gateway.stop()
