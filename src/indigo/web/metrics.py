"""`GET /metrics` for Prometheus: from this machine without a key, from elsewhere with an admin key."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from indigo.gateway.ports import Grants
from indigo.web.caller import Access, Permission

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class LocalOr(Access):
    """A permission that a scraper on this machine does not need."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(permission.permission)
        self._needed = permission

    async def __call__(self, request: Request) -> None:
        if not _is_local(request):
            await self._needed(request)


def router(grants: Grants, registry: CollectorRegistry) -> APIRouter:
    routes = APIRouter(tags=["Health"])
    access = LocalOr(Permission("metrics.read", grants))

    @routes.get("/metrics", summary="Metrics for Prometheus", dependencies=[Depends(access)], response_class=Response)
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        encode, content_type = choose_encoder(accept)
        return Response(encode(registry), headers={"Content-Type": content_type})

    return routes


def _is_local(request: Request) -> bool:
    """Whether the peer is this machine, for itself: a reverse proxy on this machine speaks for others."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
