"""Asks an engine's /health, over TCP or a unix socket. A short connection each time: none goes stale."""

from __future__ import annotations

import asyncio

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def healthy(base_url: str, timeout: float) -> bool:
    """Whether it answers 200 within `timeout` seconds. `base_url` is `unix:/path` or `http://host:port`."""
    try:
        async with asyncio.timeout(timeout):
            return await _ask(base_url)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _ask(base_url: str) -> bool:
    if base_url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(base_url[5:])
    else:
        host, _, port = base_url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(REQUEST)
        status = await reader.readexactly(12)
        return status[9:12] == b"200"
    finally:
        writer.close()
