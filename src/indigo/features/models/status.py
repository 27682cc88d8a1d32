"""How the endpoints are, as frozen records for `/readyz` and the command line, without headers or secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from indigo.features.models.health import Checked
from indigo.gateway.endpoints import Endpoint


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """`state` is healthy | unhealthy | open | half_open; `checked_at` is None before the first probe."""

    id: str
    provider: str
    state: str
    models: tuple[str, ...]
    in_flight: int
    latency_ms: float | None
    error: str
    checked_at: float | None

    @classmethod
    def of(cls, endpoint: Endpoint, checked: Checked, models: Iterable[str], now: float) -> EndpointStatus:
        return cls(
            id=endpoint.id,
            provider=endpoint.provider,
            state=endpoint.state(now),
            models=tuple(models),
            in_flight=endpoint.in_flight,
            latency_ms=checked.latency_ms,
            error=checked.error,
            checked_at=checked.at,
        )


@dataclass(frozen=True, slots=True)
class Status:
    endpoints: tuple[EndpointStatus, ...]
    file_error: str
    discovery_errors: Mapping[str, str]
