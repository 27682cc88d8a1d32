"""An endpoint: one address that answers for a provider, with its load, its health and its circuit breaker.

Pure state, no sockets: the pool keeps those, the health probes of `features/models` and the traffic itself
report here. The breaker follows Nygard, "Release It!" (closed, open, half-open with a single probe).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 5.0
OPEN_SECONDS_MOST = 60.0
RETRY_AFTER_MOST = 300.0
PROBE_SECONDS = 30.0
RAMP_SECONDS = 10.0


class Address(msgspec.Struct, frozen=True):
    """Where to connect, and what to put before the operation's path. `unix` is a socket's path, or None.

    `ip` is the one replica of a discovered service to connect to; the Host header and the certificate's name
    stay those of `host`.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    unix: str | None = None
    ip: str | None = None

    @property
    def connect_host(self) -> str:
        """The name or number to open a TCP connection to."""
        return self.ip or self.host

    @property
    def authority(self) -> str:
        """The Host header's value (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_address(base_url: str) -> Address:
    """`http(s)://host[:port][/prefix]` or `unix:/path`; a URL without a path means `/v1`.

    Raises ValueError, naming what is wrong, for anything else.
    """
    if base_url.startswith("unix:/"):
        if "\0" in base_url:
            raise ValueError(f"{base_url!r} contains a NUL")
        return Address(host="localhost", port=80, tls=False, prefix="/v1", unix=base_url[5:])
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in base_url):
        raise ValueError(f"{base_url!r} contains a space or control character")
    if not base_url.isascii():
        raise ValueError(f"{base_url!r} has letters outside ASCII; write the host in its xn-- form")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{base_url!r} is not an http://, https:// or unix:/ address")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{base_url!r} must not carry a user, query or fragment; credentials belong in headers")
    tls = parts.scheme == "https"
    return Address(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/") or "/v1",
    )


class Endpoint:
    """See the module. `headers` are sent with every request there; they are secrets.

    Every request calls `begin` once, keeps the number it gives, and ends with exactly one of `succeeded`,
    `failed` or `released`. The number says under which state of the breaker the request began: what began
    before the breaker opened (a long stream, say) must neither close it nor end the probe.
    """

    __slots__ = (
        "_failures",
        "_generation",
        "_jitter",
        "_open_for",
        "_open_until",
        "_probe_until",
        "_reclosed_at",
        "address",
        "headers",
        "id",
        "in_flight",
        "pool",
        "probed_healthy",
        "provider",
    )

    def __init__(
        self,
        *,
        id: str,
        provider: str,
        address: Address,
        headers: tuple[tuple[str, str], ...] = (),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.id = id
        self.provider = provider
        self.address = address
        self.headers = headers
        self.in_flight = 0
        self.probed_healthy = True
        self.pool: object | None = None
        self._failures = 0
        self._generation = 0
        self._jitter = jitter
        self._open_for = OPEN_SECONDS
        self._open_until = 0.0
        self._probe_until = 0.0
        self._reclosed_at = 0.0

    def available(self, now: float) -> bool:
        """Whether to send a request there now; `now` is monotonic."""
        return self.probed_healthy and now >= self._open_until and now >= self._probe_until

    def state(self, now: float) -> str:
        """healthy | unhealthy | open | half_open, for people."""
        if not self.probed_healthy:
            return "unhealthy"
        if now < self._open_until:
            return "open"
        return "half_open" if self._open_until else "healthy"

    def begin(self, now: float) -> int:
        """A request goes there. After the breaker's pause the first one is the probe; others wait for it.

        A probe that neither answers nor ends holds them back for `PROBE_SECONDS`, then another is let out.
        """
        self.in_flight += 1
        if self._open_until:
            self._generation += 1
            self._probe_until = now + PROBE_SECONDS
        return self._generation

    def answered(self, begun: int, now: float) -> None:
        """It has begun to answer well, the request still runs: a probe closes the breaker. May be left out.

        Failures stay counted until a request ends well, so that one that breaks off every stream is noticed.
        """
        if self._open_until and begun == self._generation:
            self._open_until = self._probe_until = 0.0
            self._open_for = OPEN_SECONDS
            self._reclosed_at = now

    def succeeded(self, begun: int, now: float) -> None:
        self.in_flight -= 1
        if begun == self._generation:
            self._failures = 0
            self.answered(begun, now)

    def failed(self, begun: int, now: float, retry_after: float | None = None) -> None:
        """It did not answer, or with a 5xx or 429. `retry_after` seconds, where it said so, are respected."""
        self.in_flight -= 1
        if retry_after is not None and retry_after > 0:
            pause = min(retry_after, RETRY_AFTER_MOST)
            self._open(max(self._open_until, now + pause * (1 + self._jitter() / 10)))
        elif begun != self._generation:
            return
        elif self._open_until:
            self._open_for = min(self._open_for * 2, OPEN_SECONDS_MOST)
            self._open(now + self._pause())
        else:
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                self._open(now + self._pause())

    def released(self, begun: int) -> None:
        """The request ended for a reason that says nothing about the endpoint (the client left, say)."""
        self.in_flight -= 1
        if begun == self._generation:
            self._probe_until = 0.0

    def revived(self) -> None:
        """Another process has taken its place and is ready: what the last one did is not held against it."""
        self.probed_healthy = True
        self._open_until = self._probe_until = 0.0
        self._open_for = OPEN_SECONDS
        self._failures = 0
        self._generation += 1

    def share(self, now: float) -> float:
        """The part of its weight it gets: 1, but after reclosing a tenth, rising over `RAMP_SECONDS`.

        It comes back idle, and by load alone the next burst would go there whole.
        """
        if not self._reclosed_at:
            return 1.0
        elapsed = now - self._reclosed_at
        if elapsed >= RAMP_SECONDS:
            self._reclosed_at = 0.0
            return 1.0
        return max(0.1, elapsed / RAMP_SECONDS)

    def retry_in(self, now: float) -> float:
        """Seconds until it is worth another try; 1 where only a probe can tell."""
        return max(1.0, self._open_until - now)

    def _open(self, until: float) -> None:
        self._open_until = until
        self._probe_until = 0.0
        self._failures = 0
        self._generation += 1

    def _pause(self) -> float:
        """Up to a tenth more than planned, so that many processes do not come back in the same instant."""
        return self._open_for * (1 + self._jitter() / 10)
