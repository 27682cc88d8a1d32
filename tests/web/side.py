"""The management side on ports in memory, for the tests of this folder to hold."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import httpx2
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter

from indigo.gateway.endpoints import Endpoint, parse_address
from indigo.gateway.operations import CHAT
from indigo.gateway.ports import Grant, ModelEntry, Target
from indigo.kernel import api_keys
from indigo.kernel.errors import Unauthorized
from indigo.web.app import make_app
from indigo.web.health import Check

MODELS = ("acme/large", "demo", "small")


@dataclass
class MemoryGrants:
    """Grants in a dictionary. `failure` is raised instead, where set."""

    grants: dict[bytes, Grant] = field(default_factory=dict[bytes, Grant])
    failure: Exception | None = None

    def issue(self, kind: str, models: frozenset[str] | None = None) -> str:
        key = api_keys.mint(kind)
        digest = api_keys.digest(key.encode())
        self.grants[digest] = Grant(key_id=f"key_{len(self.grants)}", kind=kind, org_id="org_a", models=models)
        return key

    def cached(self, digest: bytes) -> Grant | None:
        if self.failure is not None:
            raise self.failure
        return self.grants.get(digest)

    def find(self, digest: bytes) -> Awaitable[Grant]:
        return self._find(digest)

    async def _find(self, digest: bytes) -> Grant:
        raise Unauthorized("The API key is not valid.")


class MemoryRoutes:
    def __init__(self, ids: Sequence[str]) -> None:
        endpoint = Endpoint(id="e1", provider="local", address=parse_address("http://127.0.0.1:1"))
        target = Target(endpoint=endpoint, served_name="x")
        self._entries = [ModelEntry(id=id, operations=frozenset({CHAT}), targets=(target,)) for id in ids]

    def entry(self, model: str) -> ModelEntry | None:
        return next((entry for entry in self._entries if entry.id == model), None)

    def entries(self) -> Sequence[ModelEntry]:
        return self._entries


@dataclass
class Side:
    """What a test holds of the management side."""

    grants: MemoryGrants = field(default_factory=MemoryGrants)
    checks: list[Check] = field(default_factory=list[Check])
    routers: list[APIRouter] = field(default_factory=list[APIRouter])
    draining: bool = False
    enable_swagger: bool = True

    def client(self, peer: str = "203.0.113.9") -> httpx2.AsyncClient:
        registry = CollectorRegistry()
        Counter("requests", "Requests", registry=registry).inc()
        app = make_app(
            version="1.2.3",
            started_at=1_800_000_000.0,
            grants=self.grants,
            routes=MemoryRoutes(MODELS),
            model_created=lambda id: 1_700_000_000 + len(id),
            checks=self.checks,
            draining=lambda: self.draining,
            registry=registry,
            enable_swagger=self.enable_swagger,
            routers=self.routers,
        )
        transport = httpx2.ASGITransport(app=app, client=(peer, 1234))
        return httpx2.AsyncClient(transport=transport, base_url="http://indigo.test")
