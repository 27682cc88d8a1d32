"""The OpenAPI description and Swagger UI."""

from __future__ import annotations

import re

import httpx2
import pytest

from indigo.gateway.operations import PATHS
from tests.web.side import Side

pytestmark = pytest.mark.promise("P14")


async def test_inference_is_documented_though_the_gateway_serves_it(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path in PATHS:
        operation = document["paths"][path]["post"]
        assert operation["security"] == [{"api_key": []}]
        assert {"200", "400", "401", "404", "429", "503"} <= set(operation["responses"])


async def test_every_operation_has_a_summary_auth_and_errors(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert "422" not in operation["responses"], path
            error = operation["responses"]["500"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorBody"}
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert document["paths"]["/v1/models"]["get"]["security"] == [{"api_key": []}]
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_no_reference_in_the_description_leads_nowhere(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', answer.text):
        assert name in schemas


async def test_examples_stand_in_the_description(client: httpx2.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["model"]["examples"] == ["indigo-demo"]
    assert schemas["ErrorDetail"]["properties"]["code"]["examples"] == ["invalid_api_key"]


@pytest.mark.parametrize("path", ["/api/swagger/index.html", "/v1/swagger/index.html"])
async def test_swagger_ui_loads_everything_from_this_server(client: httpx2.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 4
    for address in linked:
        asset = await client.get(address)
        assert asset.status_code == 200
        assert len(asset.content) > 100
        assert not asset.headers["content-type"].startswith("text/html")


async def test_nothing_else_of_the_disk_is_served(client: httpx2.AsyncClient) -> None:
    for path in ("/api/swagger/__init__.py", "/api/swagger/..%2F__init__.py", "/api/swagger/%2Fetc%2Fpasswd"):
        assert (await client.get(path)).status_code == 404


async def test_swagger_ui_can_be_turned_off(side: Side) -> None:
    side.enable_swagger = False
    client = side.client()
    assert (await client.get("/api/swagger/index.html")).status_code == 404
    assert (await client.get("/openapi.json")).status_code == 200
