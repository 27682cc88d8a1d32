"""`indigo serve`: database, engines and one or several server processes on one machine, with nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass

from indigo.engines.launch import Engines, launch
from indigo.features.keys.first_start import FirstStart
from indigo.features.models.catalog import from_offer
from indigo.kernel import logs
from indigo.kernel.clock import Clock, SystemClock
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks
from indigo.processes import banner, server, workers
from indigo.processes.storage import data_folder, open_database, prepare
from indigo.processes.wiring import Parts

LOADING_SECONDS = 10.0
"""How long the announcement waits for the engines; a large model goes on loading, and `/readyz` says so."""


async def run(settings: Settings) -> None:
    """Returns after a signal, when everything has ended in good order. Raises IndigoError for a bad start."""
    logging = logs.start(settings.log_level, settings.log_format)
    try:
        with data_folder(settings):
            await _run(settings, SystemClock())
    finally:
        logging.stop()


async def _run(settings: Settings, clock: Clock) -> None:
    if settings.workers < 1:
        raise InvalidRequest("INDIGO_WORKERS must be at least 1.", code="invalid_setting")
    listener = server.listen(settings)
    tasks = Tasks()
    database = await open_database(settings)
    engines: Engines | None = None
    try:
        first = await prepare(database, settings, clock)
        engines = await launch(settings, tasks, clock)
        offers = [from_offer(offer) for offer in engines.offers]
        announcement = Announcement(settings, database.location, engines, first)
        if settings.workers == 1:
            await server.run(settings, database, clock, listener, offers, announcement.show)
        else:
            await workers.run(settings, listener, offers, announcement.show_many)
    finally:
        if engines is not None:
            await engines.stop()
        await tasks.cancel()
        await database.close()
        listener.close()


@dataclass(frozen=True, slots=True)
class Announcement:
    settings: Settings
    database: str
    engines: Engines
    first: FirstStart | None

    async def show(self, port: int, parts: Parts) -> None:
        """To be called once the server listens."""
        self.engines.on_ready = lambda offer: parts.models.revived(offer.base_url)
        await self.engines.wait_ready(LOADING_SECONDS)
        await parts.models.probe_now()
        self._print(port, parts.models.ids())

    async def show_many(self, port: int, models: list[str]) -> None:
        """The same for several processes; `models` is what one of them offers."""
        await self.engines.wait_ready(LOADING_SECONDS)
        self._print(port, models)

    def _print(self, port: int, models: list[str]) -> None:
        notices = [*self.engines.notices]
        notices += [state.reason for state in self.engines.states() if state.state == "failed"]
        banner.show(self.settings, port, database=self.database, models=models, notices=notices, first=self.first)
