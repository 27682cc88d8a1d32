"""The management side as one ASGI application, made of its arguments; `processes.wiring` has them.

Not for inference: the gateway answers those routes before ASGI. They are in the documentation all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from prometheus_client import CollectorRegistry
from starlette.middleware import Middleware
from starlette.routing import Match

from indigo.gateway.ports import Grants, Routes
from indigo.web import documentation, errors, health, inference, metrics, models
from indigo.web.caller import Access
from indigo.web.edge import Edge

MAX_BODY = 1024 * 1024
"""Management bodies are small; those of inference have a cap of their own."""
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def make_app(
    *,
    version: str,
    started_at: float,
    grants: Grants,
    routes: Routes,
    model_created: Callable[[str], int],
    checks: Sequence[health.Check] = (),
    draining: Callable[[], bool] = lambda: False,
    registry: CollectorRegistry,
    max_body: int = MAX_BODY,
    enable_swagger: bool = True,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The application, with `routers` of the features beside its own.

    `started_at` is when the environment was read; `model_created` says when a model was first registered, in
    Unix seconds. Raises ValueError for a route that does not say who may call it.
    """
    app = FastAPI(
        title="Indigo",
        version=version,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Edge, max_body=max_body)],
        redirect_slashes=False,
    )
    app.include_router(health.router(version, started_at, checks, draining))
    app.include_router(models.router(grants, routes, model_created))
    app.include_router(metrics.router(grants, registry))
    for router in routers:
        app.include_router(router)
    described = [*app.routes, *inference.router().routes]
    document = functools.cache(lambda: documentation.openapi(version, described))
    app.include_router(documentation.router(document, enable_swagger))
    for route in declared_routes(app):
        access_of(route)
    known = [*app.routes, *inference.router().routes]
    errors.install(app, lambda request: _allowed(request, known))
    app.openapi = document
    return app


def declared_routes(app: FastAPI) -> list[APIRoute]:
    """Every route, those of included routers too."""
    found = [context.original_route for context in iter_route_contexts(app.routes)]
    strangers = [route for route in found if not isinstance(route, APIRoute)]
    if strangers:
        raise ValueError(f"{strangers} are not API routes; add them with a router that declares their access")
    return [route for route in found if isinstance(route, APIRoute)]


def access_of(route: APIRoute) -> Access:
    """Who may call `route`. Raises ValueError where it does not say, or says more than one thing."""
    found = list(_accesses(route.dependant))
    if len(found) != 1:
        raise ValueError(f"{route.path} must depend on exactly one of web.caller.PUBLIC or a Permission")
    return found[0]


def _accesses(dependant: Dependant) -> Iterable[Access]:
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Access):
            yield dependency.call
        yield from _accesses(dependency)


def _allowed(request: Request, routes: Sequence[Any]) -> frozenset[str]:
    """The methods that the request's path takes, over all routes: a path's methods may stand in several."""
    scope = dict(request.scope)
    found: set[str] = set()
    for method in METHODS:
        scope["method"] = method
        if any(route.matches(dict(scope))[0] is Match.FULL for route in routes):
            found.add(method)
    return frozenset(found)
