"""The server's own capacity, as the first of the limits: so many requests in flight, and then a quick 503."""

from __future__ import annotations

from indigo.gateway.ports import Estimate, Grant, ModelEntry, Tokens
from indigo.kernel.errors import Unavailable


class Capacity:
    """`Limits` for one process that bounds only what it holds at once. Shedding early keeps the rest quick."""

    __slots__ = ("in_flight", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0

    def reserve(self, grant: Grant, model: ModelEntry, estimate: Estimate) -> object:
        if self.in_flight >= self.most:
            raise Unavailable(
                f"The server already answers {self.most} requests; try again shortly.",
                code="server_overloaded",
                retry_after=1,
            )
        self.in_flight += 1
        return None

    def settle(self, reservation: object, used: Tokens, cost_micros: int) -> None:
        self.in_flight -= 1
