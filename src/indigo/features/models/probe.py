"""One small GET to a model endpoint, for health and discovery; inference has the gateway's own client.

An answer's size and time are bounded, certificates are verified, redirects are answers like any other:
nothing is followed, so headers only ever reach the address they were configured for.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

import httptools

from indigo.gateway.endpoints import Address, Endpoint

BYTES_MOST = 4 * 1024 * 1024


class ProbeFailed(Exception):
    """No usable answer; the message is for people and holds no header."""


class Probe(Protocol):
    async def get(self, endpoint: Endpoint, path: str, timeout: float) -> tuple[int, bytes]:
        """Status and body of a GET of `path`. Raises ProbeFailed."""
        ...


class HttpProbe:
    """The `Probe` over HTTP/1.1, a connection each. `tls` replaces the system's trust."""

    def __init__(self, tls: ssl.SSLContext | None = None, bytes_most: int = BYTES_MOST) -> None:
        self._tls = tls
        self._bytes_most = bytes_most

    async def get(self, endpoint: Endpoint, path: str, timeout: float) -> tuple[int, bytes]:
        return await self.fetch(endpoint.address, path, endpoint.headers, timeout)

    async def fetch(
        self, address: Address, path: str, headers: tuple[tuple[str, str], ...], timeout: float
    ) -> tuple[int, bytes]:
        """Status and body of a GET of `path` at `address`. Raises ProbeFailed."""
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._connect(address)
                try:
                    writer.write(_request(address, path, headers))
                    return await self._answer(reader)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise ProbeFailed(f"no answer within {timeout:g} seconds") from None
        except ssl.SSLCertVerificationError as error:
            raise ProbeFailed(f"its certificate is not trusted: {error.verify_message}") from None
        except (ssl.SSLError, OSError) as error:
            raise ProbeFailed(f"cannot connect: {error.strerror or type(error).__name__}") from None

    async def _connect(self, address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if address.unix is not None:
            return await asyncio.open_unix_connection(address.unix)
        if not address.tls:
            return await asyncio.open_connection(address.connect_host, address.port)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return await asyncio.open_connection(
            address.connect_host, address.port, ssl=self._tls, server_hostname=address.host
        )

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        answer = _Answer()
        received = 0
        while not answer.complete:
            data = await reader.read(65536)
            if not data:
                break
            received += len(data)
            if received > self._bytes_most:
                raise ProbeFailed(f"its answer is larger than {self._bytes_most} bytes")
            try:
                answer.parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                raise ProbeFailed("its answer is not HTTP") from error
        if not answer.complete and (not answer.headers_seen or answer.framed):
            raise ProbeFailed("it closed the connection before its answer was complete")
        return answer.status, bytes(answer.body)


class _Answer:
    """What httptools calls back with; interim answers (1xx) are passed over."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.body = bytearray()
        self.complete = False
        self.headers_seen = False
        self.framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self.framed = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.headers_seen = self.status >= 200

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = self.complete or self.headers_seen


def _request(address: Address, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    names = {name.lower() for name, _ in headers}
    ours = [("Host", address.authority), ("Connection", "close"), ("Accept", "application/json")]
    if "user-agent" not in names:
        ours.append(("User-Agent", "indigo"))
    lines = [f"{name}: {value}" for name, value in (*ours, *headers)]
    return "\r\n".join((f"GET {path} HTTP/1.1", *lines, "", "")).encode("ascii")
