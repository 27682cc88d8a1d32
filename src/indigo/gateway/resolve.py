"""Which target first: the least busy for its weight among those available."""

from __future__ import annotations

from indigo.gateway.ports import Target


def ordered(targets: tuple[Target, ...], now: float) -> list[Target]:
    """The available targets, best first; none where none is available. `now` is monotonic."""
    available = [target for target in targets if target.endpoint.available(now)]
    available.sort(key=lambda target: (target.endpoint.in_flight + 1) / target.weight)
    return available
