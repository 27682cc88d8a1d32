"""Who may call what; that nothing is open by omission."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import APIRouter

from indigo.kernel import api_keys
from indigo.kernel.errors import Unavailable
from indigo.web.app import access_of, declared_routes
from tests.web.side import Side

NO_CREDENTIAL = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer\t"},
    {"Authorization": "Bearer X"},
    {"Authorization": "Basic dXNlcjpwYXNz"},
    {"Authorization": "Bearer ' OR '1'='1"},
    {"Authorization": "Bearer x' OR (SELECT pg_sleep(8)) IS NOT NULL --"},
    {"Authorization": b"Bearer \xff\xfe"},
    {"Authorization": "Bearer " + "sk-proj-" + "a" * 49},
    {"Authorization": "Bearer " + "x" * 9000},
]


def closed_paths(client: httpx2.AsyncClient) -> list[str]:
    transport = client._transport  # pyright: ignore[reportPrivateUsage] - the client has no other way to its app
    assert isinstance(transport, httpx2.ASGITransport)
    routes = declared_routes(transport.app)  # pyright: ignore[reportArgumentType]
    return ["/v1/models/demo" if "{" in r.path else r.path for r in routes if access_of(r).permission is not None]


@pytest.mark.threat("T1", "T4", "T5")
@pytest.mark.parametrize("headers", NO_CREDENTIAL)
async def test_every_closed_route_refuses_what_is_no_key(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    paths = closed_paths(client)
    assert len(paths) == 3
    for path in paths:
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "auth_error"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.threat("T1")
async def test_two_authorization_headers_are_refused_even_when_each_is_valid(
    client: httpx2.AsyncClient, side: Side
) -> None:
    value = f"Bearer {side.grants.issue('project')}"
    answer = await client.get("/v1/models", headers=[("Authorization", value), ("Authorization", value)])
    assert answer.status_code == 401


@pytest.mark.threat("T1")
async def test_a_key_in_the_query_or_a_cookie_is_refused_and_says_why(client: httpx2.AsyncClient, side: Side) -> None:
    key = side.grants.issue("project")
    for answer in (
        await client.get("/v1/models", params={"api_key": key}),
        await client.get("/v1/models", headers={"Cookie": f"key={key}"}),
    ):
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "misplaced_api_key"
        assert key not in answer.text


@pytest.mark.threat("T1")
async def test_two_different_credentials_are_refused(
    client: httpx2.AsyncClient, side: Side, bearer: dict[str, str]
) -> None:
    other = side.grants.issue("project")
    for extra in ({"x-api-key": other}, {"api-key": other}, {"cookie": f"a={other}"}):
        answer = await client.get("/v1/models", headers={**bearer, **extra})
        assert answer.status_code == 400
    assert (await client.get("/v1/models", params={"k": other}, headers=bearer)).status_code == 400


async def test_a_valid_key_is_let_in_whatever_the_case_of_the_scheme(client: httpx2.AsyncClient, side: Side) -> None:
    key = side.grants.issue("project")
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await client.get("/v1/models", headers={"Authorization": f"{scheme} {key}"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"


async def test_a_well_formed_key_that_was_never_issued_is_refused(client: httpx2.AsyncClient) -> None:
    key = api_keys.mint("project")
    answer = await client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401


@pytest.mark.threat("T2")
@pytest.mark.parametrize("failure", [Unavailable("The database is down."), RuntimeError("boom"), TimeoutError()])
async def test_a_key_store_that_fails_lets_nobody_in(side: Side, bearer: dict[str, str], failure: Exception) -> None:
    side.grants.failure = failure
    answer = await side.client().get("/v1/models", headers=bearer)
    assert answer.status_code == (503 if isinstance(failure, Unavailable) else 500)
    assert "data" not in answer.json()


async def test_metrics_are_for_this_machine_and_for_admins(side: Side) -> None:
    admin = {"Authorization": f"Bearer {side.grants.issue('admin')}"}
    project = {"Authorization": f"Bearer {side.grants.issue('project')}"}
    local, remote = side.client("127.0.0.1"), side.client("203.0.113.9")
    assert "requests_total 1.0" in (await local.get("/metrics")).text
    assert (await local.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 401
    assert (await remote.get("/metrics")).status_code == 401
    assert (await remote.get("/metrics", headers=project)).status_code == 403
    assert (await remote.get("/metrics", headers=admin)).status_code == 200


def test_a_route_that_does_not_say_who_may_call_it_stops_the_start(side: Side) -> None:
    forgetful = APIRouter()

    @forgetful.get("/v1/secrets")
    async def secrets() -> str:
        return "all of them"

    side.routers = [forgetful]
    with pytest.raises(ValueError, match="/v1/secrets"):
        side.client()
