"""`indigo serve`: database, engines and one or several server processes, on one machine, nothing beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from indigo.engines.launch import Engines, launch
from indigo.features.keys.first_start import FirstStart
from indigo.features.models.catalog import ProviderSpec, from_offer
from indigo.kernel import logs
from indigo.kernel.clock import Clock, SystemClock
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from indigo.processes import banner, server, workers
from indigo.processes.storage import database_url, open_database, prepare
from indigo.processes.wiring import Parts

log = logging.getLogger("indigo.server")

LOADING_SECONDS = 10.0
"""How long the announcement waits for the engines; a large model goes on loading, and `/readyz` says so."""


async def run(settings: Settings) -> None:
    """Returns after a signal, when everything has ended in good order. Raises IndigoError for a bad start."""
    logging_queue = logs.start(settings.log_level, settings.log_format)
    try:
        await _run(settings, SystemClock())
    finally:
        logging_queue.stop()


async def _run(settings: Settings, clock: Clock) -> None:
    listener = server.listen(settings)
    database = await open_database(settings)
    tasks = Tasks()
    engines: Engines | None = None
    try:
        first = await prepare(database, settings, clock)
        engines = await launch(settings, tasks, clock)
        offers = [from_offer(offer) for offer in engines.offers]
        await engines.wait_ready(LOADING_SECONDS)
        await _serve(settings, database_and_listener := (database, listener), clock, offers, engines, first)
    finally:
        if engines is not None:
            await engines.stop()
        await tasks.cancel()
        await database.close()
        listener.close()
