from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indigo.gateway.endpoints import (
    FAILURES_TO_OPEN,
    OPEN_SECONDS,
    OPEN_SECONDS_MOST,
    PROBE_SECONDS,
    RAMP_SECONDS,
    RETRY_AFTER_MOST,
    Endpoint,
    parse_address,
)

NOW = 1_000.0


def endpoint() -> Endpoint:
    return Endpoint(id="e", provider="p", address=parse_address("http://127.0.0.1:9/v1"), jitter=lambda: 0.0)


def broken(now: float = NOW) -> Endpoint:
    it = endpoint()
    for _ in range(FAILURES_TO_OPEN):
        it.failed(it.begin(now), now)
    return it


@pytest.mark.threat("F21")
def test_the_breaker_opens_after_failures_in_a_row_and_not_before() -> None:
    it = endpoint()
    for _ in range(FAILURES_TO_OPEN - 1):
        it.failed(it.begin(NOW), NOW)
    it.succeeded(it.begin(NOW), NOW)
    for _ in range(FAILURES_TO_OPEN - 1):
        it.failed(it.begin(NOW), NOW)
    assert it.available(NOW)
    it.failed(it.begin(NOW), NOW)
    assert not it.available(NOW)
    assert it.state(NOW) == "open"
    assert it.retry_in(NOW) == OPEN_SECONDS


@pytest.mark.threat("F21")
def test_after_the_pause_a_single_probe_is_let_through() -> None:
    it = broken()
    later = NOW + OPEN_SECONDS
    assert it.available(later)
    assert it.state(later) == "half_open"
    probe = it.begin(later)
    assert not it.available(later)
    it.succeeded(probe, later)
    assert it.available(later)
    assert it.state(later) == "healthy"


@pytest.mark.threat("F21")
def test_a_failed_probe_doubles_the_pause_up_to_a_minute() -> None:
    it, now, expected = broken(), NOW, OPEN_SECONDS
    for _ in range(6):
        now = now + expected
        it.failed(it.begin(now), now)
        expected = min(expected * 2, OPEN_SECONDS_MOST)
        assert not it.available(now + expected - 0.01)
        assert it.available(now + expected)


@pytest.mark.threat("F21")
def test_a_request_that_began_before_the_breaker_opened_neither_closes_it_nor_ends_the_probe() -> None:
    it = endpoint()
    streams = [it.begin(NOW) for _ in range(3)]
    for _ in range(FAILURES_TO_OPEN):
        it.failed(it.begin(NOW), NOW)
    it.succeeded(streams[0], NOW)
    assert not it.available(NOW)
    later = NOW + OPEN_SECONDS
    probe = it.begin(later)
    it.succeeded(streams[1], later)
    it.released(streams[2])
    assert not it.available(later)
    assert it.in_flight == 1
    it.succeeded(probe, later)
    assert it.available(later)


def test_a_probe_closes_the_breaker_as_soon_as_it_answers_not_when_its_stream_ends() -> None:
    it = broken()
    later = NOW + OPEN_SECONDS
    it.answered(it.begin(later), later)
    assert it.available(later)
    assert it.in_flight == 1


@pytest.mark.threat("F18")
def test_an_endpoint_that_breaks_off_every_stream_opens_the_breaker() -> None:
    it = endpoint()
    for _ in range(FAILURES_TO_OPEN):
        assert it.available(NOW)
        stream = it.begin(NOW)
        it.answered(stream, NOW)
        it.failed(stream, NOW)
    assert not it.available(NOW)


def test_a_probe_that_hangs_does_not_hold_the_endpoint_back_for_ever() -> None:
    it = broken()
    later = NOW + OPEN_SECONDS
    hanging = it.begin(later)
    assert not it.available(later + PROBE_SECONDS - 1)
    assert it.available(later + PROBE_SECONDS)
    second = it.begin(later + PROBE_SECONDS)
    it.released(hanging)
    assert not it.available(later + PROBE_SECONDS)
    it.succeeded(second, later + PROBE_SECONDS)
    assert it.available(later + PROBE_SECONDS)


def test_a_probe_whose_client_left_lets_the_next_one_through() -> None:
    it = broken()
    later = NOW + OPEN_SECONDS
    it.released(it.begin(later))
    assert it.available(later)
    assert it.state(later) == "half_open"


@pytest.mark.threat("F21", "F18")
@pytest.mark.parametrize(("said", "kept"), [(2.0, 2.0), (90.0, 90.0), (1e9, RETRY_AFTER_MOST)])
def test_retry_after_is_respected_up_to_a_bound(said: float, kept: float) -> None:
    it = endpoint()
    it.failed(it.begin(NOW), NOW, retry_after=said)
    assert not it.available(NOW + kept * 0.99)
    assert it.available(NOW + kept * 1.01)


@pytest.mark.parametrize("said", [0.0, -5.0, float("nan")])
def test_a_senseless_retry_after_counts_as_a_plain_failure(said: float) -> None:
    it = endpoint()
    it.failed(it.begin(NOW), NOW, retry_after=said)
    assert it.available(NOW)


@pytest.mark.threat("F21")
def test_many_processes_do_not_come_back_in_the_same_instant() -> None:
    back: set[float] = set()
    for _ in range(20):
        it = Endpoint(id="e", provider="p", address=parse_address("http://127.0.0.1:9"))
        it.failed(it.begin(NOW), NOW, retry_after=10.0)
        back.add(it.retry_in(NOW))
    assert len(back) == 20
    assert all(10.0 <= seconds <= 11.0 for seconds in back)


def test_a_recovered_endpoint_gets_its_share_back_little_by_little() -> None:
    it = broken()
    later = NOW + OPEN_SECONDS
    it.succeeded(it.begin(later), later)
    shares = [it.share(later + part * RAMP_SECONDS) for part in (0.0, 0.5, 0.75, 1.0)]
    assert shares == [0.1, 0.5, 0.75, 1.0]
    assert it.share(later) == 1.0


def test_an_endpoint_that_its_probes_found_dead_is_not_available() -> None:
    it = endpoint()
    it.probed_healthy = False
    assert not it.available(NOW)
    assert it.state(NOW) == "unhealthy"
    assert it.retry_in(NOW) == 1.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "succeed", "answer", "fail", "fail", "retry", "release", "wait"]),
        st.integers(0, 30),
        st.floats(0.0, 20.0),
    ),
    max_size=150,
)


class Traffic:
    """Requests to one endpoint as a caller sees them, and what must hold whatever their order."""

    def __init__(self) -> None:
        self.it = endpoint()
        self.now = NOW
        self.not_before = 0.0
        self.running: list[tuple[int, float, bool]] = []

    def begin(self) -> None:
        if not self.it.available(self.now):
            return
        assert self.now >= self.not_before
        half_open = self.it.state(self.now) == "half_open"
        if half_open:
            assert not [1 for _, at, probe in self.running if probe and self.now - at < PROBE_SECONDS]
        self.running.append((self.it.begin(self.now), self.now, half_open))

    def end(self, how: str, pick: int, amount: float) -> None:
        place = pick % len(self.running)
        begun, _, probe = self.running[place]
        if how != "answer":
            self.running.pop(place)
        before = self.it.state(self.now)
        match how:
            case "fail":
                self.it.failed(begun, self.now)
            case "retry":
                self.it.failed(begun, self.now, retry_after=amount)
                self.not_before = max(self.not_before, self.now + amount)
            case "release":
                self.it.released(begun)
            case "answer":
                self.it.answered(begun, self.now)
            case _:
                self.it.succeeded(begun, self.now)
        if before != "healthy" and self.it.state(self.now) == "healthy":
            assert probe
            assert how in ("succeed", "answer")

    def step(self, action: str, pick: int, amount: float) -> None:
        if action == "wait":
            self.now += amount
        elif action == "begin":
            self.begin()
        elif self.running:
            self.end(action, pick, amount)
        if self.it.state(self.now) == "healthy":
            self.running = [(begun, at, False) for begun, at, _ in self.running]
        assert self.it.in_flight == len(self.running)


@settings(max_examples=300, deadline=None)
@given(STEPS)
@pytest.mark.threat("F21")
def test_whatever_happens_at_most_one_probe_runs_and_only_its_success_closes_the_breaker(
    steps: list[tuple[str, int, float]],
) -> None:
    traffic = Traffic()
    for action, pick, amount in steps:
        traffic.step(action, pick, amount)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:80",
        "http://",
        "http://user:pass@host",
        "http://host/v1?key=1",
        "http://host/v1#x",
        "http://ho st",
        "http://host\r\nX: y",
        "http://host:99999",
        "http://höst",
        "unix:/tmp/a\0b",
        "unix:relative",
        "",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_address(url)


def test_addresses_are_read_as_written() -> None:
    plain = parse_address("http://Host:8000/")
    assert (plain.host, plain.port, plain.tls, plain.prefix) == ("host", 8000, False, "/v1")
    assert plain.authority == "host:8000"
    secure = parse_address("https://api.example.com/openai/v1/")
    assert (secure.port, secure.tls, secure.prefix) == (443, True, "/openai/v1")
    assert secure.authority == "api.example.com"
    assert parse_address("unix:/run/x.sock").unix == "/run/x.sock"
    assert parse_address("unix:/srv/Jörg K/x.sock").unix == "/srv/Jörg K/x.sock"
    assert parse_address("http://[::1]:80").authority == "[::1]"


def test_an_endpoint_whose_process_was_replaced_starts_with_a_clean_slate() -> None:
    endpoint = Endpoint(id="e", provider="p", address=parse_address("unix:/x"))
    late = endpoint.begin(0.0)
    for _ in range(5):
        endpoint.failed(endpoint.begin(0.0), 0.0)
    endpoint.probed_healthy = False
    assert not endpoint.available(1.0)
    endpoint.revived()
    assert endpoint.available(1.0)
    assert endpoint.state(1.0) == "healthy"
    for _ in range(4):
        endpoint.failed(endpoint.begin(1.0), 1.0)
    endpoint.failed(late, 1.0)
    assert endpoint.available(1.0), "a request that the old process failed does not count"
