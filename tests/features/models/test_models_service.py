from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from indigo.backends.sql.database import Database
from indigo.features.models.catalog import EndpointSpec, ModelSpec, ProviderSpec, listing_provider
from indigo.features.models.marked_yaml import ProvidersFileError
from indigo.features.models.probe import HttpProbe
from indigo.features.models.routing_table import RoutingTable
from indigo.features.models.service import Models
from indigo.kernel.clock import SystemClock
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.tasks import Tasks
from tests.features.models.upstream import Upstream, serving
from tests.support.waiting import until

ENVIRON = {"KEY": "s3cret"}


class Server:
    """What one server process has: a table, a registry, its tasks."""

    def __init__(
        self,
        database: Database,
        file: Path | None,
        standing: Iterable[ProviderSpec] = (),
        probe_seconds: float = 0.1,
    ) -> None:
        self.table = RoutingTable()
        self.tasks = Tasks()
        self.models = Models(
            database=database,
            table=self.table,
            probe=HttpProbe(),
            clock=SystemClock(),
            tasks=self.tasks,
            environ=ENVIRON,
            probe_seconds=probe_seconds,
            file=file,
            standing=standing,
            file_seconds=0.02,
            discover_seconds=0.05,
        )

    def hosts(self, model: str) -> list[int]:
        entry = self.table.entry(model)
        return sorted(target.endpoint.address.port for target in entry.targets) if entry else []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "providers.yaml"


@pytest_asyncio.fixture
async def upstream() -> AsyncGenerator[Upstream]:
    async with serving(Upstream({"/health": (200, b"")})) as it:
        yield it


@pytest_asyncio.fixture
async def server(database: Database, file: Path, upstream: Upstream) -> AsyncGenerator[Server]:
    write(file, upstream)
    it = Server(database, file)
    yield it
    await it.tasks.cancel()


def write(file: Path, *upstreams: Upstream, model: str = "m", more: str = "") -> None:
    endpoints = "".join(f"  - base_url: {one.url}\n" for one in upstreams)
    body = (
        f"providers:\n- name: p\n  headers: {{Authorization: 'Bearer ${{KEY}}'}}\n  endpoints:\n{endpoints}"
        f"  models:\n  - {{id: {model}, aliases: [alias], price: {{input: 1}}}}\n{more}"
    )
    fresh = file.with_suffix(".new")
    fresh.write_text(body)
    os.replace(fresh, file)


async def rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    async with database.read() as session:
        return [tuple(row) for row in await session.execute(text(statement))]


@pytest.mark.promise("P50", "P03")
async def test_the_file_is_in_the_registry_and_in_the_list_of_models_after_the_start(
    server: Server, database: Database, upstream: Upstream
) -> None:
    await server.models.start()
    assert server.models.ids() == ["m"]
    assert server.table.owner("m") == "p"
    assert abs(server.models.created("m") - SystemClock().now()) < 60
    assert await rows(database, "SELECT name, kind, source, enabled FROM providers") == [("p", "openai", "file", True)]
    assert await rows(database, "SELECT name, served_name, enabled FROM models") == [("m", "m", True)]
    assert await rows(database, "SELECT url, status FROM model_endpoints") == [
        (f"127.0.0.1:{upstream.port}", "healthy")
    ]
    assert server.models.ready()


@pytest.mark.threat("T37")
async def test_no_secret_is_in_the_database_or_the_status(server: Server, database: Database) -> None:
    await server.models.start()
    (stored,) = (row[0] for row in await rows(database, "SELECT headers FROM providers"))
    assert "Bearer ${KEY}" in str(stored)
    for table in ("providers", "models", "model_endpoints"):
        assert "s3cret" not in str(await rows(database, f"SELECT * FROM {table}"))
    assert "s3cret" not in str(server.models.status())


@pytest.mark.promise("P50")
async def test_a_second_start_changes_nothing_and_what_left_the_file_is_disabled_not_deleted(
    server: Server, database: Database, file: Path, upstream: Upstream
) -> None:
    await server.models.start()
    created = server.models.created("m")
    counter = "SELECT counter FROM change_counters WHERE topic = 'models'"
    before = await rows(database, counter)
    second = Server(database, file)
    await second.models.start()
    assert second.models.created("m") == created
    assert await rows(database, counter) == before
    await second.tasks.cancel()
    await server.tasks.cancel()
    write(file, upstream, model="new")
    third = Server(database, file)
    await third.models.start()
    await third.tasks.cancel()
    assert await rows(database, "SELECT name, enabled FROM models ORDER BY name") == [
        ("m", False),
        ("new", True),
    ]
    file.write_text("providers: []")
    fourth = Server(database, file)
    await fourth.models.start()
    await fourth.tasks.cancel()
    assert await rows(database, "SELECT name, enabled FROM providers") == [("p", False)]
    assert not fourth.models.ready()


async def test_servers_that_start_at_the_same_time_agree(database: Database, file: Path, upstream: Upstream) -> None:
    write(file, upstream)
    servers = [Server(database, file) for _ in range(4)]
    await asyncio.gather(*(one.models.start() for one in servers))
    for one in servers:
        await one.tasks.cancel()
    assert await rows(database, "SELECT count(*) FROM providers") == [(1,)]
    assert len({one.models.created("m") for one in servers}) == 1


@pytest.mark.promise("P50")
async def test_a_bad_file_stops_the_start_with_file_line_and_reason(server: Server, file: Path) -> None:
    file.write_text("providers:\n- nmae: p\n")
    with pytest.raises(ProvidersFileError, match=r"providers\.yaml, line 2: a provider has no 'nmae'"):
        await server.models.start()


@pytest.mark.promise("P51")
async def test_endpoints_that_appear_in_or_vanish_from_the_file_are_picked_up_while_running(
    server: Server, database: Database, file: Path, upstream: Upstream
) -> None:
    await server.models.start()
    (first,) = server.table.endpoints()
    begun = first.begin(0.0)
    async with serving(Upstream({"/health": (200, b"")})) as second:
        write(file, upstream, second)
        await until(lambda: server.hosts("m") == sorted([upstream.port, second.port]))
        assert server.table.endpoints()[0] is first
        write(file, second)
        await until(lambda: server.hosts("m") == [second.port])
        await until(lambda: bool(second.requests))

        async def gone() -> bool:
            found = await rows(database, "SELECT url FROM model_endpoints WHERE status = 'gone'")
            return found == [(f"127.0.0.1:{upstream.port}",)]

        await until(gone)
    first.succeeded(begun, 1.0)
    assert first.in_flight == 0


@pytest.mark.promise("P51")
async def test_a_file_that_goes_bad_while_running_changes_nothing_but_the_status(
    server: Server, file: Path, upstream: Upstream
) -> None:
    await server.models.start()
    good = file.read_text()
    file.write_text("providers: [")
    await until(lambda: "not YAML" in server.models.status().file_error)
    file.unlink()
    await until(lambda: "cannot be read" in server.models.status().file_error)
    assert server.hosts("m") == [upstream.port]
    file.write_text(good)
    await until(lambda: server.models.status().file_error == "")
    write(file, upstream, model="n")
    await until(lambda: server.hosts("n") == [upstream.port])
    assert server.table.entry("m") is None


async def test_what_engines_offer_joins_the_file_and_leaves_again(server: Server, database: Database) -> None:
    offer = ProviderSpec("llama", (EndpointSpec("unix:/nope"),), (ModelSpec("demo", "demo"),), source="engine")
    await server.models.start([offer])
    assert server.models.ids() == ["demo", "m"]
    await server.models.offer([])
    assert server.models.ids() == ["m"]
    assert await rows(database, "SELECT name, source, enabled FROM providers ORDER BY name") == [
        ("llama", "engine", False),
        ("p", "file", True),
    ]
    clash = ProviderSpec("p", (EndpointSpec("unix:/nope"),), source="engine")
    with pytest.raises(InvalidRequest, match="Two providers are named 'p'"):
        await server.models.offer([clash])


@pytest.mark.promise("P51")
async def test_a_provider_known_by_its_url_alone_offers_what_it_lists(database: Database) -> None:
    async with serving() as it:
        it.lists("x", "y")
        server = Server(database, None, [listing_provider("inference", it.url)])
        await server.models.start()
        assert server.models.ids() == ["x", "y"]
        it.lists("y")
        await until(lambda: server.table.entry("x") is None)
        await server.tasks.cancel()
    found = await rows(database, "SELECT name FROM models ORDER BY name")
    assert found == [("x",), ("y",)]


async def test_the_status_tells_how_each_endpoint_is(server: Server, upstream: Upstream) -> None:
    upstream.answers["/health"] = (503, b"")
    await server.models.start()
    await until(lambda: not server.models.ready())
    (status,) = server.models.status().endpoints
    assert (status.provider, status.state, status.models) == ("p", "unhealthy", ("m",))
    assert status.error == "/health answered 503"
    assert status.id == f"p/127.0.0.1:{upstream.port}"
    assert status.checked_at is not None


@pytest.mark.promise("P51")
async def test_a_name_in_dns_is_looked_up_at_the_start(database: Database, file: Path, upstream: Upstream) -> None:
    url = upstream.url.replace("127.0.0.1", "localhost")
    file.write_text(
        f"providers:\n- name: p\n  base_url: {url}\n  discover: dns\n  models: [{{id: m}}]\n"
        "- name: k\n  base_url: http://k\n  discover: kubernetes\n  models: [{id: n}]\n"
    )
    server = Server(database, file)
    await server.models.start()
    assert upstream.port in server.hosts("m")
    assert server.hosts("n") == []
    assert "Kubernetes" in server.models.status().discovery_errors["http://k"]
    await server.tasks.cancel()


async def test_a_request_for_a_model_needs_no_statement(server: Server, database: Database) -> None:
    await server.models.start()
    await server.tasks.cancel()
    with database.counting() as statements:
        assert server.table.entry("alias") is not None
        assert server.models.ids()
    assert statements.count == 0


async def test_a_silent_endpoint_does_not_hold_up_the_start(database: Database, file: Path) -> None:
    async with serving(Upstream(hang=True)) as silent:
        write(file, silent)
        server = Server(database, file, probe_seconds=60.0)
        async with asyncio.timeout(4.0):
            await server.models.start()
        assert server.table.entry("m") is not None
        await server.tasks.cancel()
