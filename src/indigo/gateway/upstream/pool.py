"""The connections of one endpoint: the warmest idle one is used again, a new one is dialled where none is idle."""

from __future__ import annotations

import asyncio
import ssl

from indigo.gateway.endpoints import Address
from indigo.gateway.outbox import Outbox
from indigo.gateway.upstream.connection import Connection

IDLE_SECONDS = 4.0
"""Shorter than the 5 s after which uvicorn-based engines close: a request must not meet a closing connection."""


class ConnectFailed(Exception):
    """No connection; the text says why, without addresses."""


class PoolFull(ConnectFailed):
    """Our own bound on connections to one endpoint is reached: that is no failure of the endpoint."""


class Pool:
    def __init__(self, address: Address, outbox: Outbox, *, most: int, connect_seconds: float) -> None:
        self._address = address
        self._outbox = outbox
        self._most = most
        self._connect_seconds = connect_seconds
        self._idle: dict[Connection, None] = {}
        self._open: set[Connection] = set()
        self._dialling = 0
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context() if address.tls else None

    @property
    def size(self) -> int:
        return len(self._open)

    def idle(self) -> Connection | None:
        """A connection that waits for work, or None."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable():
                return connection
        return None

    async def dial(self) -> Connection:
        """A new connection. Raises ConnectFailed."""
        if len(self._open) + self._dialling >= self._most:
            raise PoolFull("all its connections are in use")
        loop = self._loop
        address = self._address
        self._dialling += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                if address.unix is not None:
                    _, connection = await loop.create_unix_connection(self._connection, address.unix)
                else:
                    _, connection = await loop.create_connection(
                        self._connection, address.connect_host, address.port, ssl=self._tls,
                        server_hostname=address.host if address.tls else None,
                    )  # fmt: skip
        except TimeoutError:
            raise ConnectFailed("it did not accept a connection in time") from None
        except ssl.SSLError as error:
            raise ConnectFailed(f"its TLS certificate or protocol is refused ({error.reason})") from None
        except OSError as error:
            raise ConnectFailed(f"it cannot be reached ({type(error).__name__})") from None
        finally:
            self._dialling -= 1
        if not connection.usable():
            raise ConnectFailed("it closed the connection at once")
        self._open.add(connection)
        return connection

    def _connection(self) -> Connection:
        return Connection(self, self._outbox)

    def released(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle[connection] = None

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def sweep(self, now: float) -> bool:
        """Close what has been idle too long."""
        oldest = now - IDLE_SECONDS
        for connection in [each for each in self._idle if each.idle_since < oldest]:
            del self._idle[connection]
            connection.abort()
        return False

    def close(self) -> None:
        """Close the idle ones; busy ones close when their call ends."""
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()
