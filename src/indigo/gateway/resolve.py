"""Which endpoint is asked first: the least loaded for its weight, among those that are available now.

Pure: no clock, no sockets. `Endpoint` says what is available; this only puts the targets in order.
"""

from __future__ import annotations

import math
import random

from indigo.gateway.ports import Target


def ordered(targets: tuple[Target, ...], now: float) -> list[Target]:
    """The available targets, best first; empty when there is none. `now` is monotonic.

    Lower tiers come first; within a tier, fewer requests in flight for the weight. Ties spread at random.
    """
    if len(targets) == 1:
        target = targets[0]
        return [target] if target.endpoint.available(now) else []
    open_targets = [target for target in targets if target.endpoint.available(now)]
    if len(open_targets) < 2:
        return open_targets
    first = open_targets[0].weight
    draw = random.random if all(target.weight == first for target in open_targets) else _exponential
    loads = [
        (one.tier, (one.endpoint.in_flight + draw()) / (one.weight * one.endpoint.share(now)), place)
        for place, one in enumerate(open_targets)
    ]
    loads.sort()
    return [open_targets[place] for _, _, place in loads]


def _exponential() -> float:
    """Among idle targets the least of `exponential / weight` falls on each in exact proportion to its weight.

    Uniform draws below one keep equal weights strictly least-in-flight, but would favour the heavier of two
    unequal ones beyond its weight while both are idle. Twice the exponential keeps the shares within a few
    percent at a handful of requests in flight too (simulated), where whole requests are coarse.
    """
    return -2.0 * math.log(1.0 - random.random())
