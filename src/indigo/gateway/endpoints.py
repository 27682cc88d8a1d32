"""An endpoint: one address that answers for a provider, with its load, its health and its circuit breaker.

Pure state, no sockets: the pool keeps those, the health probes of `features/models` and the traffic itself
report here. The breaker follows Nygard, "Release It!" (closed, open, half-open with a single probe).
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 5.0
OPEN_SECONDS_MOST = 60.0


class Address(msgspec.Struct, frozen=True):
    """Where to connect, and what to put before the operation's path. `unix` is a socket's path, or None."""

    host: str
    port: int
    tls: bool
    prefix: str
    unix: str | None = None

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
        return Address(host="localhost", port=80, tls=False, prefix="/v1", unix=base_url[5:])
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in base_url):
        raise ValueError(f"{base_url!r} contains a space or control character")
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{base_url!r} is not an http://, https:// or unix:/ address")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{base_url!r} must not carry a user, a query or a fragment; put credentials in headers")
    tls = parts.scheme == "https"
    return Address(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/") or "/v1",
    )


class Endpoint:
    """See the module. `headers` are sent with every request there; they are secrets."""

    __slots__ = (
        "_failures",
        "_open_for",
        "_open_until",
        "_probing",
        "address",
        "headers",
        "id",
        "in_flight",
        "pool",
        "probed_healthy",
        "provider",
    )

    def __init__(self, *, id: str, provider: str, address: Address, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.id = id
        self.provider = provider
        self.address = address
        self.headers = headers
        self.in_flight = 0
        self.probed_healthy = True
        self.pool: object | None = None
        self._failures = 0
        self._open_until = 0.0
        self._open_for = OPEN_SECONDS
        self._probing = False

    def available(self, now: float) -> bool:
        """Whether to send a request there now; `now` is monotonic."""
        if not self.probed_healthy or now < self._open_until:
            return False
        return not self._probing

    def state(self, now: float) -> str:
        """healthy | unhealthy | open | half_open, for people."""
        if not self.probed_healthy:
            return "unhealthy"
        if now < self._open_until:
            return "open"
        return "half_open" if self._open_until else "healthy"

    def begin(self) -> None:
        """A request goes there. After the breaker's pause the first one is the probe; others wait for its end."""
        self.in_flight += 1
        if self._open_until:
            self._probing = True

    def succeeded(self) -> None:
        self.in_flight -= 1
        self._failures = 0
        self._open_until = 0.0
        self._open_for = OPEN_SECONDS
        self._probing = False

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """It did not answer, or with a 5xx or 429. `retry_after` seconds, where it said so, are respected."""
        self.in_flight -= 1
        self._failures += 1
        if retry_after is not None:
            self._open_until = max(self._open_until, now + min(retry_after, OPEN_SECONDS_MOST))
        elif self._probing:
            self._open_for = min(self._open_for * 2, OPEN_SECONDS_MOST)
            self._open_until = now + self._open_for
        elif self._failures >= FAILURES_TO_OPEN:
            self._open_until = now + self._open_for
        self._probing = False

    def released(self) -> None:
        """The request ended for a reason that says nothing about the endpoint (the client left, say)."""
        self.in_flight -= 1
        self._probing = False

    def retry_in(self, now: float) -> float:
        """Seconds until it is worth another try; 1 where only a probe can tell."""
        return max(1.0, self._open_until - now)
