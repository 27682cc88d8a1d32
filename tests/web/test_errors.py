"""Errors have one shape, the right status, and an id; so do answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from indigo.kernel.errors import RateLimited
from indigo.web.caller import PUBLIC
from tests.web.side import Side

pytestmark = pytest.mark.promise("P05")


class Body(BaseModel):
    count: int


@pytest.fixture
def client(side: Side) -> httpx2.AsyncClient:
    router = APIRouter(prefix="/v1/test", dependencies=[Depends(PUBLIC)])

    @router.post("/thing")
    async def make(body: Body) -> Body:
        return body

    @router.get("/thing")
    async def get(limit: Annotated[int, Query()]) -> int:
        return limit

    @router.get("/limited")
    async def limited() -> None:
        raise RateLimited("Too many requests; wait.", retry_after=7)

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the secret is hunter2")

    side.routers = [router]
    return side.client()


def error(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "param", "request_id", "type"]
    assert body["error"]["request_id"] == answer.headers["x-request-id"]
    return body["error"]


async def test_an_unknown_path_is_a_404_in_the_same_shape(client: httpx2.AsyncClient) -> None:
    assert error(await client.get("/v1/nothing"), 404)["code"] == "unknown_path"


async def test_a_wrong_method_is_a_405_that_lists_the_right_ones(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/v1/test/thing")
    assert error(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET, POST"


async def test_get_on_an_inference_path_is_a_405(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/chat/completions")
    error(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_a_trailing_slash_is_another_path_and_not_a_redirect(client: httpx2.AsyncClient) -> None:
    error(await client.get("/v1/version/"), 404)


async def test_a_wrong_type_is_a_400_that_names_the_field_but_not_its_value(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.post("/v1/test/thing", json={"count": "sk-secret"})
    assert error(answer, 400)["param"] == "count"
    assert "sk-secret" not in answer.text
    assert error(await client.get("/v1/test/thing?limit=x"), 400)["param"] == "limit"


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe", b"null", b'{"count":1e999}', b"[" * 100_000])
async def test_a_body_that_is_not_what_was_asked_for_is_a_400(client: httpx2.AsyncClient, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    error(await client.post("/v1/test/thing", content=content, headers=headers), 400)


@pytest.mark.threat("T88")
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_over_the_cap_is_a_413(client: httpx2.AsyncClient, declared: bool) -> None:
    big = b'{"count": 1, "padding": "' + b"x" * 2_000_000 + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 100_000):
            yield big[start : start + 100_000]

    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/test/thing", content=big if declared else chunks(), headers=headers)
    assert error(answer, 413)["code"] == "request_too_large"


async def test_a_domain_error_keeps_its_status_and_retry_after(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/test/limited")
    assert error(answer, 429)["type"] == "rate_limit_error"
    assert answer.headers["retry-after"] == "7"


async def test_an_uncaught_error_is_a_500_that_tells_nothing(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/v1/test/broken")
    assert error(answer, 500)["type"] == "internal_error"
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    assert "hunter2" in caplog.text


@pytest.mark.promise("P80")
async def test_a_clients_request_id_comes_back(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": "a.B-9_x"})
    assert answer.headers.get_list("x-request-id") == ["a.B-9_x"]


@pytest.mark.promise("P80")
@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", "a;b", '"', "<script>"])
async def test_an_ill_formed_request_id_is_replaced(client: httpx2.AsyncClient, given: str) -> None:
    answer = await client.get("/healthz", headers=[(b"x-request-id", given.encode())])
    assert answer.headers["x-request-id"].startswith("req_")


async def test_two_request_ids_in_one_request_are_both_replaced(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/healthz", headers=[("X-Request-Id", "one"), ("X-Request-Id", "two")])
    assert answer.headers.get_list("x-request-id")[0].startswith("req_")


async def test_two_requests_get_two_ids(client: httpx2.AsyncClient) -> None:
    ids = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


async def test_an_open_answer_is_not_marked_as_private(client: httpx2.AsyncClient) -> None:
    assert "cache-control" not in (await client.get("/v1/version")).headers
