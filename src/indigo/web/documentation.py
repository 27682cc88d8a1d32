"""The OpenAPI description, made from the routes, and Swagger UI to read it with, served whole from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, Field
from starlette.routing import BaseRoute

from indigo.kernel.errors import NotFound
from indigo.web.caller import PUBLIC

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
START = """window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: false,
    validatorUrl: null, presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
  });
};
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Indigo API</title>
  <link rel="icon" type="image/png" href="/api/swagger/favicon-32x32.png">
  <link rel="stylesheet" href="/api/swagger/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/api/swagger/swagger-ui-bundle.js"></script>
  <script src="/api/swagger/start.js"></script>
</body>
</html>
"""
# Swagger UI writes style attributes and draws its icons from data: URLs; scripts come from this server only.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DESCRIPTION = """An OpenAI-compatible API: OpenAI's own clients work with their `base_url` set to `/v1` here.

Send your API key as `Authorization: Bearer sk-…`. Every answer carries `X-Request-Id`; send your own
(up to 128 of `A-Za-z0-9._-`) to follow a request through the logs. Errors have one shape, see `ErrorBody`.
"""
ERRORS = {
    400: "The request itself is wrong; `message` and `param` say where",
    401: "No API key, or one that is not valid",
    403: "The key is valid, but may not do this",
    404: "No such thing, or not visible to this key",
    500: "Our fault; the log has the details under `request_id`",
    503: "Nothing can take the request now; come back after `Retry-After` seconds",
}


class ErrorDetail(BaseModel):
    type: str = Field(description="The class of error.", examples=["auth_error"])
    code: str = Field(description="The exact cause, stable for programs.", examples=["invalid_api_key"])
    message: str = Field(description="What was wrong and what to do, for people.", examples=["No API key was sent."])
    param: str | None = Field(description="The parameter at fault, where there is one.", examples=["model"])
    request_id: str = Field(description="As in the X-Request-Id header.", examples=["req_0Yb3QkX8w2VZr5TnLq9sDa"])


class ErrorBody(BaseModel):
    """What every error looks like."""

    error: ErrorDetail


def openapi(version: str, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The description of `routes`, with their security and the errors they can answer with."""
    document = get_openapi(
        title="Indigo",
        version=version,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=routes,
    )
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas["ErrorBody"] = body
    components["securitySchemes"] = {
        "api_key": {"type": "http", "scheme": "bearer", "description": "An API key, `sk-…`."}
    }
    for context in iter_route_contexts(routes):
        if isinstance(context.original_route, APIRoute) and context.original_route.include_in_schema:
            _complete(document, context.original_route, context.path or "")
    return document


def _complete(document: dict[str, Any], route: APIRoute, path: str) -> None:
    public = any(dependency.call is PUBLIC for dependency in route.dependant.dependencies)
    for method in route.methods or ():
        operation = document["paths"][path.replace(":path", "")][method.lower()]
        responses = operation["responses"]
        responses.pop("422", None)
        for status in [500] if public else list(ERRORS):
            responses.setdefault(str(status), _error_response(ERRORS[status]))
        if not public:
            operation["security"] = [{"api_key": []}]


def _error_response(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def router(document: Callable[[], dict[str, Any]], enable_swagger: bool) -> APIRouter:
    routes = APIRouter(dependencies=[Depends(PUBLIC)], include_in_schema=False)

    @routes.get("/openapi.json")
    async def description() -> Response:
        return JSONResponse(document())

    if enable_swagger:
        _add_swagger(routes)
    return routes


def _add_swagger(routes: APIRouter) -> None:
    folder = files("fastapi_swagger") / "resources"
    contents = {name: (folder / name).read_bytes() for name in ASSETS}

    @routes.get("/api/swagger/index.html")
    @routes.get("/v1/swagger/index.html")
    async def page() -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY})

    @routes.get("/api/swagger/start.js")
    async def start() -> Response:
        return Response(START, media_type="text/javascript")

    @routes.get("/api/swagger/{name}")
    async def asset(name: str) -> Response:
        if name not in contents:
            raise NotFound("There is no such file.", code="unknown_path")
        return Response(contents[name], media_type=ASSETS[name], headers={"Cache-Control": "max-age=86400"})
