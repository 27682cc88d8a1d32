from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from indigo.features.models.catalog import Catalog, EndpointSpec, ModelSpec, ProviderSpec
from indigo.features.models.health import AT_ONCE, Checked, HealthProbes
from indigo.features.models.probe import HttpProbe
from indigo.features.models.routing_table import RoutingTable
from indigo.gateway.endpoints import Endpoint
from indigo.kernel.clock import SystemClock
from indigo.kernel.tasks import Tasks
from tests.features.models.upstream import Upstream, serving
from tests.support.waiting import until


class Watched:
    """Probes over a table of one provider, and what they reported."""

    def __init__(self, tasks: Tasks, *urls: str, lists: bool = False, seconds: float = 0.05) -> None:
        self.table = RoutingTable()
        self.reported: list[tuple[str, bool, str]] = []
        models = () if lists else (ModelSpec("m", "m"),)
        specs = tuple(EndpointSpec(url, headers=(("Authorization", "Bearer s3cret"),)) for url in urls)
        self.table.update(Catalog((ProviderSpec("p", specs, models, lists=lists),)), {})
        self.listings = 0
        self.probes = HealthProbes(
            table=self.table,
            probe=HttpProbe(),
            clock=SystemClock(),
            tasks=tasks,
            seconds=seconds,
            changed=self._changed,
            listed=self._listed,
        )
        tasks.start(self.probes.run(), "probes")

    async def _changed(self, checked: Checked) -> None:
        self.reported.append((checked.endpoint.id, checked.endpoint.probed_healthy, checked.error))

    async def _listed(self) -> None:
        self.listings += 1

    @property
    def endpoint(self) -> Endpoint:
        return self.table.endpoints()[0]


@asynccontextmanager
async def running() -> AsyncGenerator[Tasks]:
    tasks = Tasks()
    try:
        yield tasks
    finally:
        await tasks.cancel()


@pytest.mark.promise("P51")
async def test_an_endpoint_is_unhealthy_after_two_failures_in_a_row_and_healthy_after_one_success() -> None:
    async with serving(Upstream({"/health": (503, b"")})) as it, running() as tasks:
        watched = Watched(tasks, it.url)
        await until(lambda: not watched.endpoint.probed_healthy)
        assert watched.probes.checked(watched.endpoint).failures >= 2
        assert len(it.requests) >= 2
        it.answers["/health"] = (200, b"")
        await until(lambda: watched.endpoint.probed_healthy)
        assert watched.probes.checked(watched.endpoint).latency_ms is not None
    states = [(healthy, error) for _, healthy, error in watched.reported]
    assert states == [
        (True, "/health answered 503"),
        (False, "/health answered 503"),
        (True, ""),
    ]


async def test_one_failure_alone_changes_nothing() -> None:
    async with serving(Upstream({"/health": (500, b"")})) as it, running() as tasks:
        watched = Watched(tasks, it.url, seconds=30)
        await watched.probes.check_all()
        assert watched.endpoint.probed_healthy
        assert watched.probes.checked(watched.endpoint).failures == 1


@pytest.mark.promise("P51")
async def test_a_server_without_a_health_page_is_judged_by_its_list_of_models() -> None:
    async with serving() as it, running() as tasks:
        it.lists("m")
        watched = Watched(tasks, it.url)
        await until(lambda: len(it.requests) >= 3)
        assert watched.endpoint.probed_healthy
    assert it.paths()[:2] == ["/health", "/v1/models"]
    assert it.paths().count("/health") == 1


@pytest.mark.threat("F19")
async def test_a_server_that_refuses_our_credentials_is_unhealthy() -> None:
    async with serving(Upstream({"/v1/models": (401, b"")})) as it, running() as tasks:
        watched = Watched(tasks, it.url)
        await until(lambda: not watched.endpoint.probed_healthy)
        assert watched.probes.checked(watched.endpoint).error == "it refuses our credentials (401)"


async def test_a_dead_server_is_found_dead_and_found_again() -> None:
    async with serving() as it:
        pass
    async with running() as tasks:
        watched = Watched(tasks, it.url)
        await until(lambda: not watched.endpoint.probed_healthy)
        async with serving(Upstream({"/health": (200, b"")}), port=it.port):
            await until(lambda: watched.endpoint.probed_healthy)


@pytest.mark.promise("P51")
async def test_a_model_that_an_endpoint_no_longer_lists_is_not_asked_there() -> None:
    async with serving() as one, serving() as two, running() as tasks:
        one.lists("m", "n")
        two.lists("m")
        watched = Watched(tasks, one.url, two.url, lists=True)

        def places(model: str) -> int:
            entry = watched.table.entry(model)
            return len(entry.targets) if entry is not None else 0

        await until(lambda: places("m") == 2 and places("n") == 1)
        one.lists("n")
        await until(lambda: places("m") == 1)
        one.answers["/v1/models"] = (200, b"<html>")
        await until(lambda: not watched.endpoint.probed_healthy)
        assert places("n") == 1
    assert "/health" not in one.paths()
    assert watched.listings == 3


async def test_probes_go_on_forever_each_endpoint_in_its_own_phase_and_few_at_once() -> None:
    async with serving(Upstream(hang=True)) as it, running() as tasks:
        urls = [f"http://127.0.0.1:{it.port}/v{n}" for n in range(AT_ONCE + 5)]
        watched = Watched(tasks, *urls, seconds=0.1)
        check = asyncio.ensure_future(watched.probes.check_all())
        await until(lambda: len(it.requests) >= AT_ONCE)
        assert len(it.requests) == AT_ONCE
        await check
        await until(lambda: len(it.requests) >= 3 * AT_ONCE)


async def test_a_new_endpoint_is_probed_soon_and_a_gone_one_no_longer() -> None:
    async with serving() as one, serving() as two, running() as tasks:
        watched = Watched(tasks, one.url)
        await until(lambda: len(one.requests) >= 1)
        provider = ProviderSpec("p", (EndpointSpec(two.url),), (ModelSpec("m", "m"),))
        watched.table.update(Catalog((provider,)), {})
        await until(lambda: len(two.requests) >= 3)
        seen = len(one.requests)
        await until(lambda: len(two.requests) >= 8)
        assert len(one.requests) <= seen + 1


@pytest.mark.threat("T37")
async def test_what_is_wrong_is_told_without_secrets() -> None:
    async with serving() as it:
        pass
    async with running() as tasks:
        watched = Watched(tasks, it.url)
        await until(lambda: len(watched.reported) == 2)
        assert "s3cret" not in str(watched.reported)
        assert "cannot connect" in watched.reported[0][2]
