from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indigo.gateway.endpoints import FAILURES_TO_OPEN, OPEN_SECONDS, Endpoint, parse_address
from indigo.gateway.ports import Target
from indigo.gateway.resolve import ordered

NOW = 1_000.0


def target(weight: int = 1, tier: int = 0, in_flight: int = 0) -> Target:
    endpoint = Endpoint(id="e", provider="p", address=parse_address("http://127.0.0.1:9"))
    endpoint.in_flight = in_flight
    return Target(endpoint=endpoint, served_name="m", weight=weight, tier=tier)


def simulate(weights: list[int], concurrency: int, requests: int = 20_000) -> list[float]:
    """The shares of `requests` with exponential durations, `concurrency` of them in flight at any time."""
    targets = tuple(target(weight) for weight in weights)
    counts = [0] * len(targets)
    running: list[tuple[float, int, int]] = []
    now = NOW
    for _ in range(requests):
        if len(running) >= concurrency:
            now, place, begun = heapq.heappop(running)
            targets[place].endpoint.succeeded(begun, now)
        best = ordered(targets, now)[0]
        place = next(index for index, it in enumerate(targets) if it is best)
        counts[place] += 1
        begun = best.endpoint.begin(now)
        heapq.heappush(running, (now + random.expovariate(1.0), place, begun))
    return [count / requests for count in counts]


@pytest.mark.promise("P52")
@pytest.mark.parametrize("concurrency", [1, 4, 16, 100])
@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [1, 2, 5]])
def test_requests_spread_over_endpoints_by_their_weights(weights: list[int], concurrency: int) -> None:
    random.seed(7)
    for share, weight in zip(simulate(weights, concurrency), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=0.05)


@pytest.mark.promise("P52")
def test_of_equal_endpoints_the_less_loaded_one_is_always_first() -> None:
    busy, idle = target(in_flight=1), target()
    assert all(ordered((busy, idle), NOW) == [idle, busy] for _ in range(200))


def test_ties_are_spread() -> None:
    targets = (target(), target(), target())
    firsts = [ordered(targets, NOW)[0] for _ in range(600)]
    assert all(sum(first is one for first in firsts) > 120 for one in targets)


@pytest.mark.promise("P52")
def test_a_higher_tier_is_asked_only_after_every_lower_one() -> None:
    preferred, spare = target(in_flight=50), target(tier=1)
    assert ordered((spare, preferred), NOW) == [preferred, spare]
    preferred.endpoint.probed_healthy = False
    assert ordered((spare, preferred), NOW) == [spare]


@pytest.mark.promise("P52")
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_what_is_not_available_is_left_out_and_none_available_is_an_empty_list(count: int) -> None:
    targets = tuple(target() for _ in range(count))
    for one in targets:
        one.endpoint.probed_healthy = False
    assert ordered(targets, NOW) == []


@pytest.mark.threat("F21")
def test_an_endpoint_that_comes_back_is_not_flooded() -> None:
    back, steady = target(), target(in_flight=100)
    for _ in range(FAILURES_TO_OPEN):
        back.endpoint.failed(back.endpoint.begin(NOW), NOW)
    later = NOW + OPEN_SECONDS
    back.endpoint.succeeded(back.endpoint.begin(later), later)
    for _ in range(100):
        ordered((back, steady), later)[0].endpoint.begin(later)
    assert back.endpoint.in_flight < 25


PARTS = st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(0, 99), st.booleans())


@given(st.lists(PARTS, max_size=8))
def test_the_order_holds_each_available_target_once_with_tiers_rising(
    parts: list[tuple[int, int, int, bool]],
) -> None:
    targets = tuple(target(weight, tier, load) for weight, tier, load, _ in parts)
    for one, (*_, healthy) in zip(targets, parts, strict=True):
        one.endpoint.probed_healthy = healthy
    result = ordered(targets, NOW)
    assert {id(one) for one in result} == {id(one) for one in targets if one.endpoint.probed_healthy}
    assert len(result) == len({id(one) for one in result})
    assert [one.tier for one in result] == sorted(one.tier for one in result)
