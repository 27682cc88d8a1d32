"""Probes and the version."""

from __future__ import annotations

import httpx2
import pytest

from indigo.kernel.errors import Unavailable
from tests.web.side import Side

pytestmark = pytest.mark.promise("P13")


async def well() -> str | None:
    return None


async def broken() -> str | None:
    raise RuntimeError("password=hunter2")


async def down() -> str | None:
    raise Unavailable("The database does not answer.")


async def test_a_living_process_says_so(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/healthcheck")).text == "ok"


async def test_the_version_and_when_the_environment_was_read(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/version")
    assert answer.json() == {"version": "1.2.3", "env_reloaded_at": "2027-01-15T08:00:00Z"}


async def test_it_is_ready_when_every_check_is_well(side: Side) -> None:
    side.checks = [("database", well), ("spool", well)]
    answer = await side.client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"] == [{"name": "database", "ok": True}, {"name": "spool", "ok": True}]


async def test_it_names_what_is_missing(side: Side) -> None:
    side.checks = [("spool", well), ("database", down)]
    answer = await side.client().get("/readyz")
    assert answer.status_code == 503
    failed = {"name": "database", "ok": False, "detail": "The database does not answer."}
    assert answer.json() == {"ready": False, "checks": [{"name": "spool", "ok": True}, failed]}


async def test_a_check_that_dies_tells_strangers_nothing(side: Side) -> None:
    side.checks = [("database", broken)]
    answer = await side.client().get("/readyz")
    assert answer.status_code == 503
    assert "hunter2" not in answer.text


async def test_it_is_not_ready_as_soon_as_it_drains(side: Side) -> None:
    side.checks = [("database", well)]
    side.draining = True
    assert (await side.client().get("/readyz")).status_code == 503
    assert (await side.client().get("/healthz")).status_code == 200
