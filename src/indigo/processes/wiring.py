"""Where the parts meet: builds every adapter from the settings, once, by hand. The one place that knows all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from indigo import VERSION
from indigo.backends.notices.poll import ChangeNotices
from indigo.backends.queue.spool import Spool
from indigo.backends.sql.database import Database
from indigo.features.keys.directory import KeyDirectory
from indigo.features.keys.service import Keys
from indigo.features.models.catalog import ProviderSpec, listing_provider
from indigo.features.models.discovery import Kubernetes
from indigo.features.models.probe import HttpProbe
from indigo.features.models.routing_table import RoutingTable
from indigo.features.models.service import Models
from indigo.features.tenancy.service import TOPIC as ACCESS
from indigo.features.tenancy.service import Tenancy
from indigo.features.usage.delivery import Delivery
from indigo.features.usage.drain import Drain
from indigo.features.usage.recovery import Recovery
from indigo.features.usage.sink import UsageJournal
from indigo.gateway.admit import Capacity
from indigo.gateway.endpoints import Endpoint
from indigo.gateway.forward import Forwarder
from indigo.gateway.metrics import Metrics
from indigo.gateway.outbox import Outbox
from indigo.gateway.pipeline import Pipeline
from indigo.gateway.ports import Grants, Routes
from indigo.gateway.record import Accounts
from indigo.gateway.server import Gateway, Patience
from indigo.gateway.sweeper import Sweeper
from indigo.gateway.upstream.pool import Pool
from indigo.kernel.clock import Clock
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from indigo.processes.exposition import GatewayCollector
from indigo.web.app import make_app
from indigo.web.health import Check


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server process runs and, at its end, closes."""

    app: FastAPI
    gateway: Gateway
    models: Models
    drain: Drain
    notices: ChangeNotices
    status: ServerStatus


class ServerStatus:
    """What may change while the server runs and is asked for by `/readyz`."""

    draining = False


def build(settings: Settings, database: Database, clock: Clock, tasks: Tasks) -> Parts:
    """Everything a server process needs, not yet started. Call it within the running event loop."""
    tenancy = Tenancy(clock)
    keys = Keys(tenancy, clock)
    directory = KeyDirectory(database, clock, tasks, grant_seconds=settings.grant_seconds)
    notices = ChangeNotices(database)
    notices.subscribe(ACCESS, directory.clear)

    spool = Spool(settings.data_dir / "spool", max_bytes=settings.spool_max_bytes // settings.workers)
    journal = UsageJournal(spool)
    delivery = Delivery(database, keys, settings.data_dir / "spool" / "poison")
    drain = Drain(journal, delivery, Recovery(spool, delivery))

    sweeper = Sweeper()
    table = RoutingTable(dropped=lambda endpoint: _forget(endpoint, sweeper))
    models = Models(
        database=database,
        table=table,
        probe=HttpProbe(),
        clock=clock,
        tasks=tasks,
        environ=os.environ,
        probe_seconds=settings.probe_seconds,
        file=Path(settings.providers_file) if settings.providers_file else None,
        standing=_standing(settings),
        kubernetes=Kubernetes.from_environ(os.environ),
    )
    metrics, capacity = Metrics(), Capacity(settings.max_requests)
    accounts = Accounts(capacity, journal, metrics)
    gateway = _gateway(settings, directory, table, accounts, sweeper)
    status = ServerStatus()
    registry = CollectorRegistry()
    registry.register(GatewayCollector(metrics, capacity, spool, models))
    app = make_app(
        version=VERSION,
        started_at=clock.now(),
        grants=directory,
        routes=table,
        model_created=models.created,
        checks=_checks(database, spool, models),
        draining=lambda: status.draining,
        registry=registry,
        enable_swagger=settings.enable_swagger,
    )
    return Parts(app=app, gateway=gateway, models=models, drain=drain, notices=notices, status=status)


def _gateway(settings: Settings, grants: Grants, routes: Routes, accounts: Accounts, sweeper: Sweeper) -> Gateway:
    outbox = Outbox(asyncio.get_running_loop())
    forwarder = Forwarder(
        routes,
        sweeper,
        outbox,
        connect_seconds=settings.connect_seconds,
        first_byte_seconds=settings.first_byte_seconds,
        idle_seconds=settings.idle_seconds,
        max_connections=settings.max_upstream_connections,
    )
    return Gateway(
        grants=grants,
        pipeline=Pipeline(routes, accounts, forwarder),
        accounts=accounts,
        sweeper=sweeper,
        metrics=accounts.metrics,
        outbox=outbox,
        max_body=settings.max_body_bytes,
        patience=Patience(
            head=settings.header_seconds,
            body=settings.body_seconds,
            keep_alive=settings.keep_alive_seconds,
            stalled=settings.stalled_client_seconds,
        ),
    )


def _standing(settings: Settings) -> Sequence[ProviderSpec]:
    """Providers that a setting names."""
    if not settings.inference_url:
        return ()
    return (listing_provider("inference", settings.inference_url),)


def _forget(endpoint: Endpoint, sweeper: Sweeper) -> None:
    """An endpoint is routed to no more: its idle connections close now, the busy ones at their call's end."""
    pool = endpoint.pool
    if isinstance(pool, Pool):
        sweeper.forget_pool(pool)
        pool.close()


def _checks(database: Database, spool: Spool, models: Models) -> list[Check]:
    async def database_answers() -> str | None:
        await database.ping()
        return None

    async def spool_has_room() -> str | None:
        return (
            None if spool.has_room() else "The usage spool is full: is the database away? See INDIGO_SPOOL_MAX_BYTES."
        )

    async def a_model_is_healthy() -> str | None:
        return None if models.ready() else "No model can be asked at the moment; see 'indigo models'."

    return [("database", database_answers), ("spool", spool_has_room), ("models", a_model_is_healthy)]
