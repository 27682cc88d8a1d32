"""The list of models, its pages, and what a key may see of it."""

from __future__ import annotations

import httpx2
import pytest

from tests.web.side import MODELS, Side


@pytest.mark.promise("P03")
async def test_the_list_has_openais_shape(client: httpx2.AsyncClient, bearer: dict[str, str]) -> None:
    body = (await client.get("/v1/models", headers=bearer)).json()
    assert body["object"] == "list"
    assert body["data"][1] == {"id": "demo", "object": "model", "created": 1_700_000_004, "owned_by": "local"}
    assert [model["id"] for model in body["data"]] == list(MODELS)
    assert (body["first_id"], body["last_id"], body["has_more"]) == ("acme/large", "small", False)
    assert body["next_after"] is None


@pytest.mark.promise("P03")
async def test_a_model_whose_id_has_slashes_is_found(client: httpx2.AsyncClient, bearer: dict[str, str]) -> None:
    for path in ("/v1/models/acme/large", "/v1/models/acme%2Flarge"):
        assert (await client.get(path, headers=bearer)).json()["id"] == "acme/large"


@pytest.mark.promise("P03")
async def test_an_unknown_model_is_a_404_naming_it(client: httpx2.AsyncClient, bearer: dict[str, str]) -> None:
    answer = await client.get("/v1/models/gpt-9", headers=bearer)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "gpt-9" in answer.json()["error"]["message"]


async def test_a_key_sees_only_the_models_it_may_use(client: httpx2.AsyncClient, side: Side) -> None:
    headers = {"Authorization": f"Bearer {side.grants.issue('project', models=frozenset({'demo'}))}"}
    body = (await client.get("/v1/models", headers=headers)).json()
    assert [model["id"] for model in body["data"]] == ["demo"]
    hidden = await client.get("/v1/models/small", headers=headers)
    missing = await client.get("/v1/models/nosuch", headers=headers)
    assert hidden.status_code == missing.status_code == 404
    foreign = await client.get("/v1/models?after=small", headers=headers)
    assert foreign.status_code == 400


@pytest.mark.promise("P07")
@pytest.mark.parametrize("name", ["after", "last", "cursor"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_follow_each_other_without_gap_or_repeat(
    client: httpx2.AsyncClient, bearer: dict[str, str], name: str, order: str
) -> None:
    seen: list[str] = []
    query: dict[str, str] = {"limit": "1", "order": order}
    for _ in MODELS:
        body = (await client.get("/v1/models", params=query, headers=bearer)).json()
        assert len(body["data"]) == 1
        assert body["has_more"] == (body["next_after"] is not None)
        seen.append(body["data"][0]["id"])
        query[name] = body["next_after"] or ""
    assert seen == sorted(MODELS, reverse=order == "desc")
    assert query[name] == ""


@pytest.mark.promise("P07")
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1001",
        "limit=٣",
        "limit=1e3",
        "limit=99999999999999999999",
        "order=up",
        "after=forged",
        "after=",
        "after=demo&cursor=small",
    ],
)
async def test_paging_that_makes_no_sense_is_a_400(
    client: httpx2.AsyncClient, bearer: dict[str, str], query: str
) -> None:
    answer = await client.get(f"/v1/models?{query}", headers=bearer)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("limit", "after", "order")
